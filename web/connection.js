// Whether what is on the page is current: from the live stream and from requests, shown in the header and as a banner.

import { Problem, serviceNow } from './api.js';
import { byId, setText } from './dom.js';
import { formatClock, formatDuration } from './format.js';

const LABELS = { connecting: 'Connecting', live: 'Live', lost: 'Connection lost' };
/** How long it is said that the connection is back. */
const BACK_MS = 8_000;

export class Connection {
  /** Called when requests succeed again after they failed: the stream may have died unnoticed meanwhile. */
  onRequestsBack = () => {};
  /** Called when the service asks for a token. */
  onTokenWanted = () => {};
  /** Called with "connecting", "live" or "lost" whenever that changes. */
  onChange = () => {};

  #stream = 'connecting';
  #failure = null;
  #state = 'connecting';
  #lostSince = null;
  #hideBanner = null;

  get state() {
    return this.#state;
  }

  setStream(state) {
    this.#stream = state;
    this.#update();
  }

  requestSucceeded() {
    if (!this.#failure) return;
    this.#failure = null;
    this.#update();
    this.onRequestsBack();
  }

  requestFailed(error) {
    this.#failure = error;
    this.#update();
    if (error instanceof Problem && error.status === 401) this.onTokenWanted();
  }

  #update() {
    const state = this.#nextState();
    const changed = state !== this.#state;
    this.#state = state;
    if (state === 'lost') this.#showLost();
    if (state === 'live' && changed) this.#showBack();
    if (!changed) return;
    const sign = byId('connection');
    sign.dataset.state = state;
    setText(sign, LABELS[state]);
    document.documentElement.dataset.connection = state;
    this.onChange(state);
  }

  #nextState() {
    if (this.#failure || this.#stream === 'lost') return 'lost';
    // Another page's stream begins: not a reason to take the banner away until it is live.
    if (this.#stream === 'connecting' && this.#lostSince !== null) return 'lost';
    return this.#stream;
  }

  #showLost() {
    this.#lostSince ??= serviceNow();
    clearTimeout(this.#hideBanner);
    const since = formatClock(this.#lostSince);
    this.#setBanner(`${this.#reason()} Since ${since} UTC nothing here is up to date. Trying again…`);
  }

  #reason() {
    if (!(this.#failure instanceof Problem)) return 'The live connection is lost.';
    if (this.#failure.status === 401) return 'This service asks for a token.';
    return `The service answers with an error (${this.#failure.message}).`;
  }

  #showBack() {
    if (this.#lostSince === null) return;
    const lostFor = formatDuration(serviceNow() - this.#lostSince);
    this.#lostSince = null;
    this.#setBanner(`Live again, after ${lostFor}.`);
    this.#hideBanner = setTimeout(() => this.#setBanner(''), BACK_MS);
  }

  #setBanner(text) {
    const banner = byId('banner');
    setText(banner, text);
    banner.dataset.state = this.#state;
  }
}
