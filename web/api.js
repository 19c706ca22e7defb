// Requests to the service's API, its errors, and its clock. All URLs are relative to the page, so the dashboard also
// works behind a proxy that serves it under a path.

const TIMEOUT_MS = 10_000;
/** The Date header has whole seconds: a smaller difference means nothing. */
const CLOCK_TOLERANCE_MS = 2_000;
/** How often to read the two views of a rocket until both agree on the moment, where one request can't read both. */
const VIEW_ATTEMPTS = 5;
/** A report is read in pages. The service chooses the size of the first one. */
const LARGEST_PAGE = 10_000;

let clockOffset = 0;
let noteSession = () => {};

/** A response with an error status, with the message of its problem+json. */
export class Problem extends Error {
  constructor(status, { title, detail, errors = [] }) {
    super(errors.map(describeError).join(' ') || detail || title || `The service returned status ${status}.`);
    this.status = status;
  }
}

/** A successful response that the page can't show. */
export class UnexpectedResponse extends Error {
  constructor() {
    super('This page can’t show the service’s response. If the service was updated, reload the page.');
  }
}

/** Names the faulty member or parameter: "limit must be an integer from 1 to 1000." */
function describeError({ parameter, pointer, detail }) {
  return `“${parameter ?? pointer}” ${detail}.`;
}

/** Whether an error means that the service can't answer now, and not that the request is wrong. */
export function isOutage(error) {
  return !(error instanceof Problem) || error.status >= 500 || error.status === 401 || error.status === 403;
}

/** The service's time in milliseconds: ages must not depend on the browser's clock. */
export function serviceNow() {
  return Date.now() + clockOffset;
}

/** Calls `note(signedIn)` after each request. Only the service knows it: no script can see the cookie. */
export function watchSession(note) {
  noteSession = note;
}

export function getStats(signal) {
  return getJson('stats', signal);
}

export function getActivity(signal) {
  return getJson('activity', signal);
}

/** At most this many rows of a report: `{ rows, truncated }`; `truncated` is true if the report has more. */
export async function getReport(name, most, signal) {
  let { rows, truncated = false, nextCursor: cursor } = await getJson(`reports/${name}`, signal);
  while (cursor && rows.length < most) {
    const limit = Math.min(LARGEST_PAGE, most - rows.length);
    const page = await getJson(`reports/${name}?${new URLSearchParams({ cursor, limit })}`, signal);
    rows = rows.concat(page.rows);
    cursor = page.nextCursor;
  }
  return { rows, truncated: truncated || Boolean(cursor) };
}

/** A page of a rocket's gaps: `{ gaps, nextCursor }`. */
export function getGaps(channel, parameters, signal) {
  return getJson(`rockets/${encodeURIComponent(channel)}/gaps?${parameters}`, signal);
}

export function getRockets(parameters, signal) {
  return getJson(`rockets?${parameters}`, signal);
}

/** Whether the API can be asked for a channel by a path. A path can't end in "." or "..", however they are encoded. */
export function hasPath(channel) {
  return channel !== '.' && channel !== '..';
}

/**
 * One rocket, read in one snapshot: `{ channel, lastReceived, bestEffort, exact, messages }`. Null if the service
 * doesn't know the channel. `exact` is null if it could not be read at the same moment.
 */
export async function getRocket(channel, signal) {
  // The list finds the other channels, in one view at a time.
  if (!hasPath(channel)) return getRocketFromList(channel, signal);
  try {
    return await getJson(`rockets/${encodeURIComponent(channel)}?view=both`, signal);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function getRocketFromList(channel, signal) {
  let bestEffort = null;
  for (let attempt = 0; attempt < VIEW_ATTEMPTS; attempt += 1) {
    const views = ['best-effort', 'exact'].map((view) => getListed(channel, view, signal));
    const [first, second] = await Promise.all(views);
    if (!first || !second) return null;
    if (isSameMoment(first, second)) return { ...first, bestEffort: first, exact: second };
    bestEffort = first;
  }
  return { ...bestEffort, bestEffort, exact: null };
}

async function getListed(channel, view, signal) {
  const { rockets } = await getRockets(new URLSearchParams({ channel, view }), signal);
  return rockets[0] ?? null;
}

/** Whether two responses show a rocket at the same moment. Some of them lack the gaps. */
export function isSameMoment(a, b) {
  const moment = ({ lastReceived, messages: { gaps, ...counts } }) => JSON.stringify([lastReceived, counts]);
  return moment(a) === moment(b);
}

/**
 * Changes something, and returns the body of the response, or null if it has none. `token` is a write token, or "".
 * The result says nothing about the session, which holds a read token.
 */
export async function change(method, url, body, token) {
  const headers = { Accept: 'application/json' };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers['Content-Type'] = 'application/json';
  const options = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(TIMEOUT_MS) };
  const response = await fetch(url, options);
  if (!response.ok) throw await readProblem(response);
  return response.status === 204 ? null : parse(await response.text());
}

async function getJson(url, signal) {
  const signals = [signal ?? [], AbortSignal.timeout(TIMEOUT_MS)].flat();
  const response = await fetch(url, { headers: { Accept: 'application/json' }, signal: AbortSignal.any(signals) });
  setClock(response.headers.get('Date'));
  // An error of the service or a proxy says nothing about the session, unless it refuses the token.
  if (response.ok || response.status === 401) noteSession(response.headers.get('Session-Active') === 'true');
  if (!response.ok) throw await readProblem(response);
  return parse(await response.text());
}

function parse(text) {
  try {
    return JSON.parse(text, keepLargeIntegers);
  } catch {
    throw new UnexpectedResponse();
  }
}

/** Speeds have 64 bits, JavaScript's numbers 53: larger ones become a BigInt if the browser gives access to the text. */
function keepLargeIntegers(key, value, context) {
  const isRounded = typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value);
  return isRounded && /^-?\d+$/.test(context?.source) ? BigInt(context.source) : value;
}

/** The problem in a response, from the service or from a proxy in between. */
export async function readProblem(response) {
  const members = await response.json().catch(() => ({}));
  return new Problem(response.status, members ?? {});
}

function setClock(date) {
  const offset = Date.parse(date) - Date.now();
  if (Number.isNaN(offset)) return;
  clockOffset = Math.abs(offset) < CLOCK_TOLERANCE_MS ? 0 : offset;
}
