// The order of the table, as the service has it: ties break by channel in the same direction, nulls come last in both.
// With it the dashboard can tell whether a change moves a row, without asking for the page again.

/** Less than zero if `a` comes before `b`. */
export function compare(a, b, { sort, order }) {
  const [left, right] = [a[sort], b[sort]];
  if (left !== right) {
    if (left === null) return 1;
    if (right === null) return -1;
    return directed(left, right, order);
  }
  return a.channel === b.channel ? 0 : directed(a.channel, b.channel, order);
}

function directed(left, right, order) {
  return (left < right ? -1 : 1) * (order === 'asc' ? 1 : -1);
}

/** The page as the service gave it: what a change is compared with. */
export class PageOrder {
  #query;
  #items;
  #isLast;
  #places;

  constructor(query, items, isLast) {
    this.#query = query;
    this.#items = items;
    this.#isLast = isLast;
    this.#places = new Map(items.map((item, place) => [item.channel, place]));
  }

  /** Whether the page would be another one with this rocket as it is now. */
  isChangedBy(item) {
    const place = this.#places.get(item.channel);
    return place === undefined ? this.#wouldEnter(item) : !this.#isBetween(item, place - 1, place + 1);
  }

  #wouldEnter(item) {
    return this.#isBetween(item, this.#query.cursor ? 0 : -1, this.#isLast ? Infinity : this.#items.length - 1);
  }

  /** What is beyond a page isn't known, so there its own ends are the limits, unless the list ends there too. */
  #isBetween(item, before, after) {
    const lower = this.#items[before < 0 && this.#query.cursor ? 0 : before];
    const upper = this.#items[after >= this.#items.length && !this.#isLast ? this.#items.length - 1 : after];
    return (!lower || compare(lower, item, this.#query) <= 0) && (!upper || compare(item, upper, this.#query) <= 0);
  }
}
