// Requests to the service's API, the problems it answers with, and its clock.

const TIMEOUT_MS = 10_000;
/** The Date header has whole seconds: a smaller difference says nothing. */
const CLOCK_TOLERANCE_MS = 2_000;

let clockOffset = 0;

/** An answer that is no success: problem+json if the service gave it, or just the status. */
export class Problem extends Error {
  constructor(status, { title, detail } = {}) {
    super([title ?? `status ${status}`, detail].filter(Boolean).join(': '));
    this.status = status;
  }
}

/** Whether an error means that the service can't be asked at all now, rather than that the question was wrong. */
export function isOutage(error) {
  return !(error instanceof Problem) || error.status >= 500 || error.status === 401 || error.status === 403;
}

/** The service's time in milliseconds: ages must not depend on how well the reader's clock is set. */
export function serviceNow() {
  return Date.now() + clockOffset;
}

export function getStats() {
  return getJson('/stats');
}

export async function getReport(name) {
  return (await getJson(`/reports/${name}`)).rows;
}

export function getRockets(parameters) {
  return getJson(`/rockets?${parameters}`);
}

/** One rocket in one view, or null if the service has never heard of it. */
export async function getRocket(channel, view) {
  if (channel === '.' || channel === '..') return getRocketByFilter(channel, view);
  try {
    return await getJson(`/rockets/${encodeURIComponent(channel)}?view=${view}`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** URLs can't end in "." or "..", however they are encoded. As a filter they can be asked for, though without gaps. */
async function getRocketByFilter(channel, view) {
  const { rockets } = await getRockets(new URLSearchParams({ channel, view }));
  return rockets[0] ?? null;
}

async function getJson(url) {
  const options = { headers: { Accept: 'application/json' }, signal: AbortSignal.timeout(TIMEOUT_MS) };
  const response = await fetch(url, options);
  setClock(response.headers.get('Date'));
  if (!response.ok) throw new Problem(response.status, await readProblem(response));
  return response.json();
}

async function readProblem(response) {
  try {
    return await response.json();
  } catch {
    return {};
  }
}

function setClock(date) {
  const offset = Date.parse(date) - Date.now();
  if (Number.isNaN(offset)) return;
  clockOffset = Math.abs(offset) < CLOCK_TOLERANCE_MS ? 0 : offset;
}
