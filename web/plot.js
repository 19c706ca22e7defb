// A plot of a value over time, as SVG: a step line, because a value holds until the next one.
//
// The colours are in the style sheet.

import { byId, oncePerFrame } from './dom.js';
import { formatClock, formatDuration, formatNumber, formatShortNumber } from './format.js';

const MOST_POINTS = 600;
const MARGIN = { top: 12, right: 16, bottom: 40, left: 72 };
/** For a width of 600 pixels; a wider plot has more. */
const MOST_X_LABELS = 6;
const Y_STEPS = 5;
const SHORTEST_SPAN_MS = 10_000;
const X_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

export class Plot {
  #container;
  #label;
  #height;
  #startsAtZero;
  /** Describes the plot in words, if not by its values. */
  #description = null;
  #points = [];
  #until = 0;
  #width = 600;
  #renderSoon = oncePerFrame(() => this.#render());

  constructor(container, { label, height = 280, startsAtZero = false }) {
    this.#container = container;
    this.#label = label;
    this.#height = height;
    this.#startsAtZero = startsAtZero;
    new ResizeObserver(([{ contentRect }]) => {
      this.#width = Math.max(240, contentRect.width);
      this.#renderSoon();
    }).observe(container);
  }

  clear() {
    this.#points = [];
    this.#until = 0;
    this.#renderSoon();
  }

  /** Shows these points instead of the earlier ones. The last value holds until then. */
  replace(points, until, description) {
    this.#points = points;
    this.#until = until;
    this.#description = description;
    this.#renderSoon();
  }

  /** Adds a value; null means that it is unknown from then on. */
  add(time, value) {
    const latest = this.#points.at(-1);
    if (latest?.value === value) return this.extend(time);
    if (value === null && !latest) return;
    this.#points.push({ time, value });
    if (this.#points.length > MOST_POINTS) this.#points = thinOut(this.#points);
    this.extend(time);
  }

  /** The latest value still holds. */
  extend(time) {
    this.#until = Math.max(time, this.#until);
    this.#renderSoon();
  }

  /** Describes the plot in words. */
  describe() {
    if (this.#description !== null) return this.#description;
    const values = this.#values();
    if (values.length === 0) return 'No speed is known yet.';
    const duration = formatDuration(this.#until - this.#points[0].time);
    if (values.length === 1) return `${formatNumber(values[0])}, unchanged for ${duration}.`;
    const [latest, lowest, highest] = [values.at(-1), Math.min(...values), Math.max(...values)].map(formatNumber);
    return `Now ${latest}. Between ${lowest} and ${highest} in ${duration}.`;
  }

  #values() {
    return this.#points.map((point) => point.value).filter((value) => value !== null);
  }

  #render() {
    const values = this.#values();
    if (values.length === 0) return this.#container.replaceChildren();
    const size = { width: this.#width, height: this.#height, viewBox: `0 0 ${this.#width} ${this.#height}` };
    const image = svg('svg', { ...size, role: 'img' });
    image.ariaLabel = `${this.#label} over time (UTC). ${this.describe()}`;
    const x = this.#timeScale();
    const y = this.#valueScale(values);
    image.append(...drawValueAxis(y, this.#width), ...drawTimeAxis(x, y.bottom), ...this.#drawLine(x, y));
    this.#container.replaceChildren(image);
  }

  #timeScale() {
    const from = this.#points[0].time;
    return scale([from, Math.max(this.#until, from + SHORTEST_SPAN_MS)], [MARGIN.left, this.#width - MARGIN.right]);
  }

  /** The scale runs from a round number below the values to one above them. */
  #valueScale(values) {
    const lowest = Math.min(...values, ...(this.#startsAtZero ? [0] : []));
    const highest = Math.max(...values);
    const step = roundStep((highest - lowest || Math.abs(highest) || 1) / Y_STEPS);
    const domain = [Math.floor(lowest / step) * step, Math.ceil(highest / step) * step];
    if (domain[0] === domain[1]) domain.splice(0, 2, domain[0] - (this.#startsAtZero ? 0 : step), domain[1] + step);
    const bottom = this.#height - MARGIN.bottom;
    return Object.assign(scale(domain, [bottom, MARGIN.top]), { step, bottom });
  }

  #drawLine(x, y) {
    const path = svg('path', { class: 'line', d: linePath(this.#points, this.#until, x, y) });
    const latest = this.#points.at(-1);
    if (latest.value === null) return [path];
    return [path, svg('circle', { class: 'latest', cx: x(this.#until), cy: y(latest.value), r: 4 })];
  }
}

export function makePlot(id, options) {
  return new Plot(byId(id), options);
}

/** Halves the points, but keeps the extremes: the lowest and the highest of every four, and every interruption. */
function thinOut(points) {
  const kept = [];
  for (let start = 0; start < points.length; start += 4) {
    const group = points.slice(start, start + 4);
    const known = group.filter((point) => point.value !== null);
    const byValue = known.toSorted((a, b) => a.value - b.value);
    kept.push(...group.filter((point) => point.value === null || point === byValue[0] || point === byValue.at(-1)));
  }
  // The line starts at the first point, and the latest point is the current value.
  if (kept[0] !== points[0]) kept.unshift(points[0]);
  if (kept.at(-1) !== points.at(-1)) kept.push(points.at(-1));
  return kept;
}

function linePath(points, until, x, y) {
  const parts = [];
  let drawing = false;
  for (const { time, value } of points) {
    const [across, down] = [x(time).toFixed(1), y(value).toFixed(1)];
    if (drawing) parts.push(`H${across}`);
    if (value !== null) parts.push(drawing ? `V${down}` : `M${across} ${down}`);
    drawing = value !== null;
  }
  if (drawing) parts.push(`H${x(until).toFixed(1)}`);
  return parts.join('');
}

function drawValueAxis(y, width) {
  const drawn = [];
  const [from, to] = y.domain;
  const amount = Math.round((to - from) / y.step);
  for (let index = 0; index <= amount; index += 1) {
    const value = from + index * y.step;
    const height = y(value).toFixed(1);
    drawn.push(svg('line', { class: 'grid', x1: MARGIN.left, x2: width - MARGIN.right, y1: height, y2: height }));
    drawn.push(label(formatShortNumber(value), { x: MARGIN.left - 8, y: height, 'text-anchor': 'end', dy: '0.35em' }));
  }
  return drawn;
}

function drawTimeAxis(x, bottom) {
  const [from, to] = x.domain;
  const seconds = (to - from) / 1000;
  const most = Math.max(2, MOST_X_LABELS * x.size / 600);
  const step = 1000 * (X_STEPS_S.find((candidate) => seconds / candidate <= most) ?? X_STEPS_S.at(-1));
  const drawn = [];
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    const place = x(time).toFixed(1);
    drawn.push(svg('line', { class: 'tick', x1: place, x2: place, y1: bottom, y2: bottom + 5 }));
    // A centred label at the right edge would be cut off.
    const anchor = to - time < step / 3 ? 'end' : 'middle';
    drawn.push(label(formatClock(time), { x: place, y: bottom + 18, 'text-anchor': anchor }));
  }
  drawn.push(label('UTC', { x: x(to).toFixed(1), y: bottom + 34, 'text-anchor': 'end' }));
  return drawn;
}

function scale(domain, range) {
  const factor = (range[1] - range[0]) / (domain[1] - domain[0]);
  const place = (value) => range[0] + (value - domain[0]) * factor;
  return Object.assign(place, { domain, size: Math.abs(range[1] - range[0]) });
}

/** 1, 2 or 5 times a power of ten. */
function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= step);
  return Math.max(1, factor * power);
}

export function svg(tag, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function label(text, attributes) {
  const made = svg('text', attributes);
  made.textContent = text;
  return made;
}
