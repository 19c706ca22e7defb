// The dashboard's entry point: chooses the page, and holds what all pages share.

import { ActivityView } from './activity.js';
import { serviceNow } from './api.js';
import { Connection } from './connection.js';
import { startDensity } from './density.js';
import { byId, copyText, setText } from './dom.js';
import { Fleet } from './fleet.js';
import { formatClock, spellUnseen } from './format.js';
import { Groups, TITLES } from './groups.js';
import { Overview } from './overview.js';
import { RocketPage } from './rocket.js';
import { fleetHash, parseRoute } from './route.js';
import { askForToken, endAsking, startSession } from './session.js';

const TICK_MS = 1_000;

const connection = new Connection();
const overview = new Overview(connection);
const activity = new ActivityView(connection);
const groups = new Groups(connection);
const fleet = new Fleet(connection, navigate);
const rocketPage = new RocketPage(connection);

let shown = null;
/** Where the user left the fleet's page, to return there. `trail` has the cursors of the previous pages. */
const fleetPlace = { hash: '#/', scroll: 0, trail: [] };

/** Shows another query of the fleet, as a new history entry, or in place of the current one. */
function navigate(query, trail, replaces) {
  const hash = fleetHash(query);
  if (hash === location.hash) return;
  if (replaces) history.replaceState({ trail }, '', hash);
  else history.pushState({ trail }, '', hash);
  show();
}

function show() {
  const route = parseRoute(location.hash);
  const arrives = shown !== null && shown !== route.page;
  if (arrives) leave();
  shown = route.page;
  if (route.page === 'rocket') showRocket(route.channel);
  else if (route.page === 'groups') showGroups(route, arrives);
  else showFleet(route.query, arrives);
  setTitle();
}

function leave() {
  if (shown === 'rocket') return rocketPage.hide();
  if (shown === 'groups') return groups.hide();
  fleetPlace.scroll = scrollY;
  fleet.hide();
  overview.hide();
  activity.hide();
}

function showRocket(channel) {
  rocketPage.show(channel, fleetPlace.hash);
  scrollTo(0, 0);
  byId('detail-channel').focus({ preventScroll: true });
}

function showGroups(route, arrives) {
  const isNew = groups.show(route);
  if (!arrives && !isNew) return;
  scrollTo(0, 0);
  byId('groups-heading').focus({ preventScroll: true });
}

function showFleet(query, arrives) {
  const hash = fleetHash(query);
  const isBack = arrives && hash === fleetPlace.hash;
  // A link to the place makes a new history entry, which has no trail.
  if (isBack && !history.state?.trail) history.replaceState({ trail: fleetPlace.trail }, '');
  overview.show(query);
  activity.show();
  fleet.show(query);
  if (arrives) {
    scrollTo(0, isBack ? fleetPlace.scroll : 0);
    byId('main').focus({ preventScroll: true });
  }
  fleetPlace.hash = hash;
  fleetPlace.trail = history.state?.trail ?? [];
}

/** The title identifies the tab, and shows an outage. */
function setTitle() {
  const { page, channel, report } = parseRoute(location.hash);
  const sign = connection.state === 'lost' ? '⚠ ' : '';
  const names = { rocket: () => spellUnseen(channel), groups: () => TITLES[report], fleet: () => '' };
  const name = names[page]();
  document.title = `${sign}${name && `${name} – `}Rocket Monitor`;
}

function tick() {
  if (document.hidden) return;
  setText(byId('clock'), `${formatClock(serviceNow())} UTC`);
  shownPage().tick();
}

function shownPage() {
  return { rocket: rocketPage, groups, fleet }[shown];
}

/** Shows commands that can be pasted into any POSIX shell. Both rocket-monitor and curl take the tokens from variables. */
function showCommands(withTokens) {
  const message = {
    metadata: { channel: '193270a9-c9cf-404a-8f83-838e71d9ae67', messageNumber: 1,
      messageTime: new Date().toISOString(), messageType: 'RocketLaunched' },
    message: { type: 'Falcon-9', launchSpeed: 500, mission: 'ARTEMIS' },
  };
  const url = quote(new URL('.', location).href.replace(/\/$/, ''));
  const token = withTokens ? ' \\\n  -H "Authorization: Bearer $ROCKET_MONITOR_WRITE_TOKEN" \\\n ' : '';
  setText(byId('empty-curl'), `curl -i ${url}/messages${token} -d '${JSON.stringify(message, null, 2)}'`);
  setText(byId('empty-launch'), `rocket-monitor launch ${url} --verify`);
  byId('empty-tokens').hidden = !withTokens;
}

/** Quotes a URL if a shell would change it. */
function quote(text) {
  return /^[\w.:/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

async function copy({ target }) {
  const id = target.closest('[data-copy]')?.dataset.copy;
  if (id) setText(byId('copied'), await copyText(byId(id)));
}

connection.onTokenWanted = askForToken;
connection.onRecovered = () => {
  endAsking();
  shownPage().refresh();
  if (shown !== 'fleet') return;
  overview.refresh();
  activity.refresh();
};
connection.onChange = setTitle;

// The URL's fragment names the page, so the link can't point at the content.
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  byId('main').focus();
});
byId('empty').addEventListener('click', copy);
addEventListener('hashchange', show);
document.addEventListener('visibilitychange', tick);
history.scrollRestoration = 'manual';
startDensity();
startSession(showCommands);
show();
tick();
setInterval(tick, TICK_MS);
