// The filter form above the table, with suggestions of existing values.

import { getReport } from './api.js';
import { byId, element } from './dom.js';
import { FILTERS, hasFilters } from './route.js';

const MOST_SUGGESTIONS = 200;

export class Filters {
  /** Calls `onChange(filters)` with all filters when the user changes one. */
  constructor(onChange) {
    const changed = () => onChange(eachFilter((name) => field(name).value));
    byId('filters').addEventListener('change', changed);
    byId('filters').addEventListener('submit', (event) => {
      event.preventDefault();
      changed();
    });
    byId('clear-filters').addEventListener('click', () => onChange(eachFilter(() => '')));
    field('type').addEventListener('focus', suggestTypes);
  }

  show(query) {
    for (const name of FILTERS) field(name).value = query[name];
    byId('clear-filters').hidden = !hasFilters(query);
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

async function suggestTypes() {
  try {
    suggest('known-types', (await getReport('types')).map((row) => row.type));
  } catch {
    // The filter works without suggestions, and the header shows an outage.
  }
}

function eachFilter(value) {
  return Object.fromEntries(FILTERS.map((name) => [name, value(name)]));
}

function field(name) {
  return byId(`filter-${name}`);
}
