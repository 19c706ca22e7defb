// The fleet's page: one page of the table, kept current by the stream without moving under the reader's hand.

import { getRockets, isOutage } from './api.js';
import { byId, setText } from './dom.js';
import { Filters } from './filters.js';
import { formatCount, formatNumber } from './format.js';
import { PageOrder } from './order.js';
import { DEFAULT_ORDERS, changeQuery, filterParameters, hasFilters, listParameters } from './route.js';
import { LiveStream } from './stream.js';
import { RocketTable } from './table.js';

/** The table's page is not asked for again more often than this. */
const RELOAD_INTERVAL_MS = 2_000;
const CHECK_INTERVAL_MS = 250;
/** If messages are processed but the stream tells nothing for so long, it is dead. */
const STREAM_SILENCE_MS = 20_000;

export class Fleet {
  #connection;
  #overview;
  #navigate;
  #table = new RocketTable(byId('rockets'), (sort) => this.#sortBy(sort));
  #filters = new Filters((filters) => this.#go(changeQuery(this.#query, filters)));
  #stream;
  #query = null;
  #checks = null;
  #order = null;
  #nextCursor = null;
  /** Rockets that have left their place, came to the page or left it, since the page was loaded. */
  #moved = new Set();
  /** Whether the page must be loaded again although no row is known to have moved. */
  #outdated = false;
  #loading = false;
  #loadedAt = 0;
  #latestEvent = 0;
  #processedAtEvent = 0;

  /** `navigate(query, trail)` shows another query; the trail is the cursors of the pages before. */
  constructor(connection, overview, navigate) {
    this.#connection = connection;
    this.#overview = overview;
    this.#navigate = navigate;
    this.#stream = new LiveStream({
      rocket: (item) => this.#changed(item),
      gone: (channel) => this.#gone(channel),
      live: () => { this.#outdated = true; },
      state: (state) => connection.setStream(state),
    });
    byId('next').addEventListener('click', () => this.#next());
    byId('previous').addEventListener('click', () => this.#previous());
    byId('pending').addEventListener('click', () => this.#updateNow());
    byId('limit').addEventListener('change', ({ target }) => {
      this.#go(changeQuery(this.#query, { limit: Number(target.value) }));
    });
  }

  show(query) {
    byId('fleet').hidden = false;
    const same = JSON.stringify(query) === JSON.stringify(this.#query);
    if (!same) {
      this.#query = query;
      this.#order = null;
    }
    this.#table.showSort(query);
    this.#filters.show(query);
    byId('limit').value = query.limit;
    this.#stream.open(streamParameters(query));
    this.#checks ??= setInterval(() => this.#check(), CHECK_INTERVAL_MS);
    // Coming back from a rocket the rows of before are shown at once, and brought up to date as always.
    if (same && this.#order) this.#outdated = true;
    else this.#load();
  }

  hide() {
    byId('fleet').hidden = true;
    this.#stream.close();
    clearInterval(this.#checks);
    this.#checks = null;
  }

  restartStream() {
    this.#stream.restart();
  }

  pauseStream() {
    this.#stream.pause();
  }

  tick() {
    this.#table.refreshAges();
  }

  /** Heartbeats can't be seen, but a stream of all rockets that is silent while messages are processed is dead. */
  noteProcessed(processed) {
    if (!this.#checks || hasFilters(this.#query)) return;
    const silent = performance.now() - this.#latestEvent > STREAM_SILENCE_MS;
    if (silent && processed > this.#processedAtEvent) this.#stream.restart();
    if (silent || processed < this.#processedAtEvent) this.#latestEvent = performance.now();
    this.#processedAtEvent = processed;
  }

  #changed(item) {
    this.#noteEvent();
    this.#table.update(item);
    // More than all of the page can't be other ones, whatever the size of the fleet.
    if (!this.#order || this.#moved.size >= this.#query.limit) return;
    if (this.#order.isChangedBy(item)) this.#moved.add(item.channel);
    else this.#moved.delete(item.channel);
  }

  #gone(channel) {
    this.#noteEvent();
    if (!this.#table.has(channel)) return;
    this.#table.markGone(channel);
    this.#moved.add(channel);
  }

  #noteEvent() {
    this.#latestEvent = performance.now();
    this.#overview.noteChange();
  }

  /** Loads the page again if it has changed, unless somebody holds it: then it is offered. */
  #check() {
    const changed = this.#outdated || this.#moved.size > 0;
    const held = this.#table.isHeld();
    this.#showPending(changed && held);
    const due = performance.now() - this.#loadedAt >= RELOAD_INTERVAL_MS;
    if (changed && !held && due && !this.#loading && !document.hidden) this.#load();
  }

  #showPending(offered) {
    byId('pending').hidden = !offered;
    if (offered) setText(byId('pending'), `${this.#describeMoved()} – update now`);
  }

  #describeMoved() {
    if (this.#moved.size > 0) return `${formatCount(this.#moved.size, 'row')} changed order`;
    return 'Rows may have changed order';
  }

  /** The button vanishes, so the focus moves to the table: beside its rows, which it would hold. */
  #updateNow() {
    byId('rockets').focus({ preventScroll: true });
    this.#load();
  }

  async #load() {
    const query = this.#query;
    this.#loading = true;
    this.#moved.clear();
    this.#outdated = false;
    byId('rockets').ariaBusy = 'true';
    try {
      const page = await getRockets(listParameters(query));
      this.#connection.requestSucceeded();
      if (query === this.#query) this.#showPage(page);
    } catch (error) {
      if (query === this.#query) this.#showFailure(error);
    } finally {
      if (query === this.#query) {
        this.#loading = false;
        this.#loadedAt = performance.now();
        byId('rockets').ariaBusy = 'false';
      }
    }
  }

  #showPage({ rockets, nextCursor }) {
    this.#order = new PageOrder(this.#query, rockets, nextCursor === null);
    this.#nextCursor = nextCursor;
    this.#table.render(rockets);
    this.#showProblem('');
    this.#showAmount(rockets.length);
    byId('previous').disabled = this.#query.pageNumber === 1;
    byId('next').disabled = nextCursor === null;
  }

  #showAmount(amount) {
    const { pageNumber, limit } = this.#query;
    const first = (pageNumber - 1) * limit;
    const none = amount === 0;
    const empty = none && pageNumber === 1 && !hasFilters(this.#query);
    setText(byId('range'), none ? 'No rows' : `Rows ${formatNumber(first + 1)}–${formatNumber(first + amount)}`);
    byId('no-match').hidden = !none;
    setText(byId('no-match'), this.#describeNone());
    byId('empty').hidden = !empty;
    byId('overview').hidden = empty;
  }

  #describeNone() {
    if (this.#query.pageNumber > 1) return 'The list has become shorter: there is nothing on this page any more.';
    return 'No rocket matches these filters. One that comes to match appears here at once.';
  }

  #showFailure(error) {
    if (isOutage(error)) {
      this.#connection.requestFailed(error);
      this.#outdated = true;
    } else {
      this.#order = null;
      this.#table.render([]);
      byId('no-match').hidden = true;
      setText(byId('range'), '');
      this.#showProblem(`The table can't be shown. ${error.message}`);
    }
  }

  /** A cursor of another release, say: the first page always works. */
  #showProblem(text) {
    setText(byId('problem'), text);
    byId('problem').hidden = text === '';
    byId('previous').disabled = text === '' || this.#query.pageNumber === 1;
  }

  #sortBy(sort) {
    const reversed = this.#query.order === 'asc' ? 'desc' : 'asc';
    const order = sort === this.#query.sort ? reversed : DEFAULT_ORDERS[sort];
    this.#go(changeQuery(this.#query, { sort, order }));
  }

  #next() {
    const { cursor, pageNumber } = this.#query;
    const trail = [...this.#trail(), cursor];
    this.#go({ ...this.#query, cursor: this.#nextCursor, pageNumber: pageNumber + 1 }, trail);
  }

  /** Pages can only be followed forward. Who was sent here has no trail, and is taken to the start. */
  #previous() {
    const trail = this.#trail();
    const cursor = trail.pop() ?? '';
    const pageNumber = cursor ? this.#query.pageNumber - 1 : 1;
    this.#go({ ...this.#query, cursor, pageNumber }, trail);
  }

  #trail() {
    return [...(history.state?.trail ?? [])];
  }

  #go(query, trail = []) {
    this.#navigate(query, trail);
  }
}

/** The table is loaded page by page, so the stream only has to tell changes. */
function streamParameters(query) {
  const parameters = filterParameters(query);
  parameters.set('snapshot', 'false');
  return parameters;
}
