import assert from "node:assert/strict";
import { test } from "node:test";
import {
  countdownStep, describeStep, formatAmount, formatBytes, formatClock, formatCountdown, formatDuration, formatRate,
  formatTimeLeft, prettyJson, shortId, summarizeResult,
} from "../../../notifier/src/web/format.js";

test("bytes are written in the largest unit that keeps them at one or more", () => {
  const cases = [
    [0, "0 B"], [1023, "1023 B"], [1024, "1.0 KiB"], [1536, "1.5 KiB"], [102_400, "100 KiB"],
    [1024 * 1024 - 1, "1.0 MiB"], [50_539_725, "48.2 MiB"], [5 * 1024 ** 3, "5.0 GiB"], [3000 * 1024 ** 5, "3000 PiB"],
  ];
  for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text);
});

test("an amount names its unit once, and its total only when there is one", () => {
  assert.equal(formatAmount(1024, 4096, "bytes"), "1.0 KiB of 4.0 KiB");
  assert.equal(formatAmount(1200, 5000, "rows"), "1,200 of 5,000 rows");
  assert.equal(formatAmount(12, 50, "jobs"), "12 of 50 jobs");
  assert.equal(formatAmount(3, 7, null), "3 of 7");
  assert.equal(formatAmount(2048, null, "bytes"), "2.0 KiB");
  assert.equal(formatAmount(null, 10, "rows"), "");
});

test("a rate is an amount a second, and nothing while it is unknown", () => {
  assert.equal(formatRate(2.5 * 1024 * 1024, "bytes"), "2.5 MiB/s");
  assert.equal(formatRate(12.34, "rows"), "12.3 rows/s");
  assert.equal(formatRate(0.0333, "pages"), "0.0333 pages/s");
  assert.equal(formatRate(0, null), "0/s");
  assert.equal(formatRate(null, "bytes"), "");
});

test("durations use two units at most", () => {
  const cases = [
    [-1, "0.0 s"], [0.44, "0.4 s"], [9.94, "9.9 s"], [9.96, "10 s"], [59.4, "59 s"], [59.6, "1 min"],
    [200, "3 min 20 s"], [3599.7, "1 h"], [7500, "2 h 5 min"], [86_400 * 3 + 3600 * 4, "3 d 4 h"],
  ];
  for (const [seconds, text] of cases) assert.equal(formatDuration(seconds), text);
});

test("a time left is never zero while something is left to wait for", () => {
  assert.equal(formatTimeLeft(0), "about 1 s left");
  assert.equal(formatTimeLeft(4.2), "about 5 s left");
  assert.equal(formatTimeLeft(75), "about 1 min 15 s left");
  assert.equal(formatTimeLeft(null), "");
});

test("a step says its place, its name and its figures, as far as they are known", () => {
  const nothing = { index: null, count: null, percent: null, done: null, total: null, unit: null, rate: null, remaining: null };
  assert.equal(describeStep({ ...nothing, name: "Upload" }), "Upload");
  const figures = { percent: 40.9, done: 4, total: 10, unit: "rows", rate: 2, remaining: 3 };
  assert.equal(
    describeStep({ name: "Upload", index: 2, count: 3, ...figures }),
    "2 of 3: Upload · 40% · 4 of 10 rows · 2 rows/s · about 3 s left",
  );
});

test("a short id is the part in which two ids of the same minute differ", () => {
  assert.equal(shortId("0193e1f0-7a6b-7c11-8f00-aabbccddeeff"), "ccddeeff");
  assert.equal(shortId("job-7"), "job-7");
});

test("a long result is cut and says by how much", () => {
  assert.equal(prettyJson({ a: 1 }, 100), '{\n  "a": 1\n}');
  assert.equal(prettyJson("x".repeat(2000), 10), `"${"x".repeat(9)}\n… 1,992 more characters`);
});

test("the summary of a result takes its plain values and leaves the bulk out", () => {
  const result = { files: 1280, total_bytes: 3 * 1024 * 1024, algorithm: "sha256", manifest: [1, 2], nothing: null, cut: false };
  assert.equal(summarizeResult(result), "files 1,280 · total_bytes 3.0 MiB · algorithm sha256 · cut false");
  for (const other of [null, [1], "text", 7, {}]) assert.equal(summarizeResult(other), "");
});

test("a countdown counts seconds at the end and minutes before", () => {
  const cases = [
    [0, "due now"], [-5000, "due now"], [1, "in 1 s"], [12_000, "in 12 s"], [12_001, "in 13 s"], [90_000, "in 90 s"],
    [90_001, "in 2 min"], [3_600_000, "in 1 h"], [7_441_000, "in 2 h 5 min"],
  ];
  for (const [left, text] of cases) assert.equal(formatCountdown(1_000_000 + left, 1_000_000), text);
});

test("a countdown is looked at again exactly when it says something else", () => {
  assert.equal(countdownStep(0, 0), null);
  for (const left of [1, 999, 1000, 1500, 89_999, 90_000, 90_001, 100_000, 120_000, 125_000, 7_441_000]) {
    const step = countdownStep(left, 0);
    assert.ok(step > 0 && step <= 60_000, `${left}: ${step}`);
    assert.equal(formatCountdown(left, step - 1), formatCountdown(left, 0), `${left}: before`);
    assert.notEqual(formatCountdown(left, step + 1), formatCountdown(left, 0), `${left}: after`);
  }
});

test("a time of day carries its date unless it is today's", () => {
  const noon = new Date(2026, 0, 2, 12).getTime();
  const time = new Date(noon).toLocaleTimeString();
  assert.equal(formatClock(noon, noon - 3_600_000), time);
  const tomorrow = formatClock(noon, noon - 24 * 3_600_000);
  assert.ok(tomorrow.includes(time) && tomorrow.length > time.length, tomorrow);
});
