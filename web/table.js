// The table's rows: made once for each channel, then changed in place, at most once a frame.

import { serviceNow } from './api.js';
import { element, oncePerFrame } from './dom.js';
import { UNKNOWN, formatAge, formatFullTime, formatNumber, formatStatus, formatTime } from './format.js';
import { rocketHash } from './route.js';

/** A launched rocket that has said nothing for so long is marked. */
const SILENT_AFTER_MS = 5 * 60_000;
const HIGHLIGHT_MS = 700;

/** `write` says what else a cell shows; `cardLabel` is for small screens; `steady` ones change with
 * each message and are not highlighted, so that what matters is. */
const COLUMNS = [
  { name: 'channel', sort: 'channel', label: 'Channel', text: (item) => item.channel, write: writeChannel },
  { name: 'status', sort: 'status', label: 'Status', text: (item) => formatStatus(item.status), write: writeStatus },
  { name: 'type', sort: 'type', label: 'Type', text: (item) => item.type ?? UNKNOWN, write: writeTitle },
  { name: 'mission', sort: 'mission', label: 'Mission', text: (item) => item.mission ?? UNKNOWN, write: writeTitle },
  { name: 'speed', sort: 'speed', label: 'Speed', text: (item) => formatNumber(item.speed) },
  { name: 'latest-update', sort: 'latestUpdate', label: 'Latest update (UTC)', steady: true,
    text: (item) => formatTime(item.latestUpdate), write: writeLatestUpdate },
  { name: 'last-received', label: 'Last received', steady: true,
    text: (item) => formatAge(item.lastReceived, serviceNow()), write: writeLastReceived },
  { name: 'messages', label: 'Processed / missing', cardLabel: 'Messages',
    text: writtenMessages, write: writeMessages },
];

export class RocketTable {
  #head;
  #body;
  #rows = new Map();
  #pending = new Map();
  #applySoon = oncePerFrame(() => this.#apply());
  #canHover = matchMedia('(hover: hover)');

  /** `onSort(name)` is called with the name of the sort that was chosen. */
  constructor(table, onSort) {
    this.#head = table.tHead.rows[0];
    this.#body = table.tBodies[0];
    this.#head.append(...COLUMNS.map(makeHeading));
    this.#head.addEventListener('click', ({ target }) => {
      const sort = target.closest('button')?.dataset.sort;
      if (sort) onSort(sort);
    });
  }

  showSort({ sort, order }) {
    for (const heading of this.#head.cells) {
      const sorted = heading.firstElementChild?.dataset.sort === sort;
      if (sorted) heading.ariaSort = order === 'asc' ? 'ascending' : 'descending';
      else heading.removeAttribute('aria-sort');
    }
  }

  has(channel) {
    return this.#rows.has(channel);
  }

  /** Shows these rockets in this order. A row that the stream has told something newer of keeps it. */
  render(items) {
    const rows = new Map();
    let place = this.#body.firstElementChild;
    for (const item of items) {
      const row = this.#rows.get(item.channel) ?? new Row(item);
      rows.set(item.channel, row);
      row.update(newest(item, this.#pending.get(item.channel) ?? row.item));
      if (row.tr === place) place = place.nextElementSibling;
      else this.#body.insertBefore(row.tr, place);
    }
    for (const [channel, row] of this.#rows) if (!rows.has(channel)) row.tr.remove();
    this.#rows = rows;
    this.#pending.clear();
  }

  /** Changes a rocket's row in the next frame, if it has one. */
  update(item) {
    if (!this.#rows.has(item.channel)) return;
    this.#pending.set(item.channel, item);
    this.#applySoon();
  }

  /** Marks a rocket that no longer belongs here, until the page is rendered again. */
  markGone(channel) {
    this.#pending.delete(channel);
    const row = this.#rows.get(channel);
    if (row) row.tr.dataset.gone = '';
  }

  /** Ages pass without events. */
  refreshAges() {
    for (const row of this.#rows.values()) row.show();
  }

  /** Whether somebody is pointing at, working in or selecting from the rows, which then must not move. */
  isHeld() {
    const pointedAt = this.#canHover.matches && this.#body.matches(':hover');
    return pointedAt || this.#body.contains(document.activeElement) || this.#isSelected();
  }

  #isSelected() {
    const selection = getSelection();
    return !selection.isCollapsed && selection.rangeCount > 0 && selection.getRangeAt(0).intersectsNode(this.#body);
  }

  #apply() {
    const changed = [];
    for (const [channel, item] of this.#pending) changed.push(...this.#rows.get(channel).update(item));
    this.#pending.clear();
    highlight(changed);
  }
}

/** A table row and the item that it shows. */
class Row {
  tr = element('tr');
  item;
  #cells = COLUMNS.map(makeCell);
  #texts = [];

  constructor(item) {
    this.item = item;
    this.tr.dataset.channel = item.channel;
    this.tr.append(...this.#cells);
  }

  /** Shows a newer item, and returns the cells that are to be highlighted. */
  update(item) {
    this.item = item;
    delete this.tr.dataset.gone;
    return this.show();
  }

  /** Shows the item as it is now, and returns the cells whose values changed, but for the steady ones. */
  show() {
    return this.#cells.filter((cell, index) => this.#write(cell, index) && !COLUMNS[index].steady);
  }

  /** Writes only what differs; most cells stay as they are. */
  #write(cell, index) {
    const { text, write } = COLUMNS[index];
    const written = text(this.item);
    const differs = written !== this.#texts[index];
    if (differs) {
      cell.firstElementChild.textContent = written;
      this.#texts[index] = written;
    }
    write?.(cell, this.item, differs);
    return differs;
  }
}

function makeHeading({ name, sort, label }) {
  const content = sort ? element('button', { type: 'button', textContent: label, dataset: { sort } }) : label;
  return element('th', { scope: 'col', className: name }, content);
}

function makeCell({ name, label, cardLabel = label }) {
  const tag = name === 'channel' ? 'a' : 'span';
  return element('td', { className: name, dataset: { label: cardLabel } }, element(tag));
}

function writeChannel(cell, item, differs) {
  if (!differs) return;
  cell.firstElementChild.href = rocketHash(item.channel);
  cell.title = item.channel;
}

function writeStatus(cell, item, differs) {
  if (differs) cell.firstElementChild.dataset.status = item.status;
  cell.title = item.explodedReason ? `Reason: ${item.explodedReason}` : '';
}

function writeTitle(cell, item, differs) {
  if (differs) cell.title = cell.firstElementChild.textContent;
}

function writeLatestUpdate(cell, item) {
  cell.title = formatFullTime(item.latestUpdate);
}

function writeLastReceived(cell, item) {
  const silent = item.status === 'launched' && serviceNow() - Date.parse(item.lastReceived) > SILENT_AFTER_MS;
  cell.title = formatFullTime(item.lastReceived) + (silent ? ': launched, but silent for more than 5 minutes' : '');
  cell.classList.toggle('silent', silent);
}

function writtenMessages({ messages }) {
  return `${formatNumber(messages.processed)} / ${formatNumber(messages.missing)}`;
}

function writeMessages(cell, { messages }) {
  cell.title = `${formatNumber(messages.processed)} processed, ${formatNumber(messages.missing)} missing`;
  cell.classList.toggle('incomplete', messages.missing > 0);
}

function newest(fetched, known) {
  return known && known.lastReceived > fetched.lastReceived ? known : fetched;
}

/** Cells stay marked for a moment; one that changes again meanwhile stays marked for longer. */
const highlights = new Map();

function highlight(cells) {
  if (cells.length === 0) return;
  const end = performance.now() + HIGHLIGHT_MS;
  for (const cell of cells) {
    cell.classList.add('changed');
    highlights.set(cell, end);
  }
  setTimeout(() => endHighlights(cells), HIGHLIGHT_MS + 10);
}

function endHighlights(cells) {
  const now = performance.now();
  for (const cell of cells) {
    if (!(highlights.get(cell) <= now)) continue;
    highlights.delete(cell);
    cell.classList.remove('changed');
  }
}
