// How close together the rows are: the user's choice, kept by the browser if it can.

import { byId } from './dom.js';

const KEY = 'density';
const CHOICES = ['comfortable', 'compact'];

export function startDensity() {
  const select = byId('density');
  const stored = read();
  select.value = CHOICES.includes(stored) ? stored : CHOICES[0];
  document.documentElement.dataset.density = select.value;
  select.addEventListener('change', () => {
    document.documentElement.dataset.density = select.value;
    write(select.value);
  });
}

/** A browser may deny access to its storage; then the choice lasts as long as the page. */
function read() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function write(value) {
  try {
    localStorage.setItem(KEY, value);
  } catch {
    // See above.
  }
}
