// Formats values: numbers, times, durations, statuses. Nothing here accesses the page.

/** The names of the statuses. The style sheet adds the glyphs, so that screen readers skip them. */
export const STATUS_LABELS = { awaitingLaunch: 'Awaiting launch', launched: 'Launched', exploded: 'Exploded' };

/**
 * Invisible characters: those that Unicode lets programs ignore (zero-width characters, direction marks, tags), format
 * characters, line separators, blanks that are not spaces, and spaces at either end of a text.
 */
const HIDDEN = String.raw`\p{Default_Ignorable_Code_Point}|\p{Cf}|\p{Zl}|\p{Zp}|\u2800|^\p{Zs}+|\p{Zs}+$`;
/**
 * Those of them that one can see, as in src/terminal.rs: the variation selectors and joiners inside an emoji, and the
 * signs that some scripts draw around digits. A joiner between letters often changes nothing visible, and then it hides
 * a text in another.
 */
const VISIBLE = [
  String.raw`(?<=\p{Extended_Pictographic})[\uFE0E\uFE0F]`,
  String.raw`[\uFE0E\uFE0F](?=\u20E3)`,
  String.raw`(?<=\p{Extended_Pictographic}[\uFE0E\uFE0F]?\p{Emoji_Modifier}*)\u200D(?=\p{Extended_Pictographic})`,
  String.raw`[\u0600-\u0605\u06DD\u070F\u0890\u0891\u08E2\u{110BD}\u{110CD}]`,
].join('|');
const UNSEEN = new RegExp(`(?!${VISIBLE})(?:${HIDDEN})`, 'gu');

const numbers = new Intl.NumberFormat('en');
const shortNumbers = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 });

/** Throws for anything but a number, which would become "NaN" or "0". */
export function formatNumber(number) {
  if (typeof number !== 'number' && typeof number !== 'bigint') throw new TypeError(`${number} is not a number.`);
  return numbers.format(number);
}

/** A short form for axes: large numbers have a unit, as in "9.02T". */
export function formatShortNumber(number) {
  return Math.abs(number) < 1e7 ? formatNumber(number) : shortNumbers.format(number);
}

/** A rate, with one decimal if it is small. */
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
  return iso && `${iso.slice(0, 10)} ${iso.slice(11, 19)}`;
}

/** A time with all digits, for a tooltip. */
export function formatFullTime(iso) {
  return iso ? `${iso.replace('T', ' ').replace('Z', '')} UTC` : '';
}

/** "18:39:05" of a time in milliseconds. */
export function formatClock(milliseconds) {
  return new Date(milliseconds).toISOString().slice(11, 19);
}

/** "3 s", "5 min", "2 h" or "4 d": one unit is precise enough. */
export function formatDuration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${formatNumber(Math.floor(hours / 24))} d`;
}

/** "now" or "3 s ago". Clocks never agree exactly, so the near future counts as now. */
export function formatAge(iso, now) {
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

/** The invisible characters of a text: one per match, except for the spaces at its ends. */
export function findUnseen(text) {
  return text.matchAll(UNSEEN);
}

/** "U+200B" of a zero-width space. */
export function nameCharacter(text) {
  const digits = Array.from(text, (character) => character.codePointAt(0).toString(16).toUpperCase());
  return digits.map((code) => `U+${code.padStart(4, '0')}`).join(' ');
}

/** A text for places without markup (a title): invisible characters are named. */
export function spellUnseen(text) {
  return text.replaceAll(UNSEEN, (unseen) => `[${nameCharacter(unseen)}]`);
}
