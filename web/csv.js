// The rockets of a query as CSV, in the form of `rocket-monitor report --format csv`.

import { getRockets } from './api.js';

/** The rows are collected in memory, and each page of them searches all rockets. */
export const MOST_ROWS = 10_000;
const PAGE_ROWS = 1_000;
const TYPE = 'text/csv;charset=utf-8';

/** The columns of the table `rockets`, and those of the gaps. */
const COLUMNS = {
  channel: (item) => item.channel,
  status: (item) => item.status,
  type: (item) => item.type,
  speed: (item) => item.speed,
  mission: (item) => item.mission,
  exploded_reason: (item) => item.explodedReason,
  latest_update: (item) => item.latestUpdate,
  last_received: (item) => item.lastReceived,
  processed: (item) => item.messages.processed,
  complete_through: (item) => item.messages.completeThrough,
  exact_through: (item) => item.messages.exactThrough,
  highest: (item) => item.messages.highest,
  missing: (item) => item.messages.missing,
  lost: (item) => item.messages.lost,
};

/**
 * The first rows of a query, in its order, with a line of names. Rockets change between the pages, so one may have
 * moved out of the pages to come; none is listed twice. Calls `progress(rows)` after each page.
 */
export async function collectCsv(parameters, signal, progress) {
  const rows = new Map();
  let cursor = null;
  do {
    parameters.set('limit', Math.min(PAGE_ROWS, MOST_ROWS - rows.size));
    if (cursor) parameters.set('cursor', cursor);
    const page = await getRockets(parameters, signal);
    for (const item of page.rockets) if (!rows.has(item.channel)) rows.set(item.channel, makeLine(item));
    cursor = page.nextCursor;
    progress(rows.size);
  } while (cursor && rows.size < MOST_ROWS);
  return new Blob([`${Object.keys(COLUMNS).join()}\r\n`, ...rows.values()], { type: TYPE });
}

function makeLine(item) {
  return `${Object.values(COLUMNS).map((column) => makeCell(column(item))).join()}\r\n`;
}

function makeCell(value) {
  const text = typeof value === 'string' ? defuse(value) : String(value ?? '');
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** An apostrophe makes a text of what a spreadsheet would take for a formula, as in src/wire/report.rs. */
function defuse(text) {
  return /^(?:\s*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20]|\p{Cc})/u.test(text) ? `'${text}` : text;
}

/** Saves a file as if the user had followed a link to it. */
export function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The browser has the content once the click is handled.
  setTimeout(() => URL.revokeObjectURL(link.href));
}
