// The pages of all missions and of all types: a report, sorted in the browser. Each row leads to its rockets.

import { getReport, isOutage, serviceNow } from './api.js';
import { byId, element, setText, setValue } from './dom.js';
import { formatClock, formatCount, formatNumber } from './format.js';
import { Poller } from './poller.js';
import { GROUPS, fleetHash, groupsHash, parseRoute, withOnly } from './route.js';

export const TITLES = { missions: 'Missions', types: 'Types' };

const INTERVAL_MS = 10_000;
/** More rows are not requested; the page says so. */
const MOST_ROWS = 100_000;
/** More rows are shown on demand. */
const STEP = 500;
const SOURCE = 'groups';
const NUMBERS = [
  { name: 'rockets', label: 'Rockets' },
  { name: 'launched', label: 'Launched' },
  { name: 'exploded', label: 'Exploded' },
  { name: 'meanSpeed', label: 'Mean speed' },
  { name: 'maxSpeed', label: 'Highest speed' },
];

export class Groups {
  #connection;
  #route = null;
  #report = null;
  #shown = STEP;
  #poller = new Poller({
    ask: (signal) => getReport(this.#route.report, MOST_ROWS, signal),
    show: (report) => this.#take(report),
    fail: (error) => this.#fail(error),
  }, INTERVAL_MS);

  constructor(connection) {
    this.#connection = connection;
    byId('groups-head').addEventListener('click', ({ target }) => this.#sortBy(target.closest('button')?.dataset.sort));
    byId('groups-more').addEventListener('click', () => {
      this.#shown += STEP;
      this.#render();
    });
  }

  /** Shows a report in an order. Returns whether the page had another report before. */
  show(route) {
    byId('groups-page').hidden = false;
    const isNew = this.#route !== null && route.report !== this.#route.report;
    if (route.report !== this.#route?.report) this.#begin(route.report);
    this.#route = route;
    this.#showHeadings();
    if (this.#report) this.#render();
    else this.#connection.wait(SOURCE);
    this.#poller.start();
    return isNew;
  }

  hide() {
    byId('groups-page').hidden = true;
    setText(byId('groups-as-of'), '');
    this.#poller.stop();
    this.#connection.drop(SOURCE);
  }

  refresh() {
    this.#poller.soon();
  }

  tick() {}

  #begin(report) {
    this.#poller.stop();
    this.#report = null;
    this.#shown = STEP;
    setText(byId('groups-heading'), TITLES[report]);
    setText(byId('groups-summary'), 'Loading…');
    byId('groups-body').replaceChildren();
    byId('groups-more').hidden = true;
  }

  #take(report) {
    this.#report = report;
    this.#render();
    setText(byId('groups-as-of'), `${TITLES[this.#route.report]} as of ${formatClock(serviceNow())}.`);
    this.#connection.succeed(SOURCE);
  }

  #fail(error) {
    if (isOutage(error)) return this.#connection.fail(SOURCE, error);
    setText(byId('groups-summary'), `This page can’t be shown: ${error.message}`);
    this.#poller.stop();
    this.#connection.drop(SOURCE);
  }

  #sortBy(sort) {
    if (!sort) return;
    const { report, sort: current, order } = this.#route;
    const first = sort === GROUPS[report] ? 'asc' : 'desc';
    const reversed = order === 'asc' ? 'desc' : 'asc';
    location.hash = groupsHash(report, sort, sort === current ? reversed : first);
  }

  #showHeadings() {
    const { report, sort, order } = this.#route;
    const columns = [{ name: GROUPS[report], label: report === 'types' ? 'Type' : 'Mission' }, ...NUMBERS];
    const head = byId('groups-head');
    // The focus stays on the heading that was clicked.
    while (head.cells.length < columns.length) {
      head.append(element('th', { scope: 'col' }, element('button', { type: 'button' })));
    }
    columns.forEach(({ name, label }, index) => {
      const cell = head.cells[index];
      setText(cell.firstElementChild, label);
      cell.firstElementChild.dataset.sort = name;
      if (name === sort) cell.ariaSort = order === 'asc' ? 'ascending' : 'descending';
      else cell.removeAttribute('aria-sort');
    });
  }

  #render() {
    const { rows, truncated } = this.#report;
    const sorted = sortRows(rows, this.#route);
    const shown = sorted.slice(0, this.#shown);
    const body = byId('groups-body');
    // Elements are reused, so that the focus stays.
    while (body.rows.length > shown.length) body.lastElementChild.remove();
    while (body.rows.length < shown.length) body.append(makeRow());
    shown.forEach((row, index) => showRow(body.rows[index], row, GROUPS[this.#route.report]));
    const amount = truncated ? `The first ${formatNumber(rows.length)} by name; there are more.` : '';
    const rest = rows.length > shown.length ? ` ${formatNumber(shown.length)} are shown.` : '';
    setText(byId('groups-summary'), `${amount || `${formatCount(rows.length, 'row')}.`}${rest}`);
    byId('groups-more').hidden = rest === '';
  }
}

/** Unknown values come last in both orders. Rows come in the order of their names, which is the service's own. */
function sortRows(rows, { report, sort, order }) {
  const sign = order === 'asc' ? 1 : -1;
  const isKnown = (row) => (row[sort] ?? null) !== null;
  const known = rows.filter(isKnown);
  if (sort !== GROUPS[report]) known.sort(({ [sort]: a }, { [sort]: b }) => sign * ((a > b) - (a < b)));
  else if (order !== 'asc') known.reverse();
  return known.concat(rows.filter((row) => !isKnown(row)));
}

function makeRow() {
  const numbers = NUMBERS.map(({ label }) => element('td', { dataset: { label } }, element('span')));
  return element('tr', {}, element('th', { scope: 'row' }, element('a')), ...numbers);
}

function showRow(tr, row, column) {
  const [heading, ...cells] = tr.cells;
  const link = heading.firstElementChild;
  const name = row[column];
  setValue(link, name);
  link.title = name === null ? `No ${column} is known` : '';
  // There is no filter for rockets without a name.
  if (name === null) link.removeAttribute('href');
  else link.href = fleetHash(withOnly(parseRoute('#/').query, { [column]: [name] }));
  NUMBERS.forEach(({ name: number }, index) => setValue(cells[index].firstElementChild, formatCell(row[number])));
}

function formatCell(value) {
  if (value === null) return null;
  return formatNumber(typeof value === 'number' ? Math.round(value) : value);
}
