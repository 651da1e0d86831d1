// The last lines that a task logged. Nothing here touches the page or the clock.

/** Lines of a task that are kept; who needs all of them keeps them elsewhere. */
const KEPT = 200;

/** No lines yet; `missing` counts those that came before the first one that is kept, or were left out on the way. */
export const EMPTY_LOG = Object.freeze({ lines: [], missing: 0 });

/** Takes the `data` of a `task.log` frame into `log` and returns the new one. */
export function addLines(log, data) {
  const added = Array.isArray(data.lines) ? data.lines.filter((line) => typeof line?.text === "string") : [];
  const lines = [...log.lines, ...added.map(({ at, text }) => ({ at: Date.parse(at), text }))];
  const dropped = Number.isFinite(data.dropped) ? data.dropped : 0;
  return { lines: lines.slice(-KEPT), missing: log.missing + dropped + Math.max(0, lines.length - KEPT) };
}

/** What stands above the lines: how many there are, and how many are not shown. */
export function titleOfLog({ lines, missing }) {
  const shown = `${lines.length} ${lines.length === 1 ? "line" : "lines"}`;
  return missing === 0 ? `Log: ${shown}` : `Log: the last ${shown}, ${missing} not shown`;
}

/** One line a line, with the time of day at which it was written. */
export function textOfLog({ lines }) {
  return lines.map(({ at, text }) => (Number.isFinite(at) ? `${timeOfDay(at)}  ${text}` : text)).join("\n");
}

function timeOfDay(at) {
  return new Date(at).toLocaleTimeString("en-GB");
}
