// The numbers of a rocket as a bar: processed, missing, and declared lost. With more numbers than pixels, a column
// stands for many of them, and the heights of its parts for their shares. Even a single missing number stays visible.

import { byId, oncePerFrame } from './dom.js';
import { formatCount, formatNumber } from './format.js';
import { svg } from './plot.js';

const HEIGHT = 36;
/** What a column has of something is at least this high. */
const LEAST = 4;

export class RangeBar {
  #container;
  #width = 600;
  #shown = null;
  #renderSoon = oncePerFrame(() => this.#render());

  constructor(container) {
    this.#container = container;
    new ResizeObserver(([{ contentRect }]) => {
      this.#width = Math.max(120, Math.floor(contentRect.width));
      this.#renderSoon();
    }).observe(container);
  }

  /** Shows the numbers from 1 to `last`, with these gaps (`{ first, last, losses }`). `label` describes them. */
  show(gaps, last, label) {
    this.#shown = { gaps, last, label };
    this.#renderSoon();
  }

  clear() {
    this.#shown = null;
    this.#renderSoon();
  }

  #render() {
    if (!this.#shown) return this.#container.replaceChildren();
    const { gaps, last, label } = this.#shown;
    const image = svg('svg', { width: this.#width, height: HEIGHT, role: 'img' });
    image.ariaLabel = label;
    const columns = makeColumns(gaps, last, Math.min(last, this.#width));
    const width = this.#width / columns.length;
    const parts = columns.map(stack);
    const draw = (from, to) => outline(parts, width, from, to);
    const lost = draw(([missing]) => missing, ([missing, given]) => missing + given);
    image.append(
      makeHatch(),
      svg('path', { class: 'missing', d: draw(() => 0, ([missing]) => missing) }),
      svg('path', { class: 'lost', d: lost }),
      svg('path', { fill: 'url(#hatch)', d: lost }),
      svg('path', { class: 'processed', d: draw(([missing, given]) => missing + given, () => HEIGHT) }),
    );
    this.#container.replaceChildren(image);
  }
}

/** The shares of missing and of lost numbers in each column. Takes a step for each gap and for each column. */
export function makeColumns(gaps, last, amount) {
  const columns = Array.from({ length: amount }, () => ({ missing: 0, lost: 0 }));
  const size = last / amount;
  const add = (name, from, to, sign = 1) => {
    const [start, end] = [(from - 1) / size, to / size];
    for (let index = Math.floor(start); index < end && index < amount; index += 1) {
      columns[index][name] += sign * (Math.min(end, index + 1) - Math.max(start, index));
    }
  };
  for (const gap of gaps) {
    add('missing', gap.first, gap.last);
    for (const loss of gap.losses) {
      add('lost', loss.first, loss.last);
      add('missing', loss.first, loss.last, -1);
    }
  }
  return columns;
}

/** The heights of what is missing, lost and processed. The highest part gives up what the others need to be seen. */
function stack({ missing, lost }) {
  const tiny = 1e-9;
  const shares = [missing, lost, 1 - missing - lost];
  const heights = shares.map((share) => (share > tiny ? Math.max(LEAST, Math.round(share * HEIGHT)) : 0));
  const excess = heights.reduce((sum, height) => sum + height, 0) - HEIGHT;
  heights[heights.indexOf(Math.max(...heights))] -= excess;
  return heights;
}

/** A path around a part of all columns; equal neighbours become one rectangle. */
function outline(parts, width, from, to) {
  const drawn = [];
  for (let start = 0, end; start < parts.length; start = end) {
    const [top, bottom] = [from(parts[start]), to(parts[start])];
    end = start + 1;
    while (end < parts.length && from(parts[end]) === top && to(parts[end]) === bottom) end += 1;
    const [left, right] = [start, end].map((column) => (column * width).toFixed(2));
    if (bottom > top) drawn.push(`M${left} ${top}H${right}V${bottom}H${left}Z`);
  }
  return drawn.join('');
}

/** Lines across what is lost, so that it differs by more than its colour. */
function makeHatch() {
  const pattern = svg('pattern', { id: 'hatch', width: 6, height: 6, patternUnits: 'userSpaceOnUse' });
  pattern.append(svg('path', { class: 'hatch', d: 'M0 6L6 0' }));
  return pattern;
}

/** The bar in words. */
export function describeRanges(gaps, { processed, highest, missing, lost }) {
  if (gaps.length === 0) return `${formatNumber(highest)} messages in one range, none missing.`;
  const ranges = gaps.length + (gaps[0].first === 1 ? 0 : 1);
  const parts = [
    `${formatNumber(processed)} processed in ${formatCount(ranges, 'range')}`,
    `${formatNumber(missing)} missing in ${formatCount(gaps.length, 'gap')}`,
    `${formatNumber(lost)} of them declared lost`,
  ];
  return `Messages 1 to ${formatNumber(highest)}: ${parts.join(', ')}.`;
}

export function makeBar(id) {
  return new RangeBar(byId(id));
}
