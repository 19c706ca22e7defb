// What the instance that serves this page has committed in the last hour: its rate over time, and the latest
// explosions.

import { getActivity, serviceNow } from './api.js';
import { byId, element, setText, setValue } from './dom.js';
import { formatClock, formatCount, formatDuration, formatFullTime, formatRate, formatTime } from './format.js';
import { makePlot } from './plot.js';
import { Poller } from './poller.js';
import { rocketHash } from './route.js';

const INTERVAL_MS = 5_000;
/** The rate of a shorter time would be random. */
const SHORTEST_RATE_MS = 2_000;
const SOURCE = 'activity';

export class ActivityView {
  #connection;
  #plot = makePlot('activity-plot', { label: 'Messages per second', height: 140, startsAtZero: true });
  /** The rows of the explosions by their content, so that the focus stays. */
  #rows = new Map();
  #poller = new Poller({
    ask: getActivity,
    show: (activity) => this.#take(activity),
    fail: (error) => this.#connection.fail(SOURCE, error),
  }, INTERVAL_MS);

  constructor(connection) {
    this.#connection = connection;
    // On a small screen, the table is more important.
    byId('activity-details').open = matchMedia('(min-width: 700px)').matches;
  }

  show() {
    this.#poller.start();
  }

  hide() {
    this.#poller.stop();
    this.#connection.drop(SOURCE);
  }

  refresh() {
    this.#poller.soon();
  }

  #take(activity) {
    const description = describe(activity);
    this.#plot.replace(makePoints(activity), Date.parse(activity.until), description);
    setText(byId('activity-summary'), description);
    this.#showExplosions(activity.explosions);
    setText(byId('activity-as-of'), `Activity as of ${formatClock(serviceNow())}.`);
    this.#connection.succeed(SOURCE);
  }

  #showExplosions(explosions) {
    const rows = new Map();
    for (const explosion of explosions) {
      // A rocket may explode several times at once.
      let key = JSON.stringify(explosion);
      while (rows.has(key)) key += ' ';
      rows.set(key, this.#rows.get(key) ?? makeRow(explosion));
    }
    for (const [key, row] of this.#rows) if (!rows.has(key)) row.remove();
    let place = byId('explosions').firstElementChild;
    for (const row of rows.values()) {
      if (row === place) place = place.nextElementSibling;
      else byId('explosions').insertBefore(row, place);
    }
    this.#rows = rows;
    byId('no-explosions').hidden = rows.size > 0;
  }
}

/** The messages a second of each interval. The last one has not ended: it has a rate once that says something. */
function makePoints({ since, until, interval, applied, duplicates }) {
  const [start, end] = [Date.parse(since), Date.parse(until)];
  const points = applied.map((count, index) => {
    const time = start + 1000 * interval * index;
    const duration = Math.min(1000 * interval, end - time);
    return { time, duration, value: 1000 * (count + duplicates[index]) / duration };
  });
  const known = points.filter(({ duration }) => duration >= SHORTEST_RATE_MS);
  return known.map(({ time, value }) => ({ time, value }));
}

function describe(activity) {
  const { startedAt, since, until, applied, duplicates } = activity;
  const sum = (counts) => counts.reduce((total, count) => total + count, 0);
  const time = since === startedAt
    ? `in ${formatDuration(Date.parse(until) - Date.parse(since))}, since the start of this instance`
    : 'in the last hour, by this instance';
  const counts = [formatCount(sum(applied), 'new message'), formatCount(sum(duplicates), 'duplicate')];
  const messages = `${counts.join(' and ')} ${time}.`;
  const rates = makePoints(activity).map((point) => point.value);
  if (rates.length === 0) return messages;
  return `${messages} Highest rate: ${formatRate(Math.max(...rates))} a second; now ${formatRate(rates.at(-1))}.`;
}

function makeRow({ channel, reason, receivedAt }) {
  const time = element('time', { dateTime: receivedAt, textContent: formatTime(receivedAt).slice(11) });
  time.title = formatFullTime(receivedAt);
  const link = element('a', { href: rocketHash(channel) });
  setValue(link, channel);
  const shown = element('span', { className: 'reason' });
  setValue(shown, reason);
  return element('li', {}, time, ' ', link, ' ', shown);
}
