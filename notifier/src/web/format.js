// Numbers and names as people read them. Nothing here touches the page or the clock.

const BINARY_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** 1536 → "1.5 KiB". */
export function formatBytes(bytes) {
  let value = bytes;
  let unit = 0;
  // 1023.5 and not 1024: what would be rounded to "1024 KiB" is "1.0 MiB".
  while (value >= 1023.5 && unit < BINARY_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${BINARY_UNITS[unit]}`;
}

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const significant = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

function formatQuantity(value, unit) {
  if (unit === "bytes") return formatBytes(value);
  return unit ? `${grouped.format(value)} ${unit}` : grouped.format(value);
}

/** How much is done, of how much when that is known; "" when the task does not count anything. */
export function formatAmount(done, total, unit) {
  if (done === null) return "";
  if (total === null) return formatQuantity(done, unit);
  const first = unit === "bytes" ? formatBytes(done) : grouped.format(done);
  return `${first} of ${formatQuantity(total, unit)}`;
}

/** `perSecond` is in units a second; "" when it is unknown. */
export function formatRate(perSecond, unit) {
  if (perSecond === null) return "";
  // Less than one of anything in a second is not nothing.
  if (perSecond > 0 && perSecond < 1 && unit !== "bytes") return `${significant.format(perSecond)} ${unit ?? ""}`.trim() + "/s";
  return `${formatQuantity(perSecond, unit)}/s`;
}

/** A span in seconds: "0.4 s", "42 s", "3 min 20 s", "2 h 5 min", "3 d 4 h". */
export function formatDuration(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return pair(whole, 60, "min", 1, "s");
  if (whole < 86_400) return pair(whole, 3600, "h", 60, "min");
  return pair(whole, 86_400, "d", 3600, "h");
}

function pair(seconds, large, largeName, small, smallName) {
  const rest = Math.floor((seconds % large) / small);
  const head = `${Math.floor(seconds / large)} ${largeName}`;
  return rest === 0 ? head : `${head} ${rest} ${smallName}`;
}

/** An estimate, so it is whole seconds and never claims zero; "" when it is unknown. */
export function formatTimeLeft(seconds) {
  if (seconds === null) return "";
  const text = seconds < 10 ? `${Math.max(1, Math.ceil(seconds))} s` : formatDuration(seconds);
  return `about ${text} left`;
}

/** Milliseconds before the time under which the seconds are counted; above, whole minutes do. */
const SECONDS_BELOW = 90_000;

/** How long until `at`, both in milliseconds: "in 12 s", "in 4 min", "in 2 h 5 min"; "due now" once it is past. */
export function formatCountdown(at, now) {
  const left = at - now;
  if (left <= 0) return "due now";
  if (left <= SECONDS_BELOW) return `in ${Math.ceil(left / 1000)} s`;
  return `in ${formatDuration(Math.ceil(left / 60_000) * 60)}`;
}

/** Milliseconds until `formatCountdown` says something else, a minute at most; null when it never will. */
export function countdownStep(at, now) {
  const left = at - now;
  if (left <= 0) return null;
  if (left <= SECONDS_BELOW) return left % 1000 || 1000;
  return Math.min(left % 60_000 || 60_000, left - SECONDS_BELOW);
}

/** `at` on the clock of whoever looks, with the date unless that is today's. Both in milliseconds. */
export function formatClock(at, now) {
  const time = new Date(at);
  return time.toDateString() === new Date(now).toDateString() ? time.toLocaleTimeString() : time.toLocaleString();
}

/** A step and how far it is, in one line: "2 of 3: Upload · 40% · 5.0 MiB/s · about 4 s left". */
export function describeStep({ name, index, count, percent, done, total, unit, rate, remaining }) {
  const place = index === null ? "" : count === null ? `${index}: ` : `${index} of ${count}: `;
  return [
    place + name,
    percent === null ? "" : `${Math.floor(percent)}%`,
    formatAmount(done, total, unit),
    formatRate(rate, unit),
    formatTimeLeft(remaining),
  ].filter(Boolean).join(" · ");
}

/** The end of an id: UUIDs of version 7 made in the same minute begin alike. */
export function shortId(id) {
  return id.length > 8 ? id.slice(-8) : id;
}

/** Indented JSON of at most `limit` characters, and a last line that says how much is missing. */
export function prettyJson(value, limit) {
  const text = JSON.stringify(value, null, 2) ?? "";
  if (text.length <= limit) return text;
  return `${text.slice(0, limit)}\n… ${grouped.format(text.length - limit)} more characters`;
}

/** The plain values at the top of a result, e.g. "files 12 · bytes 3.0 MiB"; "" when there are none. */
export function summarizeResult(result) {
  if (result === null || typeof result !== "object" || Array.isArray(result)) return "";
  return Object.entries(result)
    .filter(([, value]) => typeof value === "number" || typeof value === "boolean" || isShortText(value))
    .slice(0, 4)
    .map(([key, value]) => `${key} ${summarizeValue(key, value)}`)
    .join(" · ");
}

function isShortText(value) {
  return typeof value === "string" && value.length > 0 && value.length <= 40;
}

function summarizeValue(key, value) {
  if (typeof value !== "number") return String(value);
  return /(^|_)bytes$/.test(key) ? formatBytes(value) : grouped.format(value);
}
