import assert from "node:assert/strict";
import { test } from "node:test";
import { fraction, observe, position, rate, timeLeft } from "../../../notifier/src/web/progress.js";

const MIB = 1024 * 1024;
const NOTHING = { done: null, total: null, percent: null };

function observeAll(points) {
  return points.reduce((meter, [value, seconds]) => observe(meter, value, seconds), null);
}

function close(actual, expected, tolerance) {
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} is not within ${tolerance} of ${expected}`);
}

test("amounts are preferred to percents, and neither is nothing", () => {
  assert.deepEqual(position({ done: 5, total: 10, percent: 49 }), { value: 5, goal: 10 });
  assert.deepEqual(position({ ...NOTHING, percent: 49 }), { value: 49, goal: 100 });
  assert.equal(position(NOTHING), null);
});

test("the bar needs a percent or a total, and stays within its ends", () => {
  assert.equal(fraction({ ...NOTHING, done: 1, total: 4 }), 25);
  assert.equal(fraction({ ...NOTHING, percent: 130 }), 100);
  assert.equal(fraction({ ...NOTHING, done: 0, total: 0 }), null);
  assert.equal(fraction({ ...NOTHING, done: 3 }), null);
});

test("no rate from a single look, nor from looks too close to each other", () => {
  assert.equal(rate(null), null);
  assert.equal(rate(observeAll([[0, 100]])), null);
  assert.equal(rate(observeAll([[0, 100], [MIB, 100.1]])), null);
});

test("a steady task has its rate at once, and keeps it", () => {
  const points = Array.from({ length: 200 }, (_, tick) => [tick * 5 * MIB, tick / 10]);
  for (const count of [6, 50, 200]) close(rate(observeAll(points.slice(0, count))), 50 * MIB, 1);
});

test("a task that slows down is followed within a few seconds, without jumping", () => {
  const fast = Array.from({ length: 101 }, (_, tick) => [tick * 10, tick / 10]);
  const slow = Array.from({ length: 100 }, (_, tick) => [1000 + (tick + 1), 10 + (tick + 1) / 10]);
  close(rate(observeAll([...fast, ...slow.slice(0, 1)])), 100, 5);
  close(rate(observeAll([...fast, ...slow])), 10, 10);
});

test("a stall shows in the rate as soon as it is observed", () => {
  const moving = Array.from({ length: 101 }, (_, tick) => [tick * 10, tick / 10]);
  assert.ok(rate(observeAll([...moving, [1000, 20]])) < 40);
});

test("a new attempt starts from nothing", () => {
  const meter = observeAll([[0, 0], [100, 1], [5, 2]]);
  assert.equal(rate(meter), null);
  close(rate(observe(meter, 15, 3)), 10, 0.001);
});

test("a look from the past or the same moment changes nothing", () => {
  const meter = observeAll([[0, 0], [100, 1]]);
  assert.equal(observe(meter, 110, 1), meter);
  assert.equal(observe(meter, 110, 0.5), meter);
});

test("time left is what is left at the present rate, when there are both", () => {
  const meter = observeAll([[0, 0], [100, 1]]);
  close(timeLeft(meter, 600), 5, 0.001);
  assert.equal(timeLeft(meter, 50), 0);
  assert.equal(timeLeft(meter, null), null);
  assert.equal(timeLeft(observeAll([[10, 0], [10, 5]]), 100), null);
});
