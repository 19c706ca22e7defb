// The filter form above the table, with suggestions of existing values. Types and missions can be chosen several times:
// each choice is listed below the form, with a button that removes it.

import { getReport } from './api.js';
import { byId, element, setValue } from './dom.js';
import { spellUnseen } from './format.js';
import { LISTS, hasFilters, parseFilters } from './route.js';

const MOST_SUGGESTIONS = 200;
/** A search begins when the user has not typed for this long. */
const PAUSE_MS = 200;
const LABELS = { type: 'Type', mission: 'Mission', channel: 'Channel, exactly' };
/** The fields with one value. */
const FIELDS = ['status', 'missing', 'silentFor', 'channelPrefix'];

export class Filters {
  #onChange;
  #query = null;
  #pause = null;
  /** What the user has typed into the search field since it has the focus; null if nothing. */
  #typed = null;

  /** Calls `onChange(filters, typing)` with all filters; `typing` is true while the user goes on with a search. */
  constructor(onChange) {
    this.#onChange = onChange;
    const form = byId('filters');
    form.addEventListener('change', () => this.#apply());
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#apply();
    });
    byId('clear-filters').addEventListener('click', () => onChange(parseFilters(new URLSearchParams()), false));
    byId('chosen').addEventListener('click', ({ target }) => this.#remove(target.closest('button')));
    field('type').addEventListener('focus', suggestTypes);
    this.#listenForTyping(field('channelPrefix'));
  }

  show(query) {
    this.#query = query;
    for (const name of ['status', 'missing']) choose(field(name), query[name]);
    field('silentFor').value = query.silentFor;
    // The user may have typed more in the meantime.
    if (query.channelPrefix !== this.#typed) field('channelPrefix').value = query.channelPrefix;
    for (const name of LISTS) field(name).value = '';
    this.#showChosen();
    byId('clear-filters').hidden = !hasFilters(query);
  }

  #listenForTyping(search) {
    search.addEventListener('focus', () => { this.#typed = null; });
    search.addEventListener('blur', () => { this.#typed = null; });
    const typed = ({ isComposing }) => {
      clearTimeout(this.#pause);
      if (!isComposing) this.#pause = setTimeout(() => this.#search(search.value), PAUSE_MS);
    };
    search.addEventListener('input', typed);
    search.addEventListener('compositionend', typed);
  }

  /** Only the first search of a word makes a history entry. */
  #search(channelPrefix) {
    const goesOn = this.#typed !== null;
    this.#typed = channelPrefix;
    this.#onChange({ channelPrefix }, goesOn);
  }

  #apply() {
    clearTimeout(this.#pause);
    if (!byId('filters').reportValidity()) return;
    const filters = Object.fromEntries(FIELDS.map((name) => [name, field(name).value]));
    for (const name of LISTS) {
      filters[name] = [...new Set([...this.#query[name], field(name).value])].filter(Boolean);
      field(name).value = '';
    }
    this.#onChange(filters, false);
  }

  #showChosen() {
    const valuesOf = (name) => [this.#query[name]].flat().filter(Boolean);
    const names = [...LISTS, 'channel'];
    const chosen = names.flatMap((name) => valuesOf(name).map((value) => ({ name, value })));
    byId('chosen').replaceChildren(...chosen.map(makeChoice));
    byId('chosen').hidden = chosen.length === 0;
  }

  /** The button disappears, so the focus moves to the field in which the value can be chosen again. */
  #remove(button) {
    if (!button) return;
    const { name, value } = button.dataset;
    const rest = LISTS.includes(name) ? this.#query[name].filter((other) => other !== value) : '';
    this.#onChange({ [name]: rest }, false);
    field(name === 'channel' ? 'channelPrefix' : name).focus();
  }
}

/** Offers completions: the filters need an exact match, which is hard to guess. */
export function suggest(list, values) {
  const known = values.filter((value) => value !== null).slice(0, MOST_SUGGESTIONS);
  const options = [...byId(list).options];
  // Setting the same values again would close the list while it is in use.
  if (options.length === known.length && options.every((option, index) => option.value === known[index])) return;
  byId(list).replaceChildren(...known.map((value) => element('option', { value })));
}

/** Selects a value. The URL may have one that is not offered. */
export function choose(select, value) {
  const isOffered = [...select.options].some((option) => option.value === value);
  if (!isOffered) select.add(new Option(value));
  select.value = value;
}

async function suggestTypes() {
  try {
    suggest('known-types', (await getReport('types', MOST_SUGGESTIONS)).rows.map((row) => row.type));
  } catch {
    // The filter works without suggestions, and the header shows an outage.
  }
}

function makeChoice({ name, value }) {
  const shown = element('b');
  setValue(shown, value);
  const remove = element('button', { type: 'button', textContent: '✕', dataset: { name, value } });
  remove.ariaLabel = `Remove the filter: ${LABELS[name]} ${spellUnseen(value)}`;
  return element('li', {}, `${LABELS[name]} `, shown, ' ', remove);
}

function field(name) {
  return byId(`filter-${name}`);
}
