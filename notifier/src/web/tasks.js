// What is known about each of the user's tasks: the state behind the list, without the page.

import { addLines, EMPTY_LOG } from "./log.js";
import { atRest, numberOrNull, readFigures, readSteps } from "./progress.js";

const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const WAITING = new Set(["scheduled", "retrying"]);

/** Nobody has asked to cancel the task; "asked" and "accepted" are what may follow. */
const NO_CANCEL = Object.freeze({ state: "none", problem: "" });

export function hasEnded(task) {
  return ENDED.has(task.status);
}

/** The newest state of at most `limit` tasks, in the order in which they were first heard of. */
export class TaskBoard {
  #tasks = new Map();
  #limit;
  /** The newest `rev` of an ended task that was removed: what is as old does not come back. */
  #removed = -1;

  constructor(limit) {
    this.#limit = limit;
  }

  all() {
    return [...this.#tasks.values()];
  }

  /** A job the server has taken. Its first event may have been faster than the answer, and then counts. */
  addQueued({ id, kind, title }, at) {
    if (!this.#tasks.has(id)) this.#keep(readTask({ task_id: id, kind, title, status: "queued" }, null, at));
  }

  /**
   * Takes the `data` of a `task.updated` frame; `at` is in milliseconds.
   *
   * Returns `{ task, change }`, where change is "started", "ended" or null, or null for a frame that is old, no task's, or
   * of a job whose group shows how far it is.
   */
  apply(data, at) {
    if (typeof data?.task_id !== "string" || typeof data.status !== "string") return null;
    const before = this.#tasks.get(data.task_id) ?? null;
    if (before === null ? isPart(data) : isOld(before, data)) return null;
    const task = readTask(data, before, at);
    this.#keep(task);
    return { task, change: changeBetween(before, task) };
  }

  /**
   * Takes the states of `connected`, those that changed last first. Returns as `apply` does what is new of known tasks.
   *
   * The server knows every end before it tells it, so that what has not ended there is no longer in doubt.
   */
  fill(states, at) {
    const changes = [];
    for (const data of [...states].reverse()) {
      const before = this.#tasks.get(data?.task_id);
      if (before === undefined && ENDED.has(data?.status) && data.rev <= this.#removed) continue;
      const applied = this.apply(data, at);
      if (applied !== null && before !== undefined) changes.push(applied);
      if (applied === null && before?.doubted) this.#tasks.set(before.id, { ...before, doubted: false });
    }
    return changes;
  }

  /** Takes the `data` of a `task.log` frame. Who comes in late hears a task log before its next state. */
  addLog(data, at) {
    if (typeof data?.task_id !== "string") return;
    const before = this.#tasks.get(data.task_id) ?? null;
    const task = before ?? readTask({ task_id: data.task_id, status: "running", attempt: data.attempt }, null, at);
    this.#keep({ ...task, doubted: false, log: addLines(task.log, data) });
  }

  /** Somebody wants the task to be cancelled. Returns false when it has ended, or when that has been asked for already. */
  askCancel(id) {
    const task = this.#tasks.get(id);
    if (task === undefined || hasEnded(task) || task.cancel.state !== "none") return false;
    this.#tasks.set(id, { ...task, cancel: { state: "asked", problem: "" } });
    return true;
  }

  /** What came of it; `problem` is empty when the server took the order. Returns false when the task has ended meanwhile. */
  answerCancel(id, problem) {
    const task = this.#tasks.get(id);
    if (task?.cancel.state !== "asked") return false;
    this.#tasks.set(id, { ...task, cancel: { state: problem === "" ? "accepted" : "none", problem } });
    return true;
  }

  /** While nothing is heard, what has not ended may move or end unseen: its rate is no longer known either. */
  doubtUnfinished() {
    for (const task of this.all()) {
      if (hasEnded(task)) continue;
      this.#tasks.set(task.id, { ...atRest(task), steps: task.steps.map(atRest), doubted: true });
    }
  }

  /** Forgets the tasks for which `which(task)` holds. */
  remove(which) {
    for (const task of this.all().filter(which)) {
      if (hasEnded(task)) this.#removed = Math.max(this.#removed, task.rev ?? -1);
      this.#tasks.delete(task.id);
    }
  }

  clear() {
    this.#removed = -1;
    this.#tasks.clear();
  }

  #keep(task) {
    this.#tasks.set(task.id, task);
    if (this.#tasks.size <= this.#limit) return;
    const others = this.all().filter((other) => other.id !== task.id);
    this.#tasks.delete((others.find(isOver) ?? others[0]).id);
  }
}

/** Nothing more may ever be heard of it. */
export function isOver(task) {
  return hasEnded(task) || task.doubted;
}

/** Thousands of jobs of a group would push everything else off the page; those that failed are what one looks for. */
function isPart(data) {
  return typeof data.group?.id === "string" && data.status !== "failed";
}

function isOld(before, data) {
  return before.rev !== null && Number.isFinite(data.rev) && data.rev <= before.rev;
}

function changeBetween(before, task) {
  if (hasEnded(task)) return before !== null && hasEnded(before) ? null : "ended";
  const wasRunning = before?.status === "running" && before.attempt === task.attempt;
  return task.status === "running" && !wasRunning ? "started" : null;
}

function readTask(data, before, at) {
  const attempt = numberOrNull(data.attempt) ?? before?.attempt ?? 1;
  const earlier = before !== null && before.attempt === attempt ? before : null;
  const time = Date.parse(data.timestamp ?? "") || at;
  return {
    id: data.task_id,
    kind: data.kind ?? before?.kind ?? "",
    title: data.title ?? before?.title ?? null,
    status: data.status,
    attempt,
    maxAttempts: numberOrNull(data.max_attempts) ?? before?.maxAttempts ?? null,
    rev: numberOrNull(data.rev) ?? before?.rev ?? null,
    ...readProgress(data.progress, earlier),
    error: data.error ?? null,
    result: data.result ?? null,
    nextAttemptAt: WAITING.has(data.status) ? Date.parse(data.next_attempt_at ?? "") || null : null,
    // A task that ended may be run again, which is another task to cancel.
    cancel: before === null || hasEnded(before) || hasEnded(data) ? NO_CANCEL : before.cancel,
    time,
    startedAt: earlier?.startedAt ?? (data.status === "running" ? time : null),
    doubted: false,
    log: before?.log ?? EMPTY_LOG,
  };
}

/** An event without progress, as an end may be, leaves standing how far this attempt had come. */
function readProgress(progress, earlier) {
  if (progress == null && earlier !== null) {
    const { percent, done, total, unit } = earlier;
    return { ...readFigures({ percent, done, total, unit }), steps: [] };
  }
  return { ...readFigures(progress), steps: readSteps(progress) };
}
