// Whether the page is up to date: shown in the header, in a banner, and by a sign on the parts that are stale.
//
// A page gets its data from sources: repeated requests, and a rocket's stream. Each has a name. The parts of the page
// that depend on it name it in `data-source`.

import { Problem, UnexpectedResponse, serviceNow } from './api.js';
import { byId, setText } from './dom.js';
import { formatClock, formatDuration } from './format.js';

const LABELS = { connecting: 'Connecting', live: 'Live', lost: 'Connection lost', locked: 'Not signed in' };
/** These can be refused under load. That doesn't mean a lost connection: only their part of the page is stale. */
const MINOR = ['missions', 'activity', 'gaps'];
/** How long the banner says that the connection is back. */
const BACK_MS = 8_000;

export class Connection {
  /** Called when a source works again after it failed. */
  onRecovered = () => {};
  /** Called when the service asks for a token. */
  onTokenWanted = () => {};
  /** Called with the state whenever that changes: "connecting", "live", "lost" or "locked". */
  onChange = () => {};

  /** The result of each source's last attempt: "waiting", "live" or an error. */
  #sources = new Map();
  #state = 'connecting';
  #lostSince = null;
  #latestSuccess = null;
  #hideBanner = null;

  get state() {
    return this.#state;
  }

  /** The page needs this source. Until it answers, the page is connecting. */
  wait(source) {
    if (this.#sources.has(source)) return;
    this.#sources.set(source, 'waiting');
    this.#update();
  }

  succeed(source) {
    const failed = this.#sources.get(source) instanceof Error;
    this.#sources.set(source, 'live');
    this.#latestSuccess = serviceNow();
    this.#update();
    if (failed) this.onRecovered();
  }

  fail(source, error) {
    this.#sources.set(source, error);
    this.#update();
    if (isTokenWanted(error)) this.onTokenWanted();
  }

  /** The page no longer needs this source. */
  drop(source) {
    this.#sources.delete(source);
    this.#update();
  }

  #update() {
    const state = this.#nextState();
    this.#markStale(state);
    const changed = state !== this.#state;
    this.#state = state;
    if (state === 'lost') this.#showLost();
    if (state === 'live' && changed) this.#showBack();
    if (state === 'locked' && changed) this.#endLost();
    if (!changed) return;
    const sign = byId('connection');
    sign.dataset.state = state;
    setText(sign, LABELS[state]);
    document.documentElement.dataset.connection = state;
    this.onChange(state);
  }

  #nextState() {
    const results = this.#results();
    // The user has not signed in yet, so the page shows nothing that could be stale.
    if (this.#latestSuccess === null && results.some(isTokenWanted)) return 'locked';
    if (results.some((result) => result instanceof Error)) return 'lost';
    if (results.length > 0 && !results.includes('waiting')) return 'live';
    // A new page is loading: the banner stays until it works.
    return this.#lostSince === null ? 'connecting' : 'lost';
  }

  #results() {
    return [...this.#sources].filter(([source]) => !MINOR.includes(source)).map(([, result]) => result);
  }

  #markStale(state) {
    const unreachable = this.#results().some(isNoAnswer);
    const hasFailed = (source) => this.#sources.get(source) instanceof Error;
    for (const part of document.querySelectorAll('[data-source]')) {
      const stale = unreachable || part.dataset.source.split(' ').some(hasFailed);
      part.toggleAttribute('data-stale', stale && state !== 'locked');
    }
  }

  #showLost() {
    this.#lostSince ??= serviceNow();
    clearTimeout(this.#hideBanner);
    const latest = this.#latestSuccess === null ? '' : ` Last update: ${formatClock(this.#latestSuccess)} UTC.`;
    this.#setBanner(`${this.#reason()}${latest} Retrying…`);
  }

  #reason() {
    const error = this.#results().find((result) => result instanceof Error);
    if (isTokenWanted(error)) return 'The service requires a token again.';
    if (error instanceof Problem) return `The service returned error ${error.status}: ${error.message}`;
    if (error instanceof UnexpectedResponse) return error.message;
    if (error?.name === 'TimeoutError') return 'The service does not answer.';
    return 'The service can’t be reached.';
  }

  #showBack() {
    if (this.#lostSince === null) return;
    const duration = formatDuration(serviceNow() - this.#lostSince);
    this.#lostSince = null;
    this.#setBanner(`Connected again after ${duration}.`);
    this.#hideBanner = setTimeout(() => this.#setBanner(''), BACK_MS);
  }

  /** The service answered, so whatever the banner said about it is outdated. */
  #endLost() {
    this.#lostSince = null;
    this.#setBanner('');
  }

  #setBanner(text) {
    const banner = byId('banner');
    setText(banner, text);
    banner.dataset.state = this.#state;
  }
}

/** Whether the error means that the service didn't answer at all. */
function isNoAnswer(result) {
  return result instanceof Error && !(result instanceof Problem) && !(result instanceof UnexpectedResponse);
}

function isTokenWanted(error) {
  return error instanceof Problem && error.status === 401;
}
