// The live stream of one rocket: an EventSource that also reconnects when the browser gives up.

const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 10_000;

/**
 * Follows `events` while the page is visible: a browser opens only a few connections to a server, and hidden pages must
 * not use them up. `handlers`: `rocket(item)`, `gone()`, and `connecting()`, `live()`, `lost()` for the connection.
 */
export class LiveStream {
  #handlers;
  #source = null;
  #query = null;
  #retry = null;
  #delay = FIRST_RETRY_MS;

  constructor(handlers) {
    this.#handlers = handlers;
    document.addEventListener('visibilitychange', () => this.restart());
  }

  /** Follows the rockets that match the parameters, instead of the previous ones. */
  open(parameters) {
    this.#query = parameters.toString();
    this.#delay = FIRST_RETRY_MS;
    this.restart();
  }

  /** Whether it follows rockets, connected or not. */
  isOpen() {
    return this.#query !== null;
  }

  close() {
    this.#query = null;
    this.restart();
  }

  /** Reconnects: a connection can be dead without the browser noticing. */
  restart() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
    if (this.#query === null || document.hidden) return;
    this.#handlers.connecting();
    this.#connect();
  }

  #connect() {
    const source = new EventSource(`events?${this.#query}`);
    this.#source = source;
    source.addEventListener('open', () => this.#opened());
    source.addEventListener('error', () => this.#failed());
    source.addEventListener('rocket', (event) => this.#handlers.rocket(JSON.parse(event.data)));
    source.addEventListener('gone', () => this.#handlers.gone());
  }

  #opened() {
    this.#delay = FIRST_RETRY_MS;
    this.#handlers.live();
  }

  /** The browser reconnects by itself after an interruption, but gives up when the response is an error. */
  #failed() {
    this.#handlers.lost();
    if (this.#source?.readyState !== EventSource.CLOSED) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.restart(), this.#delay);
    this.#delay = Math.min(this.#delay * 2, LAST_RETRY_MS);
  }
}
