// What a task's progress says, as the page draws it. Rate and time left are the worker's own figures.

/** Deeper steps are not drawn; the worker sends no more either. */
const MAX_DEPTH = 4;

/** Percent for the bar, 0 to 100, or null when the end is not known. */
export function fraction({ done, total, percent }) {
  const raw = percent ?? (done !== null && total ? (done / total) * 100 : null);
  return raw === null ? null : Math.min(100, Math.max(0, raw));
}

/** The figures of a `progress`, or of a step; what is missing or no such thing is null. */
export function readFigures(progress) {
  return {
    percent: numberOrNull(progress?.percent),
    done: numberOrNull(progress?.done),
    total: numberOrNull(progress?.total),
    unit: textOrNull(progress?.unit),
    message: textOrNull(progress?.message),
    rate: numberOrNull(progress?.rate),
    remaining: numberOrNull(progress?.remaining_s),
  };
}

/** The step a task is in, then the step within that one: `[{ name, index, count, …figures }]`. */
export function readSteps(progress) {
  const steps = [];
  let step = progress?.step;
  while (typeof step?.name === "string" && steps.length < MAX_DEPTH) {
    const { name, index, count } = step;
    steps.push({ name, index: numberOrNull(index), count: numberOrNull(count), ...readFigures(step) });
    step = step.step;
  }
  return steps;
}

/** The same without what only holds while the task moves. */
export function atRest(figures) {
  return { ...figures, rate: null, remaining: null };
}

export function numberOrNull(value) {
  return Number.isFinite(value) ? value : null;
}

function textOrNull(value) {
  return typeof value === "string" ? value : null;
}
