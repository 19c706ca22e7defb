// How values are written: numbers, times, durations, statuses. Nothing here touches the page.

/** What each status is called. Its glyph is added by the style sheet, so that screen readers don't spell it. */
export const STATUS_LABELS = { awaitingLaunch: 'Awaiting launch', launched: 'Launched', exploded: 'Exploded' };

/** What stands for a value that is not known. */
export const UNKNOWN = '–';

const numbers = new Intl.NumberFormat('en');
const shortNumbers = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 });

export function formatNumber(number) {
  return numbers.format(number);
}

/** For an axis: large numbers with a unit, as in "9.02T", for there is little room. */
export function formatShortNumber(number) {
  return Math.abs(number) < 1e7 ? formatNumber(number) : shortNumbers.format(number);
}

/** A rate with as many decimals as mean something. */
export function formatRate(perSecond) {
  if (perSecond > 0 && perSecond < 10) return perSecond.toFixed(1);
  return formatNumber(Math.round(perSecond));
}

/** "1 rocket", "2 rockets". */
export function formatCount(number, singular, plural = `${singular}s`) {
  return `${formatNumber(number)} ${number === 1 ? singular : plural}`;
}

/** "2022-02-02 18:39:05" of "2022-02-02T18:39:05.863370Z"; the API's times are always UTC. */
export function formatTime(iso) {
  return iso ? `${iso.slice(0, 10)} ${iso.slice(11, 19)}` : UNKNOWN;
}

/** All that is known of a time, for a tooltip. */
export function formatFullTime(iso) {
  return iso ? `${iso.replace('T', ' ').replace('Z', '')} UTC` : '';
}

/** "18:39:05" of a time in milliseconds. */
export function formatClock(milliseconds) {
  return new Date(milliseconds).toISOString().slice(11, 19);
}

/** "3 s", "5 min", "2 h", "4 d": one unit is precise enough to see at a glance. */
export function formatDuration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${formatNumber(Math.floor(hours / 24))} d`;
}

/** "now" or "3 s ago". Clocks never agree entirely, so the near future counts as now. */
export function formatAge(iso, now) {
  if (!iso) return UNKNOWN;
  const age = now - Date.parse(iso);
  return age < 1000 ? 'now' : `${formatDuration(age)} ago`;
}

/** "5" or "8–12". */
export function formatGap([first, last]) {
  return first === last ? formatNumber(first) : `${formatNumber(first)}–${formatNumber(last)}`;
}

export function formatStatus(status) {
  return STATUS_LABELS[status] ?? status;
}
