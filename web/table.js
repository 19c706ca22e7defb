// The table's rows: created once per channel, then updated in place.

import { serviceNow } from './api.js';
import { element, setValue } from './dom.js';
import { formatAge, formatFullTime, formatNumber, formatStatus, formatTime, spellUnseen } from './format.js';
import { rocketHash } from './route.js';

/** A launched rocket is marked after it has been silent for this long. */
const SILENT_AFTER_MS = 5 * 60_000;
const HIGHLIGHT_MS = 700;

/**
 * `text` returns a cell's text, null if unknown; `write` adds the rest. `cardLabel` is for small screens. `steady` cells
 * change with every message: they are not highlighted, so that other changes stand out.
 */
const COLUMNS = [
  { name: 'channel', sort: 'channel', label: 'Channel', text: (item) => item.channel, write: writeChannel },
  { name: 'status', sort: 'status', label: 'Status', text: (item) => formatStatus(item.status), write: writeStatus },
  { name: 'type', sort: 'type', label: 'Type', text: (item) => item.type, write: writeType },
  { name: 'mission', sort: 'mission', label: 'Mission', text: (item) => item.mission, write: writeMission },
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
  #canHover = matchMedia('(hover: hover)');

  /** Calls `onSort(name)` with the chosen sort. */
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

  /** Shows these rockets in this order. */
  render(items) {
    const rows = new Map();
    const changed = [];
    // An item that can't be shown throws here, before any row has moved.
    for (const item of items) {
      const known = this.#rows.get(item.channel);
      if (known) changed.push(...known.update(item));
      rows.set(item.channel, known ?? new Row(item));
    }
    let place = this.#body.firstElementChild;
    for (const row of rows.values()) {
      if (row.tr === place) place = place.nextElementSibling;
      else this.#body.insertBefore(row.tr, place);
    }
    for (const [channel, row] of this.#rows) if (!rows.has(channel)) row.tr.remove();
    this.#rows = rows;
    highlight(changed);
  }

  /**
   * Shows the values of these rockets, but leaves each row where it is. A row whose rocket is not among them is marked,
   * because its values are outdated. Returns whether `render` would change the order of the rows.
   */
  update(items) {
    const byChannel = new Map(items.map((item) => [item.channel, item]));
    const changed = [];
    for (const [channel, row] of this.#rows) {
      if (byChannel.has(channel)) changed.push(...row.update(byChannel.get(channel)));
      else row.markGone();
    }
    highlight(changed);
    const shown = [...this.#rows.keys()];
    return shown.length !== items.length || items.some((item, place) => item.channel !== shown[place]);
  }

  /** Ages grow without messages. */
  refreshAges() {
    for (const row of this.#rows.values()) row.show();
  }

  /** Whether the user points at, works in or selects from the rows: then they must not move. */
  isHeld() {
    const pointedAt = this.#canHover.matches && this.#body.matches(':hover');
    return pointedAt || this.#body.contains(document.activeElement) || this.#isSelected();
  }

  #isSelected() {
    const selection = getSelection();
    return !selection.isCollapsed && selection.rangeCount > 0 && selection.getRangeAt(0).intersectsNode(this.#body);
  }
}

/** A table row and the item that it shows. */
class Row {
  tr = element('tr');
  #item;
  #cells = COLUMNS.map(makeCell);
  #texts = [];

  constructor(item) {
    this.#item = item;
    this.tr.dataset.channel = item.channel;
    this.tr.append(...this.#cells);
    this.show();
  }

  /** Shows a newer item, and returns the cells to highlight. */
  update(item) {
    this.#item = item;
    delete this.tr.dataset.gone;
    this.tr.title = '';
    return this.show();
  }

  markGone() {
    this.tr.dataset.gone = '';
    this.tr.title = 'This rocket is no longer on this page of the table. These are its last values here.';
  }

  /** Shows the item as it is now, and returns the cells whose values changed, except steady ones. */
  show() {
    return this.#cells.filter((cell, index) => this.#write(cell, index) && !COLUMNS[index].steady);
  }

  /** Writes only what differs; most cells stay as they are. */
  #write(cell, index) {
    const { text, write } = COLUMNS[index];
    const written = text(this.#item);
    const differs = written !== this.#texts[index];
    if (differs) {
      setValue(cell.firstElementChild, written);
      this.#texts[index] = written;
    }
    write?.(cell, this.#item, differs);
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

function writeChannel(cell, { channel }, differs) {
  if (!differs) return;
  cell.firstElementChild.href = rocketHash(channel);
  cell.title = spellUnseen(channel);
}

function writeStatus(cell, { status, explodedReason }, differs) {
  if (differs) cell.firstElementChild.dataset.status = status;
  cell.title = explodedReason ? `Reason: ${spellUnseen(explodedReason)}` : '';
}

function writeType(cell, { type }, differs) {
  if (differs) cell.title = type === null ? 'No type is known' : spellUnseen(type);
}

function writeMission(cell, { mission }, differs) {
  if (differs) cell.title = mission === null ? 'No mission is known' : spellUnseen(mission);
}

function writeLatestUpdate(cell, { latestUpdate }) {
  cell.title = formatFullTime(latestUpdate);
}

function writeLastReceived(cell, { status, lastReceived }) {
  const silent = status === 'launched' && serviceNow() - Date.parse(lastReceived) > SILENT_AFTER_MS;
  cell.title = formatFullTime(lastReceived) + (silent ? '. Launched, but silent for more than 5 minutes.' : '');
  cell.classList.toggle('silent', silent);
}

function writtenMessages({ messages }) {
  return `${formatNumber(messages.processed)} / ${formatNumber(messages.missing)}`;
}

function writeMessages(cell, { messages }) {
  const lost = messages.lost > 0 ? `, ${formatNumber(messages.lost)} of them declared lost` : '';
  cell.title = `${formatNumber(messages.processed)} processed, ${formatNumber(messages.missing)} missing${lost}`;
  cell.classList.toggle('incomplete', messages.missing > 0);
}

/** Cells stay highlighted for a moment. A cell that changes again in that time stays highlighted for longer. */
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
