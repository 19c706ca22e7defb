// The fleet's page: one page of the table, polled and updated without moving rows under the user's pointer.

import { UnexpectedResponse, getRockets, isOutage, serviceNow } from './api.js';
import { byId, setText } from './dom.js';
import { Download } from './download.js';
import { Filters, choose } from './filters.js';
import { formatClock, formatNumber } from './format.js';
import { Poller } from './poller.js';
import { DEFAULT_ORDERS, changeQuery, hasFilters, listParameters } from './route.js';
import { RocketTable } from './table.js';

const INTERVAL_MS = 2_000;
/** Rows of the previous query disappear after this time, even if the service doesn't answer. */
const OLD_ROWS_MS = 500;
const SOURCE = 'rockets';

export class Fleet {
  #connection;
  #navigate;
  #table = new RocketTable(byId('rockets'), (sort) => this.#sortBy(sort));
  #filters = new Filters((filters, typing) => this.#go(changeQuery(this.#query, filters), [], typing));
  #download = new Download();
  #poller = new Poller({
    ask: (signal) => this.#ask(signal),
    show: (page) => this.#take(page),
    fail: (error) => this.#fail(error),
  }, INTERVAL_MS);
  #query = null;
  /** The latest response to the query that could be shown; null before the first. */
  #page = null;
  #clearing = null;

  /**
   * `navigate(query, trail, replaces)` shows another query; `trail` has the cursors of the previous pages. It
   * `replaces` the history entry of the current one.
   */
  constructor(connection, navigate) {
    this.#connection = connection;
    this.#navigate = navigate;
    byId('next').addEventListener('click', () => this.#next());
    byId('previous').addEventListener('click', () => this.#previous());
    byId('pending').addEventListener('click', () => this.#updateNow());
    byId('limit').addEventListener('change', ({ target }) => {
      this.#go(changeQuery(this.#query, { limit: target.value }));
    });
  }

  show(query) {
    byId('fleet').hidden = byId('fleet-as-of').hidden = false;
    // On return from a rocket's page, the old rows show at once and are then updated as usual.
    if (JSON.stringify(query) !== JSON.stringify(this.#query)) this.#begin(query);
    if (query.problems.length > 0) return this.#refuse(query.problems.join(' '));
    if (!this.#page) this.#connection.wait(SOURCE);
    this.#poller.start();
  }

  hide() {
    byId('fleet').hidden = byId('fleet-as-of').hidden = true;
    this.#poller.stop();
    this.#connection.drop(SOURCE);
  }

  refresh() {
    this.#poller.soon();
  }

  tick() {
    this.#table.refreshAges();
  }

  #ask(signal) {
    const parameters = listParameters(this.#query);
    parameters.set('total', 'true');
    return getRockets(parameters, signal);
  }

  /** Starts another query. Pending responses and cursors of the previous query don't apply to it. */
  #begin(query) {
    this.#poller.stop();
    this.#query = query;
    this.#page = null;
    this.#table.showSort(query);
    this.#filters.show(query);
    showLimit(query.limit);
    this.#download.show(query, null);
    this.#showPages();
    byId('rockets').ariaBusy = 'true';
    byId('pending').hidden = true;
    clearTimeout(this.#clearing);
    this.#clearing = setTimeout(() => this.#clear('Loading…'), OLD_ROWS_MS);
  }

  #take(page) {
    const isFirst = this.#page === null;
    if (isFirst || !this.#table.isHeld()) this.#showRows(page);
    else byId('pending').hidden = !this.#table.update(page.rockets);
    this.#page = page;
    this.#download.show(this.#query, page.total);
    // Whoever can't see the rows hears how many match, once for each query.
    if (isFirst) setText(byId('announcement'), byId('range').textContent);
    clearTimeout(this.#clearing);
    this.#showProblem('');
    this.#showPages();
    setText(byId('rows-as-of'), `Rows as of ${formatClock(serviceNow())}.`);
    byId('rockets').ariaBusy = 'false';
    this.#connection.succeed(SOURCE);
  }

  /** Whatever is said about the rows changes together with them. */
  #showRows({ rockets, total }) {
    this.#table.render(rockets);
    byId('pending').hidden = true;
    this.#showAmount(rockets.length, total);
  }

  /** The button disappears, so the focus moves to the table, but not to a row: that would hold the rows. */
  #updateNow() {
    byId('rockets').focus({ preventScroll: true });
    if (this.#page) this.#showRows(this.#page);
  }

  #showAmount(amount, total) {
    const { pageNumber, limit } = this.#query;
    const first = (pageNumber - 1) * limit;
    const none = amount === 0;
    const empty = none && pageNumber === 1 && !hasFilters(this.#query);
    const rows = `Rows ${formatNumber(first + 1)}–${formatNumber(first + amount)}`;
    setText(byId('range'), none ? 'No rows' : `${rows} of ${formatNumber(total)}`);
    byId('no-match').hidden = !none;
    setText(byId('no-match'), this.#describeNone());
    byId('empty').hidden = !empty;
    byId('overview').hidden = empty;
  }

  #describeNone() {
    if (this.#query.pageNumber > 1) return 'The list is shorter now: this page has no rows any more.';
    return 'No rocket matches these filters. Rockets appear here as soon as they match.';
  }

  #showPages() {
    byId('previous').disabled = this.#query.pageNumber === 1;
    byId('next').disabled = !this.#page?.nextCursor;
  }

  #fail(error) {
    if (!isOutage(error)) return this.#refuse(error.message);
    if (!this.#page) this.#clear(describeOutage(error));
    this.#connection.fail(SOURCE, error);
  }

  /** The service rejects this query, and would reject it again. */
  #refuse(reason) {
    this.#poller.stop();
    this.#page = null;
    this.#clear('');
    this.#showProblem(`This address can’t be shown: ${reason}`);
    this.#showPages();
    byId('rockets').ariaBusy = 'false';
    this.#connection.drop(SOURCE);
  }

  /** Removes the rows, and shows the reason. */
  #clear(reason) {
    clearTimeout(this.#clearing);
    this.#table.render([]);
    for (const id of ['range', 'announcement', 'rows-as-of']) setText(byId(id), '');
    setText(byId('no-match'), reason);
    byId('no-match').hidden = reason === '';
    byId('empty').hidden = true;
    byId('overview').hidden = false;
  }

  #showProblem(text) {
    setText(byId('problem-text'), text);
    byId('problem').hidden = text === '';
  }

  #sortBy(sort) {
    const reversed = this.#query.order === 'asc' ? 'desc' : 'asc';
    const order = sort === this.#query.sort ? reversed : DEFAULT_ORDERS[sort];
    this.#go(changeQuery(this.#query, { sort, order }));
  }

  #next() {
    const { cursor, pageNumber } = this.#query;
    const trail = [...this.#trail(), cursor];
    this.#go({ ...this.#query, cursor: this.#page.nextCursor, pageNumber: pageNumber + 1 }, trail);
  }

  /** Cursors only lead forward. A page opened from a link has no trail, so this returns to the first page. */
  #previous() {
    const trail = this.#trail();
    const cursor = trail.pop() ?? '';
    const pageNumber = cursor ? this.#query.pageNumber - 1 : 1;
    this.#go({ ...this.#query, cursor, pageNumber }, trail);
  }

  #trail() {
    return [...(history.state?.trail ?? [])];
  }

  #go(query, trail = [], replaces = false) {
    this.#navigate(query, trail, replaces);
  }
}

function describeOutage(error) {
  if (error instanceof UnexpectedResponse) return error.message;
  if (error.status === 401) return 'Sign in to see the rockets.';
  return 'The service is not available now. The rockets appear as soon as it is.';
}

/** A URL may ask for a number of rows that is not in the list. */
function showLimit(limit) {
  if (/^[1-9]\d{0,3}$/.test(limit)) choose(byId('limit'), limit);
}
