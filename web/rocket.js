// The page of one rocket: both views side by side, its missing messages, its speed over time, and what an operator can
// change.
//
// All values come from one response and so from one snapshot: values read at different times could differ for that
// reason alone. The stream only tells the page when to request the rocket again.

import { getRocket, hasPath, isOutage, isSameMoment, serviceNow } from './api.js';
import { Changes } from './changes.js';
import { byId, element, setStatus, setText, setValue } from './dom.js';
import {
  formatAge, formatClock, formatCount, formatFullTime, formatNumber, formatStatus, formatTime,
} from './format.js';
import { Gaps } from './gaps.js';
import { makePlot } from './plot.js';
import { Poller } from './poller.js';
import { LiveStream } from './stream.js';

/** The shortest time between two requests, however often the rocket changes. */
const SHORTEST_INTERVAL_MS = 250;
/** Request the rocket this often even if the stream is silent: it may be dead without the browser noticing. */
const INTERVAL_MS = 5_000;
/** After this long without a tick the machine was asleep, and its connections are probably dead. */
const ASLEEP_MS = 30_000;
/** The channels that the API accepts. */
const CHANNEL = /^\P{Cc}{1,255}$/u;
/** The names of the sources. */
const [REQUESTS, STREAM] = ['rocket', 'stream'];

/** The fields of both views, and how to format them; null means unknown. */
const FIELDS = [
  { label: 'Status', text: (view) => formatStatus(view.status) },
  { label: 'Type', text: (view) => view.type },
  { label: 'Speed', text: (view) => formatNumber(view.speed) },
  { label: 'Mission', text: (view) => view.mission },
  { label: 'Mission message', text: (view) => formatMessage(view.latestMissionMessage) },
  { label: 'Explosion reason', text: (view) => view.explodedReason },
  { label: 'Explosion message', text: (view) => formatMessage(view.latestExplodedMessage) },
  // Times are shown in seconds, but may differ by less.
  { label: 'Latest update (UTC)', text: (view) => formatTime(view.latestUpdate), compared: (view) => view.latestUpdate },
];

export class RocketPage {
  #connection;
  #stream;
  #poller = new Poller({
    ask: (signal) => this.#ask(signal),
    show: (rocket) => this.#take(rocket),
    fail: (error) => this.#fail(error),
  }, INTERVAL_MS);
  #changes = new Changes(() => this.#poller.soon());
  #gaps;
  #plot = makePlot('plot', { label: 'Speed' });
  #channel = null;
  /** The latest response that could be shown; null before the first. */
  #rocket = null;
  #forgottenAt = null;
  /** What the stream has announced since the latest request: a rocket, "gone", or null for nothing. */
  #announced = null;
  #loading = false;
  #loadedAt = 0;
  #reload = null;
  #latestTick = Date.now();

  constructor(connection) {
    this.#connection = connection;
    this.#gaps = new Gaps(connection, (kind, numbers) => this.#changes.open(kind, this.#channel, numbers));
    byId('forget').addEventListener('click', () => this.#changes.open('forget', this.#channel));
    this.#stream = new LiveStream({
      rocket: (item) => this.#notice(item),
      gone: () => this.#notice('gone'),
      connecting: () => connection.wait(STREAM),
      live: () => connection.succeed(STREAM),
      lost: () => connection.fail(STREAM, new Error('The stream was interrupted.')),
    });
    byId('detail-best-effort').querySelector('dl').append(...FIELDS.map(makeField));
    byId('detail-exact').querySelector('dl').append(...FIELDS.map(makeField));
    document.addEventListener('visibilitychange', () => this.#interruptPlot());
  }

  show(channel, fleetHash) {
    this.hide();
    byId('detail').hidden = false;
    byId('back').href = fleetHash;
    this.#channel = channel;
    this.#rocket = this.#forgottenAt = this.#announced = null;
    this.#plot.clear();
    this.#gaps.show(channel);
    byId('detail-known').hidden = true;
    this.#showNotice('');
    setValue(byId('detail-channel'), channel);
    if (!CHANNEL.test(channel)) return this.#refuse('a channel has 1 to 255 characters, and no control characters.');
    this.#connection.wait(REQUESTS);
    this.#connection.wait(STREAM);
    this.#poller.start();
  }

  hide() {
    byId('detail').hidden = true;
    setText(byId('rocket-as-of'), '');
    this.#channel = null;
    this.#gaps.hide();
    this.#changes.close();
    this.#poller.stop();
    this.#stream.close();
    clearTimeout(this.#reload);
    this.#reload = null;
    this.#connection.drop(REQUESTS);
    this.#connection.drop(STREAM);
  }

  /** The service is back: the stream may have died unnoticed in the meantime. */
  refresh() {
    if (this.#channel === null) return;
    this.#poller.soon();
    this.#stream.restart();
  }

  /** Updates ages, and extends the plot as long as the value is known. */
  tick() {
    const now = Date.now();
    if (now - this.#latestTick > ASLEEP_MS) this.#stream.restart();
    this.#latestTick = now;
    if (!this.#rocket) return;
    if (this.#connection.state === 'live' && !this.#forgottenAt) this.#plot.extend(serviceNow());
    this.#render(this.#rocket);
  }

  /** While the page is hidden, the speed is unknown. */
  #interruptPlot() {
    if (document.hidden) this.#plot.add(serviceNow(), null);
  }

  /** The stream announces a change: request the rocket, unless the page already shows it. */
  #notice(announced) {
    this.#announced = announced;
    if (!this.#loading && !this.#isKnown(announced)) this.#loadSoon();
  }

  #isKnown(announced) {
    if (announced === 'gone') return this.#rocket === null || this.#forgottenAt !== null;
    return this.#rocket !== null && this.#forgottenAt === null && isSameMoment(announced, this.#rocket);
  }

  #loadSoon() {
    const wait = Math.max(0, SHORTEST_INTERVAL_MS - (performance.now() - this.#loadedAt));
    this.#reload ??= setTimeout(() => {
      this.#reload = null;
      this.#poller.soon();
    }, wait);
  }

  #ask(signal) {
    this.#announced = null;
    this.#loading = true;
    return getRocket(this.#channel, signal);
  }

  #take(rocket) {
    if (rocket) this.#showRocket(rocket);
    else this.#showAbsence();
    setText(byId('rocket-as-of'), `This rocket as of ${formatClock(serviceNow())}.`);
    this.#connection.succeed(REQUESTS);
    this.#follow();
    this.#endLoading();
  }

  /** Opens the stream after the first good response. Earlier, its failure would say less than the request's: no status. */
  #follow() {
    if (!this.#stream.isOpen()) this.#stream.open(new URLSearchParams({ channel: this.#channel }));
  }

  #fail(error) {
    this.#endLoading();
    if (!isOutage(error)) return this.#refuse(error.message);
    this.#plot.add(serviceNow(), null);
    this.#connection.fail(REQUESTS, error);
  }

  #endLoading() {
    this.#loading = false;
    this.#loadedAt = performance.now();
    if (this.#announced && !this.#isKnown(this.#announced)) this.#loadSoon();
  }

  /** The service rejects this channel, and would reject it again. */
  #refuse(reason) {
    this.#poller.stop();
    this.#stream.close();
    this.#connection.drop(STREAM);
    this.#connection.succeed(REQUESTS);
    this.#showNotice(`This rocket can’t be shown: ${reason}`);
  }

  #showRocket(rocket) {
    this.#forgottenAt = null;
    this.#render(rocket);
    this.#rocket = rocket;
    this.#plot.add(serviceNow(), Number(rocket.bestEffort.speed));
    setText(byId('plot-summary'), this.#plot.describe());
  }

  #showAbsence() {
    if (this.#rocket) this.#forgottenAt ??= serviceNow();
    byId('forget').hidden = true;
    this.#plot.add(serviceNow(), null);
    if (!this.#forgottenAt) {
      return this.#showNotice('No message of this rocket has been processed yet. It appears here as soon as one is.');
    }
    const time = formatClock(this.#forgottenAt);
    this.#showNotice(`This rocket was removed from the service at ${time} UTC. This is its last known state.`);
  }

  /** The gaps and the changes, unless there is no path to them. */
  #showChangeable(messages) {
    const canChange = hasPath(this.#channel);
    if (canChange && !this.#forgottenAt) this.#gaps.update(messages);
    byId('forget').hidden = !canChange || this.#forgottenAt !== null;
    byId('no-path').hidden = canChange;
  }

  #showNotice(text) {
    setText(byId('detail-notice'), text);
    byId('detail-notice').hidden = text === '';
  }

  #render(rocket) {
    showFacts(rocket);
    showViews(rocket);
    showThrough(rocket.messages);
    this.#showChangeable(rocket.messages);
    setText(byId('plot-summary'), this.#plot.describe());
    byId('detail-known').hidden = false;
    if (!this.#forgottenAt) this.#showNotice('');
  }
}

function showFacts({ bestEffort, lastReceived, messages }) {
  setStatus(byId('detail-status'), bestEffort.status, formatStatus(bestEffort.status));
  setText(byId('detail-speed'), formatNumber(bestEffort.speed));
  setValue(byId('detail-latest-update'), formatTime(bestEffort.latestUpdate));
  setText(byId('detail-last-received'), formatAge(lastReceived, serviceNow()));
  setText(byId('detail-missing'), formatNumber(messages.missing));
  setValue(byId('detail-reason'), bestEffort.explodedReason);
  byId('detail-latest-update').title = formatFullTime(bestEffort.latestUpdate);
  byId('detail-last-received').title = formatFullTime(lastReceived);
  byId('detail-missing').classList.toggle('incomplete', messages.missing > 0);
  byId('detail-reason-tile').hidden = bestEffort.explodedReason === null;
}

/** Up to where each view goes. */
function showThrough({ processed, completeThrough, exactThrough }) {
  setText(byId('best-effort-hint'), `All ${formatNumber(processed)} processed messages, with or without gaps.`);
  const gap = exactThrough > completeThrough ? 'first gap that is not declared lost' : 'first gap';
  setText(byId('exact-hint'), `Only the messages from 1 up to the ${gap}: through ${formatNumber(exactThrough)}.`);
}

function showViews({ bestEffort, exact }) {
  const differing = exact ? FIELDS.filter((field) => differs(field, bestEffort, exact)) : [];
  showView('detail-best-effort', bestEffort, differing);
  showView('detail-exact', exact, differing);
  setText(byId('detail-difference'), describeDifference(differing, exact));
}

function showView(id, view, differing) {
  const rows = byId(id).querySelector('dl').children;
  FIELDS.forEach((field, index) => {
    const row = rows[index];
    setValue(row.lastElementChild.firstElementChild, view && field.text(view));
    row.classList.toggle('differs', differing.includes(field));
    row.lastElementChild.lastElementChild.hidden = !differing.includes(field);
  });
}

function differs(field, bestEffort, exact) {
  const value = field.compared ?? field.text;
  return value(bestEffort) !== value(exact);
}

function describeDifference(differing, exact) {
  if (!exact) return 'This rocket changes too often to read both views at the same moment. Retrying…';
  if (differing.length === 0) return 'Both views agree.';
  const values = formatCount(differing.length, 'value');
  return `The views differ in ${values} (≠): the exact view waits for missing messages.`;
}

function makeField({ label }) {
  const sign = element('span', { className: 'differs-sign', textContent: '≠', hidden: true });
  sign.title = 'The views differ here';
  sign.role = 'img';
  sign.ariaLabel = 'differs from the other view';
  return element('div', {}, element('dt', { textContent: label }), element('dd', {}, element('span'), ' ', sign));
}

function formatMessage(number) {
  return number === null ? null : formatNumber(number);
}
