// Repeats a task while the page is visible.

/**
 * Runs `task` every `interval` milliseconds while the page is visible, one run at a time. The task gets a signal that is
 * aborted when the poller stops: a later response must not be shown.
 */
export class Poller {
  #task;
  #interval;
  #timer = null;
  #active = false;
  /** The current run. */
  #run = null;

  constructor(task, interval) {
    this.#task = task;
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

  /** Runs the task now, unless it is running already. */
  soon() {
    clearTimeout(this.#timer);
    if (this.#active && !this.#run && !document.hidden) this.#begin();
  }

  async #begin() {
    const run = new AbortController();
    this.#run = run;
    // The task handles its own failures.
    await this.#task(run.signal);
    if (run !== this.#run) return;
    this.#run = null;
    if (!document.hidden) this.#timer = setTimeout(() => this.soon(), this.#interval);
  }
}
