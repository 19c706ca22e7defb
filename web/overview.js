// The fleet at a glance: totals, the message rate, and the missions.

import { getReport, getStats, serviceNow } from './api.js';
import { byId, element, setText, setValue } from './dom.js';
import { formatClock, formatCount, formatFullTime, formatNumber, formatRate, formatTime, spellUnseen } from './format.js';
import { suggest } from './filters.js';
import { Poller } from './poller.js';
import { changeQuery, fleetHash, parseFilters, withOnly } from './route.js';

const STATS_INTERVAL_MS = 2_000;
const MISSIONS_INTERVAL_MS = 5_000;
/** The rate is the mean over this time: the service counts in steps of a second, which would make it jump. */
const RATE_WINDOW_MS = 10_000;
/** A rate over less time than this would be random. */
const SHORTEST_RATE_MS = 1_500;
/** After a longer pause without a response, the rate is measured from scratch: a mean over the pause would be outdated. */
const LONGEST_STEP_MS = 15_000;
const MISSIONS_SHOWN = 8;
/** A longer list would be of no use here; the page of missions has all. */
const MOST_MISSIONS = 500;
/** More missions are not requested: this repeats every few seconds. */
const MOST_ROWS = 10_000;

export class Overview {
  #connection;
  #query = null;
  /** The latest report that could be shown: missions by their number of rockets, and whether there are more. */
  #report = { missions: [], truncated: false };
  #showsAll = false;
  #samples = [];
  #rockets = null;
  #stats = new Poller({
    ask: getStats,
    show: (stats) => this.#takeStats(stats),
    fail: (error) => this.#connection.fail('totals', error),
  }, STATS_INTERVAL_MS);
  #reports = new Poller({
    ask: (signal) => getReport('missions', MOST_ROWS, signal),
    show: (report) => this.#takeMissions(report),
    fail: (error) => this.#connection.fail('missions', error),
  }, MISSIONS_INTERVAL_MS);

  constructor(connection) {
    this.#connection = connection;
    // On a small screen, the table is more important.
    byId('missions-details').open = matchMedia('(min-width: 700px)').matches;
    byId('missions-all').addEventListener('click', () => {
      this.#showsAll = !this.#showsAll;
      this.#showMissions(this.#report);
    });
  }

  /** Shows which filters are set, and makes links that set others. A tile leads to the rockets that it counts. */
  show(query) {
    this.#query = query;
    for (const tile of document.querySelectorAll('[data-filters]')) {
      showLink(tile, query, withOnly(query, parseFilters(new URLSearchParams(tile.dataset.filters))));
    }
    this.#showMissions(this.#report);
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

  #takeStats(stats) {
    showStats(stats);
    this.#sample(stats.processed);
    setValue(byId('message-rate'), this.#rate());
    // New rockets should appear in the missions soon.
    if (this.#rockets !== null && stats.rockets !== this.#rockets) this.#reports.soon();
    this.#rockets = stats.rockets;
    this.#connection.succeed('totals');
  }

  #takeMissions({ rows, truncated }) {
    const report = { missions: rows.toSorted((a, b) => b.rockets - a.rockets), truncated };
    this.#showMissions(report);
    this.#report = report;
    suggest('known-missions', rows.map((row) => row.mission));
    setText(byId('missions-as-of'), `Missions as of ${formatClock(serviceNow())}.`);
    this.#connection.succeed('missions');
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

  #showMissions({ missions, truncated }) {
    const list = byId('missions');
    const shown = this.#chooseMissions(missions, this.#showsAll ? MOST_MISSIONS : MISSIONS_SHOWN);
    const most = Math.max(1, ...shown.map((row) => row.rockets));
    // Elements are reused, so that the focus stays.
    while (list.children.length > shown.length) list.lastElementChild.remove();
    while (list.children.length < shown.length) list.append(makeMission());
    shown.forEach((row, index) => this.#showMission(list.children[index], row, most));
    this.#showOthers(missions, shown);
    const notice = truncated ? describeTruncation(missions) : '';
    setText(byId('missions-truncated'), notice);
    byId('missions-truncated').hidden = notice === '';
  }

  /** The largest missions. Always includes the filtered mission, and the rockets without a mission. */
  #chooseMissions(missions, amount) {
    const [named, unnamed] = [missions.filter(isNamed), missions.filter((row) => !isNamed(row))];
    const chosen = named.filter(({ mission }, index) => index < amount || this.#query.mission.includes(mission));
    return chosen.concat(unnamed);
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
    if (row.mission !== null) return this.#showChoice(link, row.mission);
    // There is no filter for rockets without a mission.
    link.removeAttribute('href');
    link.removeAttribute('aria-current');
  }

  /** A click adds the mission to the chosen ones, a second click removes it. */
  #showChoice(link, mission) {
    const chosen = this.#query.mission;
    const isChosen = chosen.includes(mission);
    const others = chosen.filter((other) => other !== mission);
    link.href = fleetHash(changeQuery(this.#query, { mission: isChosen ? others : [...chosen, mission] }));
    mark(link, isChosen);
  }

  #showOthers(missions, shown) {
    const listed = new Set(shown);
    const beyond = missions.filter((row) => !listed.has(row));
    const rockets = beyond.reduce((sum, row) => sum + row.rockets, 0);
    const others = `${formatCount(beyond.length, 'more mission')} with ${formatCount(rockets, 'rocket')}.`;
    const hint = this.#showsAll ? ' To find one of them, type its name into the filter “Mission”.' : '';
    setText(byId('missions-others-text'), beyond.length > 0 ? others + hint : '');
    setText(byId('missions-all'), this.#showsAll ? 'Show fewer' : 'Show all');
    // With nothing left to show or to hide, the button would do nothing.
    byId('missions-others').hidden = this.#chooseMissions(missions, MISSIONS_SHOWN).length === missions.length;
  }
}

function showStats(stats) {
  const values = {
    'total-rockets': formatNumber(stats.rockets),
    'total-awaiting-launch': formatNumber(stats.awaitingLaunch),
    'total-launched': formatNumber(stats.launched),
    'total-exploded': formatNumber(stats.exploded),
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

/** Makes a link lead to another query, and marks it if that is the current one. */
function showLink(link, query, target) {
  link.href = fleetHash(target);
  mark(link, fleetHash(changeQuery(query, {})) === fleetHash(target));
}

function mark(link, isCurrent) {
  if (isCurrent) link.ariaCurrent = 'true';
  else link.removeAttribute('aria-current');
}

function makeMission() {
  const parts = ['alive', 'exploded'].map((className) => element('i', { className }));
  const bar = element('span', { className: 'bar' }, ...parts);
  bar.ariaHidden = 'true';
  const link = element('a', {}, element('span', { className: 'name' }), ' ', element('b'), bar);
  return element('li', {}, link);
}

function isNamed({ mission }) {
  return mission !== null;
}

/** The service reports the first missions by name. They are not the largest ones, and "no mission" comes last. */
function describeTruncation(missions) {
  const amount = formatCount(missions.length, 'mission');
  const rockets = formatCount(missions.reduce((sum, row) => sum + row.rockets, 0), 'rocket');
  return [
    'There are more missions than the service reports.',
    `This list has only the first ${amount} by name, with ${rockets}.`,
    'Larger missions may be missing, and so are the rockets without a mission.',
    'To find a mission, type its name into the filter “Mission”, or see the page of all missions.',
  ].join(' ');
}

function describeMission({ mission, rockets, launched, exploded, meanSpeed, maxSpeed }) {
  const parts = [formatCount(rockets, 'rocket')];
  parts.push(`${formatNumber(launched)} launched`, `${formatNumber(exploded)} exploded`);
  if (meanSpeed !== null) parts.push(`mean speed ${formatNumber(Math.round(Number(meanSpeed)))}`);
  if (maxSpeed !== null) parts.push(`highest speed ${formatNumber(maxSpeed)}`);
  return `${mission === null ? 'No mission known' : spellUnseen(mission)}: ${parts.join(', ')}`;
}
