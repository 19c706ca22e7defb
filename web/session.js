// Signing in and out. The service keeps the token in a cookie that no script can read, this one included; what is kept
// here is only whether somebody has signed in.

import { readProblem } from './api.js';
import { byId, setText } from './dom.js';

const TIMEOUT_MS = 10_000;
const SIGNED_IN = 'rocket-monitor-signed-in';

/** Makes the header's buttons work, and follows what other tabs do. */
export function startSession() {
  byId('sign-in').addEventListener('click', openDialog);
  byId('sign-out').addEventListener('click', signOut);
  byId('token-form').addEventListener('submit', submitToken);
  byId('sign-out').hidden = !isSignedIn();
  addEventListener('storage', ({ key }) => {
    if (key === SIGNED_IN) location.reload();
  });
}

/** Whether somebody has signed in from this browser. */
export function isSignedIn() {
  try {
    return localStorage.getItem(SIGNED_IN) !== null;
  } catch {
    // Without storage nothing is lost but the button.
    return false;
  }
}

/** Asks for a token, once: after the dialog was closed it opens by the header's button. */
export function askForToken() {
  if (!byId('sign-in').hidden) return;
  byId('sign-out').hidden = true;
  byId('sign-in').hidden = false;
  openDialog();
}

/** The service answers again, if it asked for a token: somebody has signed in, perhaps in another tab. */
export function endAsking() {
  if (byId('sign-in').hidden) return;
  byId('sign-in').hidden = true;
  byId('token-dialog').close();
  remember(true);
  byId('sign-out').hidden = !isSignedIn();
}

function openDialog() {
  if (!byId('token-dialog').open) byId('token-dialog').showModal();
}

async function submitToken(event) {
  event.preventDefault();
  const problem = await send('POST', byId('token').value.trim());
  setText(byId('token-problem'), problem);
  if (problem) return;
  byId('token').value = '';
  remember(true);
  location.reload();
}

async function signOut() {
  const problem = await send('DELETE');
  setText(byId('session-problem'), problem && `You are still signed in. ${problem}`);
  if (problem) return;
  remember(false);
  location.reload();
}

/** Begins or ends the session, and returns what went wrong, or "". */
async function send(method, body) {
  try {
    const options = { method, body, headers: { 'Content-Type': 'text/plain' } };
    const response = await fetch('session', { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (response.ok) return '';
    if (response.status === 401 && method === 'POST') return 'The service does not accept this token for reading.';
    return (await readProblem(response)).message;
  } catch {
    return 'The service can’t be reached. Try again.';
  }
}

function remember(signedIn) {
  try {
    if (signedIn) localStorage.setItem(SIGNED_IN, '1');
    else localStorage.removeItem(SIGNED_IN);
  } catch {
    // See `isSignedIn`.
  }
}
