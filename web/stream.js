// The live stream of rockets: an EventSource that is made again when it gave up, and can be replaced when it seems
// dead.

const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 10_000;

/**
 * Follows `/events`. `handlers`: `rocket(item)`, `gone(channel)`, `live()` when what follows are changes,
 * and `state(name)` with "connecting", "live" or "lost".
 */
export class LiveStream {
  #handlers;
  #source = null;
  #query = null;
  #retry = null;
  #delay = FIRST_RETRY_MS;

  constructor(handlers) {
    this.#handlers = handlers;
  }

  /** Follows what matches the parameters, instead of what was followed before. */
  open(parameters) {
    const query = parameters.toString();
    if (query === this.#query) return;
    this.close();
    this.#query = query;
    this.#delay = FIRST_RETRY_MS;
    this.restart();
  }

  close() {
    this.#disconnect();
    this.#query = null;
  }

  /** Connects anew: a connection can be dead without the browser knowing. */
  restart() {
    if (this.#query === null) return;
    this.#disconnect();
    this.#handlers.state('connecting');
    this.#connect();
  }

  /** Gives the connection up until it is restarted: a browser has few for each server, and other pages need them. */
  pause() {
    this.#disconnect();
  }

  #disconnect() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  #connect() {
    const source = new EventSource(`/events?${this.#query}`);
    this.#source = source;
    source.addEventListener('open', () => this.#opened());
    source.addEventListener('error', () => this.#failed());
    source.addEventListener('rocket', (event) => this.#handlers.rocket(JSON.parse(event.data)));
    source.addEventListener('gone', (event) => this.#handlers.gone(JSON.parse(event.data).channel));
    source.addEventListener('live', () => this.#handlers.live());
  }

  #opened() {
    this.#delay = FIRST_RETRY_MS;
    this.#handlers.state('live');
    // After a short interruption the service goes on where it was, without a "live" event of its own.
    this.#handlers.live();
  }

  /** The browser reconnects by itself after an interruption, but gives up when it is answered with an error. */
  #failed() {
    this.#handlers.state('lost');
    if (this.#source?.readyState !== EventSource.CLOSED) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.restart(), this.#delay);
    this.#delay = Math.min(this.#delay * 2, LAST_RETRY_MS);
  }
}
