// The URL's fragment holds what is shown, so that a view can be shared, reloaded and returned to.
//
//   #/?status=launched&sort=speed       the fleet; omitted parameters have their defaults
//   #/rockets/<encoded channel>         one rocket
//   #/missions?sort=rockets             all missions, sorted; likewise #/types

const DEFAULT_LIMIT = '100';
/** Filters with several values; a rocket must have one of them. */
export const LISTS = ['type', 'mission'];
export const FILTERS = ['status', 'missing', 'silentFor', 'channelPrefix', 'channel', ...LISTS];

/** The sort keys of the table, with their default orders. */
export const DEFAULT_ORDERS = {
  __proto__: null, latestUpdate: 'desc', channel: 'asc', type: 'asc', speed: 'desc', mission: 'asc', status: 'asc',
};

const ROCKET = '#/rockets/';
const PARAMETERS = [...FILTERS, 'sort', 'order', 'limit', 'page', 'cursor'];

/** The pages of reports, with the column that their rows are named by. */
export const GROUPS = { __proto__: null, missions: 'mission', types: 'type' };

/** The other columns that they are sorted by. */
const GROUP_NUMBERS = ['rockets', 'launched', 'exploded', 'meanSpeed', 'maxSpeed'];

/** `{ page: "rocket", channel }`, `{ page: "groups", report, sort, order }` or `{ page: "fleet", query }`. */
export function parseRoute(hash) {
  if (hash.startsWith(ROCKET) && hash !== ROCKET) return { page: 'rocket', channel: decode(hash.slice(ROCKET.length)) };
  const [, path, parameters] = /^#?([^?]*)\??(.*)$/s.exec(hash);
  const report = path.slice(1);
  if (path.startsWith('/') && report in GROUPS) return parseGroups(report, new URLSearchParams(parameters));
  const query = parseQuery(new URLSearchParams(parameters));
  if (path !== '' && path !== '/') query.problems.unshift(`“${decode(path)}” is not a page of this dashboard.`);
  return { page: 'fleet', query };
}

export function rocketHash(channel) {
  return ROCKET + encodeURIComponent(channel);
}

/** Reports sort the largest number first, and names in ascending order. */
export function groupsHash(report, sort, order) {
  return `#/${report}?${new URLSearchParams({ sort, order })}`;
}

function parseGroups(report, parameters) {
  const given = parameters.get('sort');
  const sort = given === GROUPS[report] || GROUP_NUMBERS.includes(given) ? given : 'rockets';
  const order = parameters.get('order') ?? (sort === GROUPS[report] ? 'asc' : 'desc');
  return { page: 'groups', report, sort, order };
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
  return FILTERS.some((name) => query[name].length > 0);
}

/** The query with these filters and no others, starting at its first page. */
export function withOnly(query, filters) {
  return changeQuery(query, { ...parseFilters(new URLSearchParams()), ...filters });
}

export function parseFilters(parameters) {
  const value = (name) => (LISTS.includes(name) ? parameters.getAll(name) : parameters.get(name) ?? '');
  return Object.fromEntries(FILTERS.map((name) => [name, value(name)]));
}

/** The filters as the API wants them. */
export function filterParameters(query) {
  const parameters = new URLSearchParams();
  for (const name of FILTERS) {
    for (const value of [query[name]].flat()) if (value) parameters.append(name, value);
  }
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
  return { ...parseFilters(parameters), sort, order, limit, cursor, pageNumber, problems: findProblems(parameters) };
}

/** What this page can't follow, as sentences. It must not show something else silently. */
function findProblems(parameters) {
  const names = [...new Set(parameters.keys())];
  const unknown = names.filter((name) => !PARAMETERS.includes(name));
  const single = names.filter((name) => PARAMETERS.includes(name) && !LISTS.includes(name));
  const repeated = single.filter((name) => parameters.getAll(name).length > 1);
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
