// The fleet at a glance: totals, the message rate, and the missions.

import { getReport, getStats, serviceNow } from './api.js';
import { byId, element, setText, setValue } from './dom.js';
import { formatClock, formatCount, formatFullTime, formatNumber, formatRate, formatTime, spellUnseen } from './format.js';
import { suggest } from './filters.js';
import { Poller } from './poller.js';
import { changeQuery, fleetHash } from './route.js';

const STATS_INTERVAL_MS = 2_000;
const MISSIONS_INTERVAL_MS = 5_000;
/** The rate is the mean over this time: the service counts in steps of a second, which would make it jump. */
const RATE_WINDOW_MS = 10_000;
/** A rate over less time than this would be random. */
const SHORTEST_RATE_MS = 1_500;
/** After a longer pause without a response, the rate is measured from scratch: a mean over the pause would be outdated. */
const LONGEST_STEP_MS = 15_000;
const MISSIONS_SHOWN = 8;
/** A longer list would be of no use. */
const MOST_MISSIONS = 500;

export class Overview {
  #connection;
  #query = null;
  #missions = [];
  #showsAll = false;
  #samples = [];
  #rockets = null;
  #stats = new Poller((signal) => this.#loadStats(signal), STATS_INTERVAL_MS);
  #reports = new Poller((signal) => this.#loadMissions(signal), MISSIONS_INTERVAL_MS);

  constructor(connection) {
    this.#connection = connection;
    // On a small screen, the table is more important.
    byId('missions-details').open = matchMedia('(min-width: 700px)').matches;
    byId('missions-all').addEventListener('click', () => {
      this.#showsAll = !this.#showsAll;
      this.#showMissions();
    });
  }

  /** Shows which filters are set, and makes links that change one of them. */
  show(query) {
    this.#query = query;
    for (const tile of document.querySelectorAll('[data-filter]')) {
      const { filter, value } = tile.dataset;
      showAsFilter(tile, query, filter, value);
    }
    this.#showMissions();
    this.#connection.wait('totals');
    this.#stats.start();
    this.#reports.start();
  }

  hide() {
    this.#stats.stop();
    this.#reports.stop();
    this.#connection.drop('totals');
    this.#connection.drop('missions');
  }

  refresh() {
    this.#stats.soon();
    this.#reports.soon();
  }

  async #loadStats(signal) {
    const stats = await this.#ask('totals', getStats(signal), signal);
    if (!stats) return;
    this.#sample(stats.processed);
    this.#showStats(stats);
    // New rockets should appear in the missions soon.
    if (this.#rockets !== null && stats.rockets !== this.#rockets) this.#reports.soon();
    this.#rockets = stats.rockets;
  }

  async #loadMissions(signal) {
    const rows = await this.#ask('missions', getReport('missions', signal), signal);
    if (!rows) return;
    this.#missions = rows.toSorted((a, b) => b.rockets - a.rockets);
    suggest('known-missions', rows.map((row) => row.mission));
    setText(byId('missions-as-of'), `Missions as of ${formatClock(serviceNow())}.`);
    this.#showMissions();
  }

  async #ask(source, request, signal) {
    try {
      const answer = await request;
      this.#connection.succeed(source);
      return answer;
    } catch (error) {
      if (!signal.aborted) this.#connection.fail(source, error);
      return null;
    }
  }

  /** Adds a sample for the rate. A lower count means another database: start again. */
  #sample(processed) {
    const time = performance.now();
    const latest = this.#samples.at(-1);
    if (processed < latest?.processed || time - latest?.time > LONGEST_STEP_MS) this.#samples = [];
    this.#samples.push({ time, processed });
    // One sample from before the window stays, so that the samples cover the whole window.
    while (this.#samples.length > 2 && this.#samples[1].time < time - RATE_WINDOW_MS) this.#samples.shift();
  }

  #rate() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const duration = last.time - first.time;
    return duration < SHORTEST_RATE_MS ? null : formatRate((last.processed - first.processed) / duration * 1000);
  }

  #showStats(stats) {
    const values = {
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
    for (const [id, value] of Object.entries(values)) setValue(byId(id), value);
    byId('fleet-latest-update').title = formatFullTime(stats.latestUpdate);
    for (const id of ['total-missing', 'total-with-gaps']) byId(id).classList.toggle('incomplete', stats.missing > 0);
  }

  #showMissions() {
    const list = byId('missions');
    const named = this.#missions.filter((row) => row.mission !== null);
    const shown = this.#chooseMissions(named);
    const most = Math.max(1, ...this.#missions.map((row) => row.rockets));
    // Elements are reused, so that the focus stays.
    while (list.children.length > shown.length) list.lastElementChild.remove();
    while (list.children.length < shown.length) list.append(makeMission());
    shown.forEach((row, index) => this.#showMission(list.children[index], row, most));
    this.#showOthers(named, shown);
  }

  /** The largest missions, or all of them. Always includes the filtered mission, and the rockets without a mission. */
  #chooseMissions(named) {
    const amount = this.#showsAll ? MOST_MISSIONS : MISSIONS_SHOWN;
    const chosen = named.filter(({ mission }, index) => index < amount || mission === this.#query.mission);
    return chosen.concat(this.#missions.filter((row) => row.mission === null));
  }

  #showMission(item, row, most) {
    const link = item.firstElementChild;
    const [name, count, bar] = link.children;
    setValue(name, row.mission ?? 'No mission known');
    setText(count, formatNumber(row.rockets));
    bar.firstElementChild.style.width = `${100 * (row.rockets - row.exploded) / most}%`;
    bar.lastElementChild.style.width = `${100 * row.exploded / most}%`;
    link.title = describeMission(row);
    link.classList.toggle('fixed', row.mission === null);
    if (row.mission !== null) return showAsFilter(link, this.#query, 'mission', row.mission, true);
    // There is no filter for rockets without a mission.
    link.removeAttribute('href');
    link.removeAttribute('aria-current');
  }

  #showOthers(named, shown) {
    const listed = new Set(shown);
    const beyond = named.filter((row) => !listed.has(row));
    const rockets = beyond.reduce((sum, row) => sum + row.rockets, 0);
    const others = `${formatCount(beyond.length, 'more mission')} with ${formatCount(rockets, 'rocket')}.`;
    const hint = this.#showsAll ? ' To find one of them, type its name into the filter “Mission”.' : '';
    setText(byId('missions-others-text'), beyond.length > 0 ? others + hint : '');
    setText(byId('missions-all'), this.#showsAll ? 'Show fewer' : 'Show all');
    byId('missions-others').hidden = named.length <= MISSIONS_SHOWN;
  }
}

/** Makes a link set a filter, and marks it if the filter is set. With `toggles`, a second click removes the filter. */
function showAsFilter(link, query, filter, value, toggles = false) {
  const isSet = query[filter] === value;
  link.href = fleetHash(changeQuery(query, { [filter]: toggles && isSet ? '' : value }));
  if (isSet) link.ariaCurrent = 'true';
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
  if (meanSpeed !== null) parts.push(`mean speed ${formatNumber(Math.round(Number(meanSpeed)))}`);
  if (maxSpeed !== null) parts.push(`highest speed ${formatNumber(maxSpeed)}`);
  return `${mission === null ? 'No mission known' : spellUnseen(mission)}: ${parts.join(', ')}`;
}
