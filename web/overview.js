// The fleet at a glance: totals, the rate of messages, and the missions.

import { getReport, getStats, serviceNow } from './api.js';
import { byId, element, setText } from './dom.js';
import { UNKNOWN, formatClock, formatCount, formatFullTime, formatNumber, formatRate, formatTime } from './format.js';
import { suggest } from './filters.js';
import { Poller } from './poller.js';
import { changeQuery, fleetHash } from './route.js';

const STATS_INTERVAL_MS = 2_000;
const MISSIONS_INTERVAL_MS = 5_000;
/** The rate is the mean over this time: the service counts in steps of a second, which would make it jump. */
const RATE_WINDOW_MS = 10_000;
/** Over less than this the rate would be chance. */
const SHORTEST_RATE_MS = 1_500;
/** After so long without a change the next one is shown at once. */
const QUIET_MS = 2_000;
const MISSIONS_SHOWN = 8;

export class Overview {
  /** Called with the totals each time they are known. */
  onStats = () => {};

  #connection;
  #query = null;
  #missions = [];
  #samples = [];
  #rockets = null;
  #latestChange = 0;
  #stats = new Poller(() => this.#loadStats(), STATS_INTERVAL_MS);
  #reports = new Poller(() => this.#loadMissions(), MISSIONS_INTERVAL_MS);

  constructor(connection) {
    this.#connection = connection;
    // On a small screen the table is what the page was opened for.
    byId('missions-details').open = matchMedia('(min-width: 700px)').matches;
    // Totals are asked for on every page: the answers also tell whether the service can be reached.
    this.#stats.start();
  }

  /** Shows which filters are on, and makes links that change one of them. */
  show(query) {
    this.#query = query;
    for (const tile of document.querySelectorAll('[data-filter]')) {
      const { filter, value } = tile.dataset;
      showAsFilter(tile, query, filter, value);
    }
    this.#showMissions();
    this.#reports.start();
  }

  hide() {
    this.#reports.stop();
  }

  /** Something changed: after a quiet time that is shown at once, not with the next poll. */
  noteChange() {
    const now = performance.now();
    const wasQuiet = now - this.#latestChange > QUIET_MS;
    this.#latestChange = now;
    if (!wasQuiet) return;
    this.#stats.soon();
    this.#reports.soon();
  }

  refresh() {
    this.#stats.soon();
    this.#reports.soon();
  }

  async #loadStats() {
    const stats = await this.#ask(getStats);
    if (!stats) return;
    this.#sample(stats.processed);
    this.#showStats(stats);
    // New rockets are missed at once where missions are counted.
    if (stats.rockets !== this.#rockets) this.#reports.soon();
    this.#rockets = stats.rockets;
    this.onStats(stats);
  }

  async #loadMissions() {
    const rows = await this.#ask(() => getReport('missions'));
    if (!rows) return;
    this.#missions = rows.toSorted((a, b) => b.rockets - a.rockets);
    suggest('known-missions', rows.map((row) => row.mission).toSorted());
    this.#showMissions();
  }

  async #ask(request) {
    try {
      const answer = await request();
      this.#connection.requestSucceeded();
      return answer;
    } catch (error) {
      this.#connection.requestFailed(error);
      return null;
    }
  }

  /** Keeps what the rate is computed from. Fewer than before means another database: begin again. */
  #sample(processed) {
    const time = performance.now();
    if (processed < this.#samples.at(-1)?.processed) this.#samples = [];
    this.#samples.push({ time, processed });
    // One sample from before the window stays, so that the window is always covered.
    while (this.#samples.length > 2 && this.#samples[1].time < time - RATE_WINDOW_MS) this.#samples.shift();
  }

  #rate() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const duration = last.time - first.time;
    return duration < SHORTEST_RATE_MS ? UNKNOWN : formatRate((last.processed - first.processed) / duration * 1000);
  }

  #showStats(stats) {
    const texts = {
      'total-rockets': formatNumber(stats.rockets),
      'total-awaiting-launch': formatNumber(stats.awaitingLaunch),
      'total-launched': formatNumber(stats.launched),
      'total-exploded': formatNumber(stats.exploded),
      'message-rate': this.#rate(),
      'total-processed': formatNumber(stats.processed),
      'total-missing': formatNumber(stats.missing),
      'total-with-gaps': formatNumber(stats.rocketsWithGaps),
      'fleet-latest-update': formatTime(stats.latestUpdate),
      'as-of': `Totals as of ${formatClock(serviceNow())}.`,
    };
    for (const [id, text] of Object.entries(texts)) setText(byId(id), text);
    byId('fleet-latest-update').title = formatFullTime(stats.latestUpdate);
    for (const id of ['total-missing', 'total-with-gaps']) byId(id).classList.toggle('incomplete', stats.missing > 0);
  }

  #showMissions() {
    const list = byId('missions');
    const shown = this.#missions.slice(0, MISSIONS_SHOWN);
    const others = this.#missions.slice(MISSIONS_SHOWN);
    const most = Math.max(1, ...shown.map((row) => row.rockets));
    // Elements are reused, so that the one with the focus keeps it.
    while (list.children.length > shown.length) list.lastElementChild.remove();
    while (list.children.length < shown.length) list.append(makeMission());
    shown.forEach((row, index) => this.#showMission(list.children[index], row, most));
    this.#showOthers(others);
  }

  #showMission(item, row, most) {
    const link = item.firstElementChild;
    const [name, count, bar] = link.children;
    setText(name, row.mission ?? 'no mission known');
    setText(count, formatNumber(row.rockets));
    bar.firstElementChild.style.width = `${100 * (row.rockets - row.exploded) / most}%`;
    bar.lastElementChild.style.width = `${100 * row.exploded / most}%`;
    link.title = describeMission(row);
    link.classList.toggle('fixed', row.mission === null);
    // There is no filter for rockets without a mission.
    if (row.mission === null) link.removeAttribute('href');
    else showAsFilter(link, this.#query, 'mission', row.mission, this.#query.mission === row.mission);
  }

  #showOthers(others) {
    const rockets = others.reduce((sum, row) => sum + row.rockets, 0);
    const note = byId('missions-others');
    note.hidden = others.length === 0;
    setText(note, `and ${formatCount(others.length, 'other mission')} with ${formatCount(rockets, 'rocket')}`);
  }
}

/** Makes a link that sets a filter, and says whether it is set. A second use of a mission's link takes it away. */
function showAsFilter(link, query, filter, value, toggles = false) {
  link.href = fleetHash(changeQuery(query, { [filter]: toggles ? '' : value }));
  if (query[filter] === value) link.ariaCurrent = 'true';
  else link.removeAttribute('aria-current');
}

function makeMission() {
  const parts = ['alive', 'exploded'].map((className) => element('i', { className }));
  const bar = element('span', { className: 'bar' }, ...parts);
  bar.ariaHidden = 'true';
  const link = element('a', {}, element('span', { className: 'name' }), ' ', element('b'), bar);
  return element('li', {}, link);
}

function describeMission({ mission, rockets, launched, exploded, meanSpeed, maxSpeed }) {
  const parts = [formatCount(rockets, 'rocket')];
  parts.push(`${formatNumber(launched)} launched`, `${formatNumber(exploded)} exploded`);
  if (meanSpeed !== null) parts.push(`mean speed ${formatNumber(Math.round(meanSpeed))}`);
  if (maxSpeed !== null) parts.push(`greatest speed ${formatNumber(maxSpeed)}`);
  return `${mission ?? 'no mission known'}: ${parts.join(', ')}`;
}
