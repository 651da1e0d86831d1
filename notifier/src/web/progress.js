// How fast a task moves and how long it still takes, from what was observed of it.

/** Observations older than a few of these (in seconds) hardly count any more. */
const MEMORY = 4;

/** Less observed time than this (in seconds) says nothing about the rate. */
const SHORTEST_SPAN = 0.4;

/** What a task's progress counts: `{ value, goal }`, its amount when it has one, else its percent; null for neither. */
export function position({ done, total, percent }) {
  if (done !== null) return { value: done, goal: total };
  if (percent !== null) return { value: percent, goal: 100 };
  return null;
}

/** Percent for the bar, 0 to 100, or null when the end is not known. */
export function fraction({ done, total, percent }) {
  const raw = percent ?? (done !== null && total ? (done / total) * 100 : null);
  return raw === null ? null : Math.min(100, Math.max(0, raw));
}

/**
 * Takes one observation (`seconds` on any clock) into `meter`, which is null at first, and returns the new one.
 *
 * Amount and time decay alike, so that the first seconds are as true as the later ones: an average of rates would
 * lean on the first one for long.
 */
export function observe(meter, value, seconds) {
  const fresh = { value, seconds, amount: 0, span: 0 };
  // A value that falls is a new attempt, and its rate is not the old one's.
  if (meter === null || value < meter.value) return fresh;
  const elapsed = seconds - meter.seconds;
  if (elapsed <= 0) return meter;
  const kept = Math.exp(-elapsed / MEMORY);
  return {
    value,
    seconds,
    amount: meter.amount * kept + (value - meter.value),
    span: meter.span * kept + elapsed,
  };
}

/** Units a second, or null when too little was observed. */
export function rate(meter) {
  return meter === null || meter.span < SHORTEST_SPAN ? null : meter.amount / meter.span;
}

/** Seconds until `goal`, or null when the goal is unknown or nothing moves. */
export function timeLeft(meter, goal) {
  const perSecond = rate(meter);
  if (goal === null || perSecond === null || perSecond <= 0) return null;
  return Math.max(0, goal - meter.value) / perSecond;
}
