// The missing messages of a rocket: a bar of all its numbers, and the list of its gaps with what is declared lost.
//
// The gaps are read in pages, again after each change. A rocket can have a million: beyond a bound, the page says up to
// which number it knows them.

import { getGaps } from './api.js';
import { byId, element, setText, setValue } from './dom.js';
import { formatCount, formatFullTime, formatGap, formatNumber, formatTime } from './format.js';
import { describeRanges, makeBar } from './ranges.js';

const PAGE_ROWS = 1_000;
const MOST_PAGES = 20;
/** The list has this many gaps at a time. */
const SHOWN = 50;
/** The pause after a load, for each page of it: a rocket may change all the time. */
const PAUSE_MS = 500;
const SOURCE = 'gaps';

export class Gaps {
  #connection;
  #bar = makeBar('ranges');
  #channel = null;
  #messages = null;
  /** The gaps, what the rocket's numbers were when they were read, and whether there are more; null before. */
  #loaded = null;
  #run = null;
  #pause = null;
  #start = 0;

  /** Calls `onAction(name, numbers)` to "declare" or to "withdraw". */
  constructor(connection, onAction) {
    this.#connection = connection;
    byId('gaps').addEventListener('click', ({ target }) => {
      const { action, first, last } = target.closest('button')?.dataset ?? {};
      if (action) onAction(action, { first, last });
    });
    byId('gaps-previous').addEventListener('click', () => this.#turn(-SHOWN));
    byId('gaps-next').addEventListener('click', () => this.#turn(SHOWN));
  }

  show(channel) {
    this.hide();
    this.#channel = channel;
  }

  hide() {
    this.#run?.abort();
    clearTimeout(this.#pause);
    this.#run = this.#pause = this.#loaded = this.#messages = this.#channel = null;
    this.#start = 0;
    this.#bar.clear();
    byId('gaps').replaceChildren();
    this.#connection.drop(SOURCE);
  }

  /** Shows the numbers of the rocket, and reads its gaps again if they have changed. */
  update(messages) {
    this.#messages = messages;
    setText(byId('gaps-summary'), describe(messages));
    if (!this.#isOutdated()) this.#keep(messages);
    else if (!this.#run && !this.#pause) this.#load();
  }

  /** The gaps are still the same, but the highest number may not be. */
  #keep(messages) {
    if (messages.processed === this.#loaded.messages.processed) return;
    this.#loaded.messages = messages;
    this.#render();
  }

  #isOutdated() {
    return this.#messages !== null && this.#loaded?.key !== keyOf(this.#messages);
  }

  async #load() {
    const run = new AbortController();
    const messages = this.#messages;
    this.#run = run;
    let pages = MOST_PAGES;
    try {
      const { gaps, count, hasMore } = await readGaps(this.#channel, messages, run.signal);
      if (run !== this.#run) return;
      pages = count;
      this.#loaded = { key: keyOf(messages), messages, gaps: gaps.map(withLosses), hasMore };
      this.#render();
      this.#connection.succeed(SOURCE);
    } catch (error) {
      if (run !== this.#run) return;
      this.#connection.fail(SOURCE, error);
    }
    this.#run = null;
    this.#pause = setTimeout(() => {
      this.#pause = null;
      if (this.#isOutdated()) this.#load();
    }, PAUSE_MS * pages);
  }

  #turn(by) {
    this.#start += by;
    this.#render();
    byId('gaps-heading').focus({ preventScroll: true });
  }

  #render() {
    const { gaps, hasMore, messages } = this.#loaded;
    const highest = Math.max(messages.highest, (gaps.at(-1)?.last ?? 0) + 1);
    const last = hasMore ? gaps.at(-1).last : highest;
    const label = describeRanges(gaps, messages);
    const bound = `The first ${formatNumber(gaps.length)} gaps are shown, up to ${formatNumber(last)}; there are more.`;
    this.#bar.show(gaps, last, hasMore ? bound : label);
    setText(byId('ranges-last'), formatNumber(last));
    setText(byId('ranges-summary'), hasMore ? bound : label);
    this.#renderList(gaps);
  }

  /** Only what differs, so that the focus stays. */
  #renderList(gaps) {
    this.#start = Math.max(0, Math.min(this.#start, gaps.length - 1));
    this.#start -= this.#start % SHOWN;
    const end = Math.min(gaps.length, this.#start + SHOWN);
    const list = byId('gaps');
    const held = list.contains(document.activeElement);
    const known = new Map([...list.children].map((row) => [row.dataset.key, row]));
    const rows = gaps.slice(this.#start, end).map((gap) => known.get(JSON.stringify(gap)) ?? makeRow(gap));
    const isSame = rows.length === list.children.length && rows.every((row, index) => row === list.children[index]);
    if (!isSame) list.replaceChildren(...rows);
    if (held && !list.contains(document.activeElement)) byId('gaps-heading').focus({ preventScroll: true });
    const range = `Gaps ${formatNumber(this.#start + 1)}–${formatNumber(end)} of ${formatNumber(gaps.length)}`;
    setText(byId('gaps-range'), range);
    byId('gaps-pager').hidden = gaps.length <= SHOWN;
    byId('gaps-previous').disabled = this.#start === 0;
    byId('gaps-next').disabled = end === gaps.length;
  }
}

/** What the gaps depend on: the gaps themselves, if the rocket's response lists them all, or else every number. */
function keyOf({ processed, highest, missing, lost, exactThrough, gaps }) {
  const listed = gaps.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  return JSON.stringify([lost, exactThrough, listed === missing ? gaps : [processed, highest, missing]]);
}

/** All gaps, up to the bound. Without missing messages there is nothing to ask for. */
async function readGaps(channel, { missing }, signal) {
  const gaps = [];
  let [cursor, count] = [null, 0];
  if (missing === 0) return { gaps, count: 1, hasMore: false };
  do {
    const parameters = new URLSearchParams({ limit: PAGE_ROWS, ...(cursor && { cursor }) });
    const page = await getGaps(channel, parameters, signal);
    gaps.push(...page.gaps);
    cursor = page.nextCursor;
    count += 1;
  } while (cursor && count < MOST_PAGES);
  return { gaps, count, hasMore: Boolean(cursor) };
}

/** The gap with `losses`: the parts of it that are declared lost. A declaration may reach beyond the gap. */
function withLosses({ first, last, since, lost }) {
  const losses = (lost ?? []).map((loss) => ({
    ...loss, first: Math.max(first, loss.first), last: Math.min(last, loss.last),
  }));
  return { first, last, since, losses };
}

function describe({ processed, completeThrough, exactThrough, highest, missing, lost }) {
  const [count, complete, exact, last] = [processed, completeThrough, exactThrough, highest].map(formatNumber);
  const missed = missing === 0 ? 'No message is' : formatCount(missing, 'message is', 'messages are');
  const given = lost === 0 ? '' : `, ${formatNumber(lost)} declared lost`;
  return `${missed} missing${given}. ${count} processed, complete through ${complete}, exact through ${exact}, `
    + `highest ${last}.`;
}

function makeRow(gap) {
  const { first, last, since, losses } = gap;
  const amount = last - first + 1;
  const lost = losses.reduce((sum, loss) => sum + loss.last - loss.first + 1, 0);
  const time = element('time', { dateTime: since, textContent: formatTime(since), title: formatFullTime(since) });
  const row = element('li', { dataset: { key: JSON.stringify(gap) } });
  const numbers = element('b', { textContent: formatGap([first, last]) });
  row.append(numbers, ` ${formatCount(amount, 'message')}, since `, time);
  if (lost < amount) row.append(' ', makeButton('declare', 'Declare lost…', [first, last]));
  if (losses.length > 0) row.append(element('ul', {}, ...losses.map(makeLoss)));
  return row;
}

function makeLoss({ first, last, reason, declaredAt }) {
  const shown = element('span', { className: 'reason' });
  setValue(shown, reason);
  const row = element('li', { title: `Declared lost at ${formatFullTime(declaredAt)}` });
  row.append(`${formatGap([first, last])} lost: `, shown, ' ', makeButton('withdraw', 'Withdraw…', [first, last]));
  return row;
}

function makeButton(action, textContent, [first, last]) {
  const button = element('button', { type: 'button', textContent, dataset: { action, first, last } });
  button.ariaLabel = `${textContent.replace('…', '')} ${formatGap([first, last])}`;
  return button;
}
