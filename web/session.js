// Signing in and out. The service keeps the token in a cookie that no script can read, not even this one. Each response
// says whether the user is signed in, so the page remembers nothing that could contradict the cookie.

import { readProblem, watchSession } from './api.js';
import { byId, setText } from './dom.js';

const TIMEOUT_MS = 10_000;

/** Tells the service's other tabs about sign-ins and sign-outs. */
const tabs = new BroadcastChannel('session');

/** Whether the latest response was to a signed-in user; null before the first one. */
let known = null;

/** Connects the header's buttons. Calls `onChange(signedIn)` when the user turns out to be signed in or out. */
export function startSession(onChange) {
  byId('sign-in').addEventListener('click', openDialog);
  byId('sign-out').addEventListener('click', signOut);
  byId('token-form').addEventListener('submit', submitToken);
  tabs.addEventListener('message', () => location.reload());
  watchSession((signedIn) => {
    if (signedIn === known) return;
    known = signedIn;
    byId('sign-out').hidden = !signedIn;
    onChange(signedIn);
  });
}

/** Whether the service has tokens, and the user has given it a read token. */
export function isSignedIn() {
  return known === true;
}

/** Asks for a token once. After the user closes the dialog, only the header's button opens it. */
export function askForToken() {
  if (!byId('sign-in').hidden) return;
  byId('sign-in').hidden = false;
  openDialog();
}

/** The service answers again after it asked for a token: the user has signed in, perhaps in another tab. */
export function endAsking() {
  if (byId('sign-in').hidden) return;
  byId('sign-in').hidden = true;
  byId('token-dialog').close();
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
  reloadTabs();
}

async function signOut() {
  const problem = await send('DELETE');
  setText(byId('session-problem'), problem && `You are still signed in. ${problem}`);
  if (!problem) reloadTabs();
}

/** Nothing stays on any tab that its user may no longer see. */
function reloadTabs() {
  tabs.postMessage('changed');
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
