// The button that saves the rows of the current query. A second click cancels.

import { serviceNow } from './api.js';
import { MOST_ROWS, collectCsv, save } from './csv.js';
import { byId, setText } from './dom.js';
import { formatCount, formatNumber } from './format.js';
import { listParameters } from './route.js';

export class Download {
  #query = null;
  #total = null;
  #run = null;

  constructor() {
    byId('csv').addEventListener('click', () => (this.#run ? this.#cancel('Cancelled.') : this.#save()));
  }

  /** The rows to save. Another query cancels the download of the previous one. */
  show(query, total) {
    if (query !== this.#query) this.#cancel('');
    this.#query = query;
    this.#total = total;
    this.#label();
  }

  #cancel(reason) {
    if (this.#run) setText(byId('csv-status'), reason);
    this.#run?.abort();
    this.#run = null;
    this.#label();
  }

  async #save() {
    const run = new AbortController();
    this.#run = run;
    this.#label();
    setText(byId('csv-status'), 'Loading rows…');
    try {
      const parameters = listParameters({ ...this.#query, cursor: '' });
      const csv = await collectCsv(parameters, run.signal, (rows) => this.#progress(rows));
      save(csv, `rockets-${new Date(serviceNow()).toISOString().slice(0, 19).replaceAll(':', '-')}.csv`);
      this.#end(run, 'Saved.');
    } catch (error) {
      this.#end(run, `The rows could not be loaded: ${error.message}`);
    }
  }

  #progress(rows) {
    byId('csv').title = `${formatCount(rows, 'row')} loaded`;
  }

  #end(run, result) {
    if (run !== this.#run) return;
    this.#run = null;
    setText(byId('csv-status'), result);
    this.#label();
  }

  #label() {
    const button = byId('csv');
    button.disabled = !this.#total;
    if (this.#run) return setText(button, 'Cancel');
    const isCut = this.#total > MOST_ROWS;
    const rows = isCut ? `first ${formatNumber(MOST_ROWS)} rows` : `all ${formatCount(this.#total ?? 0, 'row')}`;
    setText(button, this.#total ? `CSV of ${isCut ? 'the ' : ''}${rows}` : 'CSV');
    button.title = 'The rows of all pages, with the current filters and sort. A text that looks like a formula gets an '
      + 'apostrophe in front.';
  }
}
