// Uses the client that openapi-typescript and openapi-fetch generate from the API description: it must compile, and work
// against a service with tokens. `fail` is reached only if the description is wrong.

import createClient from 'openapi-fetch';
import type { components, operations, paths } from './schema.js';

type Message = components['schemas']['Message'];
type ReportName = operations['getReport']['parameters']['path']['name'];

declare const process: { argv: [string, string, string, string, string] };
const [, , baseUrl, writeToken, readToken] = process.argv;

function client(token: string) {
  return createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
}
const writer = client(writeToken);
const reader = client(readToken);

function fail(what: string, found: unknown): never {
  throw new Error(`${what}: ${JSON.stringify(found)}`);
}

function launch(channel: string): Message {
  return {
    metadata: { channel, messageNumber: 1, messageTime: '2022-02-02T19:39:05.86337+01:00', messageType: 'RocketLaunched' },
    message: { type: 'Falcon-9', launchSpeed: 500, mission: 'ARTEMIS' },
  };
}

const posted = await writer.POST('/messages', { body: launch('one/of:typescript') });
if (posted.response.status !== 204) fail('one message', posted.error?.detail);

const lines = [launch('two'), launch('two')].map((line) => JSON.stringify(line)).join('\n');
const many = await writer.POST('/messages', {
  body: lines,
  bodySerializer: (body) => body as string,
  headers: { 'Content-Type': 'application/x-ndjson' },
});
if (many.data?.applied !== 1 || many.data.duplicates !== 1) fail('lines', many);

const bad = await writer.POST('/messages', { body: { ...launch('three'), message: { by: 1 } } as Message });
const faults = bad.error?.errors?.map((fault) => ('pointer' in fault ? fault.pointer : fault.parameter));
if (bad.error?.status !== 422 || !faults?.includes('/message/type')) fail('a bad message', bad);

const page = await reader.GET('/rockets', { params: { query: { sort: 'channel', limit: 1, status: 'launched' } } });
const first: components['schemas']['Rocket'] | undefined = page.data?.rockets[0];
if (first?.channel !== 'one/of:typescript' || typeof page.data?.nextCursor !== 'string') fail('a page', page);

const path = { channel: first.channel };
const { data: rocket } = await reader.GET('/rockets/{channel}', { params: { path, query: { view: 'exact' } } });
if (!rocket || !('speed' in rocket)) fail('a rocket in one view', rocket);
const speed: number = rocket.speed;
if (speed !== 500 || rocket.mission !== 'ARTEMIS' || rocket.latestUpdate === null) fail('a rocket', rocket);
const { data: both } = await reader.GET('/rockets/{channel}', { params: { path, query: { view: 'both' } } });
if (!both || !('exact' in both) || both.exact.speed !== both.bestEffort.speed) fail('a rocket in both views', both);

const stats = await reader.GET('/stats');
if (stats.data?.rockets !== 2 || stats.data.rocketsWithGaps !== 0) fail('the totals', stats);

const name: ReportName = 'missions';
const { data: report } = await reader.GET('/reports/{name}', { params: { path: { name } } });
// It could be CSV, which is text. The report's name tells the compiler the type of the rows.
if (typeof report !== 'object' || report.name !== 'missions') fail('a report', report);
if (report.rows[0]?.maxSpeed !== 500) fail('its row', report.rows);

const refused = await createClient<paths>({ baseUrl }).GET('/stats');
if (refused.error?.status !== 401) fail('no token', refused);
const out = await reader.DELETE('/session');
if (out.response.status !== 204) fail('signing out', out);
