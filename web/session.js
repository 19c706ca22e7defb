// Asks for the service's token once. The service keeps it in a cookie that no script can read, this one neither.

import { byId, setText } from './dom.js';

const TIMEOUT_MS = 10_000;

/** Asks, unless it is being asked already, and calls `accepted` once the service has taken the token. */
export function askForToken(accepted) {
  const dialog = byId('token-dialog');
  if (dialog.open) return;
  byId('token-form').onsubmit = async (event) => {
    event.preventDefault();
    const problem = await send(byId('token').value.trim());
    setText(byId('token-problem'), problem ?? '');
    if (problem !== null) return;
    byId('token').value = '';
    dialog.close();
    accepted();
  };
  dialog.showModal();
}

/** Null if the service has taken the token, else what is wrong. */
async function send(token) {
  try {
    const options = { method: 'POST', body: token, headers: { 'Content-Type': 'text/plain' } };
    const { ok, status } = await fetch('/session', { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (ok) return null;
    return status === 401 ? 'This token may not read here.' : `The service answers with status ${status}.`;
  } catch {
    return 'The service can’t be reached now.';
  }
}
