import assert from "node:assert/strict";
import { test } from "node:test";
import { addLines, EMPTY_LOG, textOfLog, titleOfLog } from "../../../notifier/src/web/log.js";

const line = (text, at = "2026-01-02T03:04:05Z") => ({ at, text });

test("lines are kept in order, and a title says how many", () => {
  const log = addLines(addLines(EMPTY_LOG, { lines: [line("one")] }), { lines: [line("two", "no time")] });
  assert.match(textOfLog(log), /^\d\d:\d\d:05 {2}one\ntwo$/);
  assert.equal(titleOfLog(log), "Log: 2 lines");
  assert.equal(titleOfLog(addLines(EMPTY_LOG, { lines: [line("one")] })), "Log: 1 line");
});

test("only the last lines are kept, and those that are missing are counted", () => {
  const many = Array.from({ length: 250 }, (_, index) => line(String(index)));
  let log = addLines(EMPTY_LOG, { lines: many, dropped: 30 });
  assert.equal(log.lines.length, 200);
  assert.equal(log.lines.at(-1).text, "249");
  assert.equal(titleOfLog(log), "Log: the last 200 lines, 80 not shown");
  log = addLines(log, { lines: [line("next")] });
  assert.equal(log.missing, 81);
});

test("what is no line is passed over", () => {
  for (const lines of [undefined, null, "text", [null, 5, {}, { text: 5 }]]) {
    assert.deepEqual(addLines(EMPTY_LOG, { lines, dropped: "x" }), { lines: [], missing: 0 });
  }
});
