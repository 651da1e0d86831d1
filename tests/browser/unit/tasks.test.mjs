import assert from "node:assert/strict";
import { test } from "node:test";
import { hasEnded, isOver, TaskBoard } from "../../../notifier/src/web/tasks.js";

const AT = Date.parse("2026-01-02T03:04:05Z");

function event(fields) {
  return { task_id: "t1", kind: "files.checksum", status: "running", attempt: 1, rev: 1, ...fields };
}

test("an event that is not newer than the last one is ignored", () => {
  const board = new TaskBoard(10);
  board.apply(event({ rev: 5, progress: { percent: 50 } }), AT);
  assert.equal(board.apply(event({ rev: 4, progress: { percent: 40 } }), AT), null);
  assert.equal(board.apply(event({ rev: 5, status: "failed" }), AT), null);
  assert.equal(board.all()[0].percent, 50);
  assert.equal(board.apply(event({ rev: 6, progress: { percent: 60 } }), AT).task.percent, 60);
});

test("what is no task event is ignored", () => {
  const board = new TaskBoard(10);
  for (const data of [undefined, null, 7, {}, { task_id: 3, status: "running" }, { task_id: "t1" }]) {
    assert.equal(board.apply(data, AT), null);
  }
  assert.deepEqual(board.all(), []);
});

test("starts and ends are reported once, and each attempt starts anew", () => {
  const board = new TaskBoard(10);
  const changes = [
    { rev: 1, status: "queued" },
    { rev: 2, status: "running" },
    { rev: 3, status: "running", progress: { percent: 3 } },
    { rev: 4, status: "retrying" },
    { rev: 5, status: "running", attempt: 2 },
    { rev: 6, status: "succeeded", attempt: 2 },
    { rev: 7, status: "succeeded", attempt: 2 },
  ].map((fields) => board.apply(event(fields), AT).change);
  assert.deepEqual(changes, [null, "started", null, null, "started", "ended", null]);
});

test("a job that was accepted is listed until its events arrive, whichever is first", () => {
  const board = new TaskBoard(10);
  board.addQueued({ id: "t1", kind: "k", title: "T" }, AT);
  assert.equal(board.all()[0].status, "queued");
  board.apply(event({ rev: 0 }), AT);
  board.addQueued({ id: "t1", kind: "k", title: "T" }, AT);
  assert.equal(board.all()[0].status, "running");
  assert.equal(board.all()[0].title, "T");
});

test("an end keeps when the task began and how far it came", () => {
  const board = new TaskBoard(10);
  const unit = "bytes";
  board.apply(event({ rev: 1, timestamp: "2026-01-02T03:04:05Z", progress: { done: 1, total: 9, unit } }), AT);
  board.apply(event({ rev: 2, timestamp: "2026-01-02T03:04:06Z", progress: { done: 4, total: 9, unit } }), AT);
  const { task } = board.apply(event({ rev: 3, timestamp: "2026-01-02T03:04:07.5Z", status: "failed", error: { message: "no" } }), AT);
  assert.equal(task.time - task.startedAt, 2500);
  assert.equal(task.done, 4);
  assert.equal(task.error.message, "no");
});

test("after a cut an unfinished task is in doubt until it is heard of, and a finished one is not", () => {
  const board = new TaskBoard(10);
  board.apply(event({ task_id: "moving", progress: { percent: 5 } }), AT);
  board.apply(event({ task_id: "ended", status: "succeeded" }), AT);
  board.doubtUnfinished();
  assert.deepEqual(board.all().map((task) => [task.id, task.doubted]), [["moving", true], ["ended", false]]);
  assert.equal(board.apply(event({ task_id: "moving", rev: 9 }), AT).task.doubted, false);
});

test("the server's board fills the list, oldest change first, and leaves no doubt about what has not ended", () => {
  const board = new TaskBoard(10);
  const names = () => board.all().map((task) => [task.id, task.status, task.doubted]);
  assert.deepEqual(board.fill([event({ task_id: "b", rev: 9 }), event({ task_id: "a", rev: 3 })], AT), []);
  assert.deepEqual(names(), [["a", "running", false], ["b", "running", false]]);
  board.apply(event({ task_id: "a", rev: 5, progress: { percent: 50 } }), AT);
  board.doubtUnfinished();
  const states = [event({ task_id: "b", rev: 10, status: "failed" }), event({ task_id: "a", rev: 4 }), null, {}];
  const changes = board.fill(states, AT);
  assert.deepEqual(changes.map(({ task, change }) => [task.id, change]), [["b", "ended"]]);
  assert.deepEqual(names(), [["a", "running", false], ["b", "failed", false]]);
  assert.equal(board.all()[0].percent, 50, "what is older does not replace what is newer");
});

test("ended tasks that were removed stay away, and later ones do not", () => {
  const board = new TaskBoard(10);
  board.apply(event({ task_id: "ended", rev: 5, status: "failed" }), AT);
  board.remove(hasEnded);
  const states = [
    event({ task_id: "later", rev: 6, status: "failed" }),
    event({ task_id: "ended", rev: 5, status: "failed" }),
    event({ task_id: "moving", rev: 2 }),
  ];
  board.fill(states, AT);
  assert.deepEqual(board.all().map((task) => task.id), ["moving", "later"]);
  board.clear();
  board.fill(states, AT);
  assert.equal(board.all().length, 3);
});

test("what is in doubt has no rate and no time left, in no step", () => {
  const board = new TaskBoard(10);
  const figures = { percent: 5, rate: 2, remaining_s: 9 };
  board.apply(event({ progress: { ...figures, step: { name: "a", ...figures } } }), AT);
  board.doubtUnfinished();
  const [task] = board.all();
  for (const { percent, rate, remaining } of [task, ...task.steps]) assert.deepEqual([percent, rate, remaining], [5, null, null]);
});

test("a task keeps its log from attempt to attempt, and is known by it", () => {
  const board = new TaskBoard(10);
  board.addLog({ task_id: "t1", attempt: 1, lines: [{ text: "one" }] }, AT);
  assert.equal(board.all()[0].status, "running");
  board.apply(event({ rev: 2, attempt: 2 }), AT);
  board.doubtUnfinished();
  board.addLog({ task_id: "t1", attempt: 2, lines: [{ text: "two" }] }, AT);
  const [task] = board.all();
  assert.deepEqual(task.log.lines.map(({ text }) => text), ["one", "two"]);
  assert.equal(task.doubted, false);
  board.addLog({ lines: [{ text: "whose?" }] }, AT);
  assert.equal(board.all().length, 1);
});

test("the list is bounded, and finished tasks make room first", () => {
  const board = new TaskBoard(3);
  board.apply(event({ task_id: "a" }), AT);
  board.apply(event({ task_id: "b", status: "succeeded" }), AT);
  board.apply(event({ task_id: "c" }), AT);
  board.apply(event({ task_id: "d" }), AT);
  assert.deepEqual(board.all().map((task) => task.id), ["a", "c", "d"]);
  board.apply(event({ task_id: "e" }), AT);
  assert.deepEqual(board.all().map((task) => task.id), ["c", "d", "e"]);
});

test("tasks are removed by what they are", () => {
  const board = new TaskBoard(10);
  board.apply(event({ task_id: "doubted" }), AT);
  board.doubtUnfinished();
  board.apply(event({ task_id: "moving" }), AT);
  board.apply(event({ task_id: "ended", status: "cancelled" }), AT);
  board.remove(hasEnded);
  assert.deepEqual(board.all().map((task) => task.id), ["doubted", "moving"]);
  board.remove(isOver);
  assert.deepEqual(board.all().map((task) => task.id), ["moving"]);
});

test("a task is asked to be cancelled once, until that fails or the task has ended", () => {
  const board = new TaskBoard(10);
  const state = () => board.all()[0].cancel;
  assert.equal(board.askCancel("t1"), false, "nobody knows it");
  board.apply(event({ rev: 1 }), AT);
  assert.equal(board.askCancel("t1"), true);
  assert.equal(board.askCancel("t1"), false);
  assert.equal(board.answerCancel("t1", "no broker"), true);
  assert.deepEqual(state(), { state: "none", problem: "no broker" });
  assert.equal(board.askCancel("t1"), true);
  assert.equal(state().problem, "");
  board.answerCancel("t1", "");
  board.apply(event({ rev: 2, progress: { percent: 9 } }), AT);
  assert.equal(state().state, "accepted", "progress changes nothing about it");
  assert.equal(board.askCancel("t1"), false);
  board.apply(event({ rev: 3, status: "cancelled" }), AT);
  assert.equal(state().state, "none");
  assert.equal(board.askCancel("t1"), false);
});

test("an answer that comes after the end says nothing about a later run", () => {
  const board = new TaskBoard(10);
  board.apply(event({ rev: 1 }), AT);
  board.askCancel("t1");
  board.apply(event({ rev: 2, status: "failed" }), AT);
  assert.equal(board.answerCancel("t1", "too late"), false, "the end has been told");
  assert.deepEqual(board.all()[0].cancel, { state: "none", problem: "" });
  board.apply(event({ rev: 3, status: "queued" }), AT);
  assert.equal(board.askCancel("t1"), true);
});

test("the next attempt's time is known while the task waits for it", () => {
  const board = new TaskBoard(10);
  const next_attempt_at = "2026-01-02T03:05:05Z";
  const at = (fields) => board.apply(event({ next_attempt_at, ...fields }), AT).task.nextAttemptAt;
  assert.equal(at({ rev: 1, status: "retrying" }), AT + 60_000);
  assert.equal(at({ rev: 2, status: "scheduled" }), AT + 60_000);
  assert.equal(at({ rev: 3, status: "running" }), null);
  assert.equal(at({ rev: 4, status: "retrying", next_attempt_at: "soon" }), null);
});

test("a group is one task, and of its jobs only those that failed are shown", () => {
  const board = new TaskBoard(10);
  const group = { id: "g", index: 0, size: 50 };
  const progress = { done: 12, total: 50, unit: "jobs", percent: 24 };
  board.apply(event({ task_id: "g", kind: "group", rev: 1, progress }), AT);
  assert.equal(board.apply(event({ task_id: "part", rev: 1, group }), AT), null);
  assert.equal(board.apply(event({ task_id: "part", rev: 2, status: "succeeded", group }), AT), null);
  board.apply(event({ task_id: "bad", rev: 1, status: "failed", group }), AT);
  assert.deepEqual(board.all().map(({ id }) => id), ["g", "bad"]);
  assert.equal(board.all()[0].percent, 24);
  // It is brought back from the dead letters.
  board.apply(event({ task_id: "bad", rev: 2, status: "running", group }), AT);
  assert.equal(board.all()[1].status, "running");
});
