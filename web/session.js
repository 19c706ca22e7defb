// Signing in and out. The service keeps the token in a cookie that no script can read, not even this one. This module
// only remembers whether the user has signed in.

import { readProblem } from './api.js';
import { byId, setText } from './dom.js';

const TIMEOUT_MS = 10_000;
const SIGNED_IN = 'rocket-monitor-signed-in';

/** Connects the header's buttons, and follows sign-ins and sign-outs of other tabs. */
export function startSession() {
  byId('sign-in').addEventListener('click', openDialog);
  byId('sign-out').addEventListener('click', signOut);
  byId('token-form').addEventListener('submit', submitToken);
  byId('sign-out').hidden = !isSignedIn();
  addEventListener('storage', ({ key }) => {
    if (key === SIGNED_IN) location.reload();
  });
}

/** Whether the user has signed in from this browser. */
export function isSignedIn() {
  try {
    return localStorage.getItem(SIGNED_IN) !== null;
  } catch {
    // Without storage, only the sign-out button is missing.
    return false;
  }
}

/** Asks for a token once. After the user closes the dialog, only the header's button opens it. */
export function askForToken() {
  if (!byId('sign-in').hidden) return;
  byId('sign-out').hidden = true;
  byId('sign-in').hidden = false;
  openDialog();
}

/** The service answers again after it asked for a token: the user has signed in, perhaps in another tab. */
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

/** Starts or ends the session. Returns an error message, or "". */
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
