// Asks for something again and again, while somebody looks.

/** Runs `task` every `interval` milliseconds while the page is visible, never twice at a time. */
export class Poller {
  #task;
  #interval;
  #timer = null;
  #running = false;
  #active = false;

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
    clearTimeout(this.#timer);
  }

  /** Runs at once, unless it runs already or nobody looks. */
  soon() {
    clearTimeout(this.#timer);
    if (this.#active && !this.#running && !document.hidden) this.#run();
  }

  async #run() {
    this.#running = true;
    // The task deals with its own failures.
    await this.#task();
    this.#running = false;
    if (this.#active && !document.hidden) this.#timer = setTimeout(() => this.soon(), this.#interval);
  }
}
