// The URL's fragment holds what is shown, so that a view can be shared, reloaded and returned to.
//
//   #/?status=launched&sort=speed       the fleet; omitted parameters have their defaults
//   #/rockets/<encoded channel>         one rocket

const DEFAULT_LIMIT = '100';
export const FILTERS = ['status', 'type', 'mission', 'channel'];

/** The sort keys of the table, with their default orders. */
export const DEFAULT_ORDERS = {
  __proto__: null, latestUpdate: 'desc', channel: 'asc', type: 'asc', speed: 'desc', mission: 'asc', status: 'asc',
};

const ROCKET = '#/rockets/';
const PARAMETERS = [...FILTERS, 'sort', 'order', 'limit', 'page', 'cursor'];

/** `{ page: "rocket", channel }` or `{ page: "fleet", query }`. */
export function parseRoute(hash) {
  if (hash.startsWith(ROCKET) && hash !== ROCKET) return { page: 'rocket', channel: decode(hash.slice(ROCKET.length)) };
  const [, path, parameters] = /^#?([^?]*)\??(.*)$/s.exec(hash);
  const query = parseQuery(new URLSearchParams(parameters));
  if (path !== '' && path !== '/') query.problems.unshift(`“${decode(path)}” is not a page of this dashboard.`);
  return { page: 'fleet', query };
}

export function rocketHash(channel) {
  return ROCKET + encodeURIComponent(channel);
}

/** The shortest fragment for a query. */
export function fleetHash(query) {
  const parameters = filterParameters(query);
  if (query.sort !== 'latestUpdate') parameters.set('sort', query.sort);
  if (query.order !== defaultOrder(query.sort)) parameters.set('order', query.order);
  if (query.limit !== DEFAULT_LIMIT) parameters.set('limit', query.limit);
  if (query.cursor) {
    parameters.set('page', query.pageNumber);
    parameters.set('cursor', query.cursor);
  }
  const text = parameters.toString();
  return text ? `#/?${text}` : '#/';
}

/** The query with some changes, starting at its first page: a cursor belongs to one query. */
export function changeQuery(query, changes) {
  return { ...query, ...changes, cursor: '', pageNumber: 1, problems: [] };
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

/** The whole query as the API wants it. Bad values are passed on: the API's response names them. */
export function listParameters(query) {
  const parameters = filterParameters(query);
  for (const name of ['sort', 'order', 'limit', 'cursor']) if (query[name]) parameters.set(name, query[name]);
  return parameters;
}

function defaultOrder(sort) {
  return DEFAULT_ORDERS[sort] ?? '';
}

function parseQuery(parameters) {
  const text = (name) => parameters.get(name) ?? '';
  const sort = text('sort') || 'latestUpdate';
  const order = text('order') || defaultOrder(sort);
  const limit = text('limit') || DEFAULT_LIMIT;
  const cursor = text('cursor');
  const pageNumber = cursor ? Math.max(2, Number.parseInt(text('page'), 10) || 2) : 1;
  const filters = Object.fromEntries(FILTERS.map((name) => [name, text(name)]));
  return { ...filters, sort, order, limit, cursor, pageNumber, problems: findProblems(parameters) };
}

/** What this page can't follow, as sentences. It must not show something else silently. */
function findProblems(parameters) {
  const names = [...new Set(parameters.keys())];
  const unknown = names.filter((name) => !PARAMETERS.includes(name));
  const repeated = names.filter((name) => PARAMETERS.includes(name) && parameters.getAll(name).length > 1);
  return [
    ...unknown.map((name) => `“${name}” is not a known parameter for filtering or sorting rockets.`),
    ...repeated.map((name) => `“${name}” may be given only once.`),
  ];
}

/** The URL may have been typed by hand. */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
