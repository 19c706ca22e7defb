// The page of one rocket: both views side by side, what is missing between them, and its speed as it changes.

import { getRocket, isOutage, serviceNow } from './api.js';
import { byId, element, oncePerFrame, setStatus, setText } from './dom.js';
import {
  UNKNOWN, formatAge, formatClock, formatCount, formatFullTime, formatGap, formatNumber, formatStatus, formatTime,
} from './format.js';
import { makePlot } from './plot.js';
import { LiveStream } from './stream.js';

/** The stream tells the best-effort view; exact view and gaps are asked for, but not more often than this. */
const RELOAD_INTERVAL_MS = 1_000;
/** The API tells no more gaps than this. */
const MOST_GAPS = 100;

/** What both views have, and how it is written. */
const FIELDS = [
  { label: 'Status', text: (view) => formatStatus(view.status) },
  { label: 'Type', text: (view) => view.type ?? UNKNOWN },
  { label: 'Speed', text: (view) => formatNumber(view.speed) },
  { label: 'Mission', text: (view) => view.mission ?? UNKNOWN },
  { label: 'Mission message', text: (view) => formatMessage(view.latestMissionMessage) },
  { label: 'Explosion reason', text: (view) => view.explodedReason ?? UNKNOWN },
  { label: 'Explosion message', text: (view) => formatMessage(view.latestExplodedMessage) },
  { label: 'Latest update (UTC)', text: (view) => formatTime(view.latestUpdate), exact: (view) => view.latestUpdate },
];

export class RocketPage {
  #connection;
  #stream;
  #plot = makePlot('plot', 'Speed');
  #renderSoon = oncePerFrame(() => this.#render());
  #channel = null;
  #bestEffort = null;
  #exact = null;
  #progress = null;
  #forgottenAt = null;
  #loading = false;
  #reloadTimer = null;

  constructor(connection) {
    this.#connection = connection;
    this.#stream = new LiveStream({
      rocket: (item) => this.#changed(item),
      gone: () => this.#gone(),
      live: () => this.#load(),
      state: (state) => this.#streamState(state),
    });
    byId('detail-best-effort').querySelector('dl').append(...FIELDS.map(makeField));
    byId('detail-exact').querySelector('dl').append(...FIELDS.map(makeField));
  }

  show(channel, fleetHash) {
    byId('detail').hidden = false;
    byId('back').href = fleetHash;
    this.#channel = channel;
    this.#bestEffort = this.#exact = this.#progress = null;
    this.#forgottenAt = null;
    this.#plot.clear();
    byId('detail-known').hidden = true;
    this.#showNotice('');
    setText(byId('detail-channel'), channel);
    this.#stream.open(new URLSearchParams({ channel }));
    this.#load();
  }

  hide() {
    byId('detail').hidden = true;
    this.#channel = null;
    this.#stream.close();
    clearTimeout(this.#reloadTimer);
    this.#reloadTimer = null;
  }

  restartStream() {
    this.#stream.restart();
  }

  /** Time passes: ages grow, and so does the plot as long as the value is known to hold. */
  tick() {
    if (!this.#bestEffort) return;
    if (this.#connection.state === 'live' && !this.#forgottenAt) this.#plot.extend(serviceNow());
    this.#renderSoon();
  }

  #streamState(state) {
    this.#connection.setStream(state);
    if (state === 'lost') this.#plot.add(serviceNow(), null);
  }

  #changed(item) {
    this.#forgottenAt = null;
    this.#takeBestEffort(item);
    this.#reloadTimer ??= setTimeout(() => this.#load(), RELOAD_INTERVAL_MS);
  }

  /** Between the stream and an answer to a question the newer one is right. */
  #takeBestEffort(item) {
    const known = this.#bestEffort;
    const newer = known && known.lastReceived > item.lastReceived ? known : item;
    this.#bestEffort = newer;
    // Without gaps both views are the same: the exact one need not lag behind and look different.
    if (newer.messages.missing === 0) this.#exact = newer;
    this.#plot.add(serviceNow(), newer.speed);
    this.#renderSoon();
  }

  #gone() {
    if (this.#bestEffort) this.#forgottenAt ??= serviceNow();
    this.#plot.add(serviceNow(), null);
    this.#showAbsence();
  }

  async #load() {
    clearTimeout(this.#reloadTimer);
    this.#reloadTimer = null;
    if (this.#loading) return;
    const channel = this.#channel;
    this.#loading = true;
    try {
      const views = await Promise.all([getRocket(channel, 'best-effort'), getRocket(channel, 'exact')]);
      this.#connection.requestSucceeded();
      if (channel === this.#channel) this.#take(views);
    } catch (error) {
      if (channel === this.#channel) this.#fail(error);
    } finally {
      this.#loading = false;
      if (this.#channel !== null && channel !== this.#channel) this.#load();
    }
  }

  #take([bestEffort, exact]) {
    if (!bestEffort || !exact) return this.#gone();
    this.#forgottenAt = null;
    this.#exact = exact;
    // Only answers tell the gaps, with the counts that belong to them.
    this.#progress = bestEffort.messages;
    this.#takeBestEffort(bestEffort);
  }

  #fail(error) {
    if (!isOutage(error)) return this.#showNotice(`This rocket can't be shown. ${error.message}`);
    this.#connection.requestFailed(error);
    this.#reloadTimer ??= setTimeout(() => this.#load(), RELOAD_INTERVAL_MS);
  }

  #showAbsence() {
    if (!this.#forgottenAt) {
      return this.#showNotice('No message of this rocket has been processed. It is shown here as soon as one is.');
    }
    const time = formatClock(this.#forgottenAt);
    this.#showNotice(`This rocket was removed from the service at ${time} UTC. What is shown is its last known state.`);
  }

  #showNotice(text) {
    setText(byId('detail-notice'), text);
    byId('detail-notice').hidden = text === '';
  }

  #render() {
    const bestEffort = this.#bestEffort;
    if (!bestEffort) return;
    byId('detail-known').hidden = false;
    if (!this.#forgottenAt) this.#showNotice('');
    showFacts(bestEffort);
    showViews(bestEffort, this.#exact);
    showGaps(this.#progress ?? bestEffort.messages);
    setText(byId('plot-summary'), this.#plot.describe());
  }
}

function showFacts(item) {
  setStatus(byId('detail-status'), item.status, formatStatus(item.status));
  setText(byId('detail-speed'), formatNumber(item.speed));
  setText(byId('detail-latest-update'), formatTime(item.latestUpdate));
  setText(byId('detail-last-received'), formatAge(item.lastReceived, serviceNow()));
  setText(byId('detail-missing'), formatNumber(item.messages.missing));
  setText(byId('detail-reason'), item.explodedReason ?? '');
  byId('detail-latest-update').title = formatFullTime(item.latestUpdate);
  byId('detail-last-received').title = formatFullTime(item.lastReceived);
  byId('detail-missing').classList.toggle('incomplete', item.messages.missing > 0);
  byId('detail-reason-tile').hidden = item.explodedReason === null;
}

function showViews(bestEffort, exact) {
  const differing = exact ? FIELDS.filter((field) => differs(field, bestEffort, exact)) : [];
  showView('detail-best-effort', bestEffort, differing);
  showView('detail-exact', exact, differing);
  setText(byId('detail-difference'), describeDifference(differing, exact));
}

function showView(id, view, differing) {
  const rows = byId(id).querySelector('dl').children;
  FIELDS.forEach((field, index) => {
    const row = rows[index];
    setText(row.lastElementChild.firstElementChild, view ? field.text(view) : UNKNOWN);
    row.classList.toggle('differs', differing.includes(field));
    row.lastElementChild.lastElementChild.hidden = !differing.includes(field);
  });
}

/** Times are written in seconds but may differ in less. */
function differs(field, bestEffort, exact) {
  const value = field.exact ?? field.text;
  return value(bestEffort) !== value(exact);
}

function describeDifference(differing, exact) {
  if (!exact) return '';
  if (differing.length === 0) return 'Both views agree.';
  const values = formatCount(differing.length, 'value');
  return `Marked ≠: ${values} in which the views differ, for the exact one waits for missing messages.`;
}

function showGaps({ processed, completeThrough, highest, missing, gaps }) {
  const told = gaps ?? [];
  const [count, complete, last] = [processed, completeThrough, highest].map(formatNumber);
  const progress = `${count} processed, complete through ${complete}, highest ${last}.`;
  setText(byId('gaps-summary'), `${describeMissing(missing, told.length)} ${progress}`);
  const texts = missing > 0 ? told.map(formatGap) : [];
  const list = byId('gaps');
  if (texts.join() === [...list.children].map((gap) => gap.textContent).join()) return;
  list.replaceChildren(...texts.map((text) => element('li', { textContent: text })));
}

function describeMissing(missing, gapsTold) {
  if (missing === 0) return 'None is missing.';
  const some = gapsTold >= MOST_GAPS ? `, of which the first ${MOST_GAPS} gaps are listed` : '';
  return `${formatNumber(missing)} missing in all${some}.`;
}

function makeField({ label }) {
  const sign = element('span', { className: 'differs-sign', textContent: '≠', hidden: true });
  sign.title = 'The views differ in this';
  sign.role = 'img';
  sign.ariaLabel = 'differs from the other view';
  return element('div', {}, element('dt', { textContent: label }), element('dd', {}, element('span'), ' ', sign));
}

function formatMessage(number) {
  return number === null ? UNKNOWN : formatNumber(number);
}
