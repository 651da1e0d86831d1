import assert from "node:assert/strict";
import { test } from "node:test";
import { atRest, fraction, readFigures, readSteps } from "../../../notifier/src/web/progress.js";

const NOTHING = { done: null, total: null, percent: null };

test("the bar needs a percent or a total, and stays within its ends", () => {
  assert.equal(fraction({ ...NOTHING, done: 1, total: 4 }), 25);
  assert.equal(fraction({ ...NOTHING, percent: 130 }), 100);
  assert.equal(fraction({ ...NOTHING, done: 0, total: 0 }), null);
  assert.equal(fraction({ ...NOTHING, done: 3 }), null);
});

test("figures are the worker's, and what is missing or of another type is nothing", () => {
  const figures = readFigures({ percent: 5, done: 1, rate: 0, remaining_s: 7, unit: 3, message: {} });
  assert.deepEqual(figures, { percent: 5, done: 1, total: null, unit: null, message: null, rate: 0, remaining: 7 });
  for (const nothing of [undefined, null, 7, {}]) assert.equal(readFigures(nothing).percent, null);
});

test("steps are listed from the outermost on, to a depth that can be drawn", () => {
  const steps = readSteps({ step: { name: "a", index: 1, count: 2, step: { name: "b", percent: 50 } } });
  assert.deepEqual(steps.map(({ name, index, count, percent }) => [name, index, count, percent]), [["a", 1, 2, null], ["b", null, null, 50]]);
  const deep = Array.from({ length: 50 }).reduce((step) => ({ name: "n", step }), undefined);
  assert.equal(readSteps({ step: deep }).length, 4);
  for (const odd of [null, { step: null }, { step: {} }, { step: { name: 4 } }]) assert.deepEqual(readSteps(odd), []);
});

test("at rest there is no rate and no time left", () => {
  assert.deepEqual(atRest({ percent: 5, rate: 1, remaining: 2 }), { percent: 5, rate: null, remaining: null });
});
