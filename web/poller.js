// Repeats a request while the page is visible, and shows each answer.

import { UnexpectedResponse } from './api.js';

/**
 * Calls `ask` every `interval` milliseconds while the page is visible, one call at a time, and passes the answer to
 * `show` or the error to `fail`. Neither is called for an answer that arrives after the poller stopped. `ask` gets a
 * signal that is aborted then. An answer that can't be shown is an error too, and polling goes on.
 */
export class Poller {
  #ask;
  #show;
  #fail;
  #interval;
  #timer = null;
  #active = false;
  /** The current run. */
  #run = null;

  constructor({ ask, show, fail }, interval) {
    this.#ask = ask;
    this.#show = show;
    this.#fail = fail;
    this.#interval = interval;
    document.addEventListener('visibilitychange', () => this.soon());
  }

  start() {
    if (this.#active) return;
    this.#active = true;
    this.soon();
  }

  stop() {
    this.#active = false;
    this.#run?.abort();
    this.#run = null;
    clearTimeout(this.#timer);
  }

  /** Asks now, unless a request is running already. */
  soon() {
    clearTimeout(this.#timer);
    if (this.#active && !this.#run && !document.hidden) this.#begin();
  }

  async #begin() {
    const run = new AbortController();
    this.#run = run;
    try {
      await this.#askOnce(run);
    } finally {
      if (run === this.#run) {
        this.#run = null;
        if (!document.hidden) this.#timer = setTimeout(() => this.soon(), this.#interval);
      }
    }
  }

  async #askOnce(run) {
    let answer;
    try {
      answer = await this.#ask(run.signal);
    } catch (error) {
      if (run === this.#run) this.#fail(error);
      return;
    }
    if (run !== this.#run) return;
    try {
      this.#show(answer);
    } catch (error) {
      // The console keeps the cause for developers.
      reportError(error);
      if (run === this.#run) this.#fail(new UnexpectedResponse());
    }
  }
}
