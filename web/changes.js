// The dialog in which an operator declares numbers lost, withdraws that, or forgets a rocket.
//
// The session's cookie holds a read token, which changes nothing. That stays so: a cookie is sent with every request of
// every tab, so one with a write token would let a forgotten tab change the fleet, and a script that got into a page of
// this host write in the user's name. A service with tokens therefore asks for the write token for each change. It is
// sent with this one request, as a header that no other site can set, and then forgotten. A service without tokens
// accepts the requests of its own pages; it refuses other sites by their Origin.

import { change } from './api.js';
import { byId, setText, setValue } from './dom.js';
import { formatCount } from './format.js';
import { isSignedIn } from './session.js';

const KINDS = {
  declare: {
    heading: 'Declare messages lost',
    text: 'The exact view goes on across numbers that are declared lost. If one of these messages arrives after all, '
      + 'it counts like any other.',
    button: 'Declare lost',
    send: (path, { first, last, reason }, token) => change('POST', `${path}/losses`, { first, last, reason }, token),
    done: ({ lost }) => `${formatCount(lost, 'number is', 'numbers are')} newly declared lost.`,
  },
  withdraw: {
    heading: 'Withdraw the declaration',
    text: 'The exact view ends again before the first of these numbers.',
    button: 'Withdraw',
    send: (path, { first, last }, token) => {
      return change('DELETE', `${path}/losses?${new URLSearchParams({ first, last })}`, null, token);
    },
    done: ({ withdrawn }) => `${formatCount(withdrawn, 'number is', 'numbers are')} no longer declared lost.`,
  },
  forget: {
    heading: 'Forget this rocket',
    text: 'Its state and the record of its messages are removed for good. Copies of its messages that arrive later '
      + 'count again, as those of a new rocket.',
    button: 'Forget this rocket',
    send: (path, values, token) => change('DELETE', path, null, token),
    done: () => 'The rocket is forgotten.',
  },
};

export class Changes {
  #onChanged;
  #kind = null;
  #channel = null;
  #needsToken = false;

  /** Calls `onChanged()` after a change. */
  constructor(onChanged) {
    this.#onChanged = onChanged;
    byId('change-form').addEventListener('submit', (event) => this.#submit(event));
    byId('change-cancel').addEventListener('click', () => byId('change-dialog').close());
    byId('change-dialog').addEventListener('close', forgetToken);
  }

  /** Asks for what a change needs. */
  open(kind, channel, { first = '', last = '' } = {}) {
    this.#kind = KINDS[kind];
    this.#channel = channel;
    setText(byId('change-heading'), this.#kind.heading);
    setValue(byId('change-channel'), channel);
    setText(byId('change-text'), this.#kind.text);
    setText(byId('change-submit'), this.#kind.button);
    setText(byId('change-problem'), '');
    setText(byId('change-status'), '');
    [byId('change-first').value, byId('change-last').value, byId('change-reason').value] = [first, last, ''];
    setNeeded('change-numbers', kind !== 'forget');
    setNeeded('change-reason-line', kind === 'declare');
    setNeeded('change-token-line', this.#needsToken || isSignedIn());
    byId('change-dialog').showModal();
  }

  close() {
    byId('change-dialog').close();
    setText(byId('change-status'), '');
  }

  async #submit(event) {
    event.preventDefault();
    const [kind, button] = [this.#kind, byId('change-submit')];
    const [first, last] = ['change-first', 'change-last'].map((id) => Number(byId(id).value));
    const values = { first, last, reason: byId('change-reason').value };
    button.disabled = true;
    try {
      const path = `rockets/${encodeURIComponent(this.#channel)}`;
      const result = await kind.send(path, values, byId('change-token').value.trim());
      byId('change-dialog').close();
      setText(byId('change-status'), kind.done(result));
      this.#onChanged();
    } catch (error) {
      this.#explain(error);
    } finally {
      button.disabled = false;
    }
  }

  #explain(error) {
    if (error.status !== 401) {
      const isAnswered = error.status !== undefined;
      return setText(byId('change-problem'), isAnswered ? error.message : 'The service can’t be reached. Try again.');
    }
    const asked = this.#needsToken || isSignedIn();
    this.#needsToken = true;
    setNeeded('change-token-line', true);
    byId('change-token').focus();
    const refused = 'The service does not accept this token for writing.';
    setText(byId('change-problem'), asked ? refused : 'This service requires a write token.');
  }
}

/** Shows or hides a line. The fields of a hidden one are not required. */
function setNeeded(id, isNeeded) {
  byId(id).hidden = !isNeeded;
  for (const field of byId(id).querySelectorAll('input')) field.disabled = !isNeeded;
}

function forgetToken() {
  byId('change-token').value = '';
}

