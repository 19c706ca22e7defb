// The address is the state of the view: everything after "#", so that it can be shared, reloaded and gone back to.
//
//   #/?status=launched&sort=speed       the fleet; what is left out has its default
//   #/rockets/<encoded channel>         one rocket

export const DEFAULT_LIMIT = 100;
export const LIMITS = [50, 100, 250];
export const FILTERS = ['status', 'type', 'mission', 'channel'];

/** What the table can be sorted by, and the order that each begins with. */
export const DEFAULT_ORDERS = {
  latestUpdate: 'desc', channel: 'asc', type: 'asc', speed: 'desc', mission: 'asc', status: 'asc',
};

const ROCKET = '#/rockets/';

/** `{ page: "rocket", channel }` or `{ page: "fleet", query }`. */
export function parseRoute(hash) {
  if (hash.startsWith(ROCKET)) return { page: 'rocket', channel: decode(hash.slice(ROCKET.length)) };
  const start = hash.indexOf('?');
  return { page: 'fleet', query: parseQuery(new URLSearchParams(start < 0 ? '' : hash.slice(start + 1))) };
}

export function rocketHash(channel) {
  return ROCKET + encodeURIComponent(channel);
}

/** The shortest address of a query. */
export function fleetHash(query) {
  const parameters = filterParameters(query);
  if (query.sort !== 'latestUpdate') parameters.set('sort', query.sort);
  if (query.order !== DEFAULT_ORDERS[query.sort]) parameters.set('order', query.order);
  if (query.limit !== DEFAULT_LIMIT) parameters.set('limit', query.limit);
  if (query.cursor) {
    parameters.set('page', query.pageNumber);
    parameters.set('cursor', query.cursor);
  }
  const text = parameters.toString();
  return text ? `#/?${text}` : '#/';
}

/** The query with some of it changed, from its first page on: a cursor belongs to the question it was given for. */
export function changeQuery(query, changes) {
  return { ...query, ...changes, cursor: '', pageNumber: 1 };
}

export function hasFilters(query) {
  return FILTERS.some((name) => query[name]);
}

/** The filters as the API wants them. */
export function filterParameters(query) {
  const parameters = new URLSearchParams();
  for (const name of FILTERS) if (query[name]) parameters.set(name, query[name]);
  return parameters;
}

/** The whole query as the API wants it. */
export function listParameters(query) {
  const parameters = filterParameters(query);
  for (const name of ['sort', 'order', 'limit', 'cursor']) if (query[name]) parameters.set(name, query[name]);
  return parameters;
}

function parseQuery(parameters) {
  const text = (name) => parameters.get(name) ?? '';
  const sort = Object.hasOwn(DEFAULT_ORDERS, text('sort')) ? text('sort') : 'latestUpdate';
  const order = ['asc', 'desc'].includes(text('order')) ? text('order') : DEFAULT_ORDERS[sort];
  const limit = LIMITS.includes(Number(text('limit'))) ? Number(text('limit')) : DEFAULT_LIMIT;
  const cursor = text('cursor');
  const pageNumber = cursor ? Math.max(2, Number.parseInt(text('page'), 10) || 2) : 1;
  const filters = Object.fromEntries(FILTERS.map((name) => [name, text(name)]));
  return { ...filters, sort, order, limit, cursor, pageNumber };
}

/** Somebody may have typed the address. */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
