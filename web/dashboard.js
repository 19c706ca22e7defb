// The dashboard's start: which page is shown, and what all pages share. Each module says at its top what lives in it.

import { serviceNow } from './api.js';
import { Connection } from './connection.js';
import { byId, copyText, setText } from './dom.js';
import { Fleet } from './fleet.js';
import { formatClock } from './format.js';
import { Overview } from './overview.js';
import { RocketPage } from './rocket.js';
import { fleetHash, parseRoute } from './route.js';
import { askForToken } from './session.js';

const TICK_MS = 1_000;
/** After so long unseen or asleep the stream may be dead without the browser knowing, and is made anew. */
const UNSEEN_MS = 30_000;
/** After so long unseen the table's stream is given up; a rocket's plot goes on. */
const PAUSE_MS = 45_000;

const connection = new Connection();
const overview = new Overview(connection);
const fleet = new Fleet(connection, overview, navigate);
const rocketPage = new RocketPage(connection);

let shown = null;
/** Where the fleet was left, to come back to. */
const fleetPlace = { hash: '#/', scroll: 0 };
let latestTick = Date.now();
let pause = null;

/** Shows another query of the fleet as a new entry of the history. */
function navigate(query, trail) {
  const hash = fleetHash(query);
  if (hash === location.hash) return;
  history.pushState({ trail }, '', hash);
  show();
}

function show() {
  const route = parseRoute(location.hash);
  const arrives = shown !== null && shown !== route.page;
  if (arrives) leave();
  shown = route.page;
  if (route.page === 'rocket') showRocket(route.channel);
  else showFleet(route.query, arrives);
  setTitle();
}

function leave() {
  if (shown === 'rocket') return rocketPage.hide();
  fleetPlace.scroll = scrollY;
  fleet.hide();
  overview.hide();
}

function showRocket(channel) {
  rocketPage.show(channel, fleetPlace.hash);
  scrollTo(0, 0);
  byId('detail-channel').focus({ preventScroll: true });
}

function showFleet(query, arrives) {
  const hash = fleetHash(query);
  const isBack = arrives && hash === fleetPlace.hash;
  overview.show(query);
  fleet.show(query);
  if (arrives) {
    scrollTo(0, isBack ? fleetPlace.scroll : 0);
    byId('main').focus({ preventScroll: true });
  }
  fleetPlace.hash = hash;
}

/** Tabs are told apart, and tell of an outage, by their title. */
function setTitle() {
  const { page, channel } = parseRoute(location.hash);
  const sign = connection.state === 'lost' ? '⚠ ' : '';
  document.title = `${sign}${page === 'rocket' ? `${channel} – ` : ''}Rocket Monitor`;
}

function tick() {
  if (document.hidden) return;
  const now = Date.now();
  if (now - latestTick > UNSEEN_MS) shownPage().restartStream();
  latestTick = now;
  setText(byId('clock'), `${formatClock(serviceNow())} UTC`);
  shownPage().tick();
}

function shownPage() {
  return shown === 'rocket' ? rocketPage : fleet;
}

function visibilityChanged() {
  clearTimeout(pause);
  if (document.hidden) pause = setTimeout(() => fleet.pauseStream(), PAUSE_MS);
  else tick();
}

function showCommands() {
  const message = {
    metadata: { channel: '193270a9-c9cf-404a-8f83-838e71d9ae67', messageNumber: 1,
      messageTime: new Date().toISOString(), messageType: 'RocketLaunched' },
    message: { type: 'Falcon-9', launchSpeed: 500, mission: 'ARTEMIS' },
  };
  setText(byId('empty-curl'), `curl -i ${location.origin}/messages -d '${JSON.stringify(message, null, 2)}'`);
  setText(byId('empty-launch'), `./run launch ${location.origin} --verify`);
}

async function copy({ target }) {
  const id = target.closest('[data-copy]')?.dataset.copy;
  if (id) setText(byId('copied'), await copyText(byId(id)));
}

connection.onTokenWanted = () => askForToken(() => location.reload());
connection.onRequestsBack = () => shownPage().restartStream();
connection.onChange = (state) => {
  setTitle();
  if (state === 'live') overview.refresh();
};
overview.onStats = ({ processed }) => fleet.noteProcessed(processed);

// The address names the view, so the link can't just point at the content.
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  byId('main').focus();
});
byId('empty').addEventListener('click', copy);
addEventListener('hashchange', show);
document.addEventListener('visibilitychange', visibilityChanged);
history.scrollRestoration = 'manual';
showCommands();
show();
tick();
setInterval(tick, TICK_MS);
