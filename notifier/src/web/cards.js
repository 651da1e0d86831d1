// The list of tasks as the page shows it. Everything that came from outside is set as text, never as markup.

import {
  countdownStep, describeStep, formatAmount, formatClock, formatCountdown, formatDuration, formatRate, formatTimeLeft,
  prettyJson, shortId, summarizeResult,
} from "./format.js";
import { textOfLog, titleOfLog } from "./log.js";
import { fraction } from "./progress.js";
import { hasEnded } from "./tasks.js";

/** Characters of a result that are shown; a manifest of a large directory would choke the page. */
const RESULT_LIMIT = 20_000;

const LABELS = {
  queued: "Queued",
  scheduled: "Scheduled",
  running: "Running",
  retrying: "Retrying",
  succeeded: "Succeeded",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** What a person calls the task. */
export function taskName(task) {
  return task.title || task.kind || shortId(task.id);
}

/** Keeps `list` in step with a board, newest first, touching only what changed. `onCancel(task)` is asked to cancel one. */
export class CardList {
  #list;
  #onCancel;
  #cards = new Map();
  #countdown;

  constructor(list, { onCancel }) {
    this.#list = list;
    this.#onCancel = onCancel;
  }

  render(tasks) {
    const present = new Set(tasks.map((task) => task.id));
    for (const [id, card] of this.#cards) {
      if (present.has(id)) continue;
      card.element.remove();
      this.#cards.delete(id);
    }
    for (const task of tasks) this.#cardOf(task).show(task);
    this.#countDown();
  }

  /** One timer for all cards, which goes off when one of them has something else to say. */
  #countDown() {
    clearTimeout(this.#countdown);
    const now = Date.now();
    const steps = [...this.#cards.values()].map((card) => card.countDown(now)).filter((step) => step !== null);
    if (steps.length > 0) this.#countdown = setTimeout(() => this.#countDown(), Math.min(...steps));
  }

  #cardOf(task) {
    let card = this.#cards.get(task.id);
    if (card === undefined) {
      card = new Card(task, this.#onCancel);
      this.#cards.set(task.id, card);
      this.#list.prepend(card.element);
    }
    return card;
  }
}

/** Names elements for ARIA; a task's own id may hold anything. */
let cardsMade = 0;

class Card {
  #task = null;
  #logShown = null;
  #parts;

  constructor(task, onCancel) {
    cardsMade += 1;
    const titleId = `task-${cardsMade}`;
    const cancelId = `cancel-${cardsMade}`;
    const parts = {
      title: element("h3", { id: titleId, dir: "auto" }),
      badge: element("span", { class: "badge" }),
      // Named by its words and the task's name: there are many like it.
      cancel: element("button", { type: "button", class: "quiet cancel", id: cancelId, "aria-labelledby": `${cancelId} ${titleId}` }),
      problem: element("p", { class: "problem", role: "alert", dir: "auto" }),
      meta: element("p", { class: "meta" }),
      bar: element("progress", { max: "100", "aria-labelledby": titleId }),
      percent: element("span", { class: "percent" }),
      amount: element("span", { class: "amount" }),
      rate: element("span", { class: "rate" }),
      left: element("span", { class: "left" }),
      steps: element("ol", { class: "steps", "aria-label": "Steps" }),
      message: element("p", { class: "message", dir: "auto" }),
      outcome: element("p", { class: "outcome", dir: "auto" }),
      coming: element("span"),
      clock: element("time"),
      countdown: element("span"),
      summary: element("summary"),
      details: element("dl"),
      logTitle: element("summary"),
      // A region and no live log: a screen reader would talk over everything else.
      log: element("pre", { class: "log", tabindex: "0", role: "region", "aria-label": "Log", dir: "auto" }),
      result: element("pre", { tabindex: "0", role: "region", "aria-label": "Result", hidden: "" }),
    };
    parts.figures = element("p", { class: "figures" }, parts.amount, parts.rate, parts.left, parts.percent);
    parts.next = element("p", { class: "next", hidden: "" }, parts.coming, " ", parts.clock, ", ", parts.countdown);
    parts.cancel.addEventListener("click", () => onCancel(this.#task));
    parts.more = element("details", { class: "more" }, parts.summary, parts.details, parts.result);
    parts.more.addEventListener("toggle", () => this.#showDetails());
    parts.lines = element("details", { class: "lines", hidden: "" }, parts.logTitle, parts.log);
    parts.lines.addEventListener("toggle", () => this.#showLog());
    this.#parts = parts;
    this.element = element("li", { class: "task", "data-task-id": task.id },
      element("div", { class: "task-head" }, parts.title, parts.badge, parts.cancel),
      parts.meta, parts.bar, parts.figures, parts.steps, parts.message, parts.outcome, parts.next, parts.problem,
      parts.lines, parts.more);
  }

  show(task) {
    if (task === this.#task) return;
    this.#task = task;
    this.element.dataset.status = task.status;
    this.element.toggleAttribute("data-doubted", task.doubted);
    setText(this.#parts.title, taskName(task));
    setText(this.#parts.badge, LABELS[task.status] ?? task.status);
    setText(this.#parts.meta, describe(task));
    this.#showProgress(task);
    setText(this.#parts.message, hasEnded(task) ? "" : messageOf(task));
    setText(this.#parts.outcome, outcomeOf(task));
    this.#showCancel(task);
    const summary = summarizeResult(task.result);
    setText(this.#parts.summary, task.result === null ? "Details" : summary === "" ? "Result" : `Result: ${summary}`);
    this.#showDetails();
    this.#showLog();
  }

  #showCancel({ status, cancel }) {
    const button = this.#parts.cancel;
    const ended = hasEnded({ status });
    setText(this.#parts.problem, cancel.problem);
    // Hiding the focused button would throw a keyboard user back to the top of the page.
    if (ended && document.activeElement === button) this.#parts.summary.focus();
    setText(button, ended ? "" : cancel.state === "accepted" ? "Cancelling…" : "Cancel");
    // Not `disabled`: a disabled button loses the keyboard's focus.
    button.setAttribute("aria-disabled", String(cancel.state !== "none"));
  }

  /** Says when the next attempt is. Returns the milliseconds after which that has to be said anew, or null. */
  countDown(now) {
    const { nextAttemptAt: at, doubted } = this.#task;
    const { next, coming, clock, countdown } = this.#parts;
    // What was planned before a cut holds until its time; after that, nobody knows.
    next.hidden = at === null || (doubted && at <= now);
    if (next.hidden) return null;
    setText(coming, comingOf(this.#task));
    clock.dateTime = new Date(at).toISOString();
    setText(clock, formatClock(at, now));
    setText(countdown, formatCountdown(at, now));
    return countdownStep(at, now);
  }

  #showProgress(task) {
    const { bar, figures, percent, amount, rate, left } = this.#parts;
    const moving = task.status === "running";
    bar.hidden = !moving;
    figures.hidden = !moving;
    this.#showSteps(moving ? task.steps : [], task.remaining);
    if (!moving) return;
    const share = fraction(task);
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
    setText(percent, share === null ? "" : `${Math.floor(share)}%`);
    setText(amount, formatAmount(task.done, task.total, task.unit));
    setText(rate, formatRate(task.rate, task.unit));
    setText(left, formatTimeLeft(task.remaining));
    figures.hidden = figures.textContent === "";
  }

  /** The step, and below it the step within it. The items stay, so that what is read is not torn out of the page. */
  #showSteps(steps, remaining) {
    const list = this.#parts.steps;
    while (list.children.length > steps.length) list.lastChild.remove();
    while (list.children.length < steps.length) list.append(element("li", { dir: "auto" }));
    steps.forEach((step, level) => {
      // The last step ends with the whole, which says when.
      const shown = step.remaining === remaining ? { ...step, remaining: null } : step;
      setText(list.children[level], describeStep(shown));
    });
    list.hidden = steps.length === 0;
  }

  /** Follows the newest line, unless somebody has scrolled back to read. */
  #showLog() {
    const { lines, logTitle, log } = this.#parts;
    const told = this.#task.log;
    lines.hidden = told.lines.length === 0;
    setText(logTitle, titleOfLog(told));
    if (!lines.open || told === this.#logShown) return;
    const atEnd = this.#logShown === null || log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    this.#logShown = told;
    setText(log, textOfLog(told));
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  /** A closed one is left alone: a long result is only laid out for somebody who looks at it. */
  #showDetails() {
    const { more, details, result } = this.#parts;
    if (!more.open) return;
    const task = this.#task;
    const rows = [["Task", task.id], ["Kind", task.kind], ["Last news", new Date(task.time).toLocaleString()]];
    if (task.error?.code) rows.push(["Error code", task.error.code]);
    details.replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    result.hidden = task.result === null;
    setText(result, task.result === null ? "" : prettyJson(task.result, RESULT_LIMIT));
  }
}

function describe(task) {
  const parts = task.title ? [task.kind] : [];
  parts.push(shortId(task.id));
  if (task.attempt > 1) parts.push(`attempt ${task.attempt}${task.maxAttempts ? ` of ${task.maxAttempts}` : ""}`);
  return parts.join(" · ");
}

/** What is being done just now: the innermost step knows best. */
function messageOf({ message, steps }) {
  return [message, ...steps.map((step) => step.message)].findLast((text) => text !== null) ?? "";
}

/** The one line that says how it stands with a task that does not move. */
function outcomeOf(task) {
  if (task.doubted) return `No news since ${new Date(task.time).toLocaleTimeString()}: the connection was cut.`;
  const cancelling = task.cancel.state === "accepted";
  const reason = reasonOf(task.error);
  const seconds = task.startedAt === null ? 0 : (task.time - task.startedAt) / 1000;
  const duration = seconds < 0.05 ? null : formatDuration(seconds);
  const amount = formatAmount(task.done, null, task.unit);
  const took = duration === null ? "" : ` after ${duration}`;
  switch (task.status) {
    case "queued": return cancelling ? "It will not run: it ends when its turn comes." : "Waiting for a worker.";
    case "scheduled": return cancelling ? "It will not run." : "Waiting for its time.";
    case "retrying": return `${cancelling ? "Not to" : "To"} be tried again. Attempt ${task.attempt} failed${reason}`;
    case "succeeded": return `Done${duration === null ? "" : ` in ${duration}`}${amount === "" ? "" : `, ${amount}`}.`;
    case "failed": return `Failed${took}${reason}`;
    case "cancelled": return `Cancelled${took}${reason}`;
    default: return "";
  }
}

/** What happens at the time that a task waits for. One that is cancelled only hears of it then. */
function comingOf({ status, cancel }) {
  if (cancel.state === "accepted") return "Ends at the latest at";
  return status === "scheduled" ? "Starts at" : "Next attempt at";
}

function reasonOf(error) {
  if (error === null) return "";
  const code = error.code ? `(${error.code})` : "";
  const words = [error.message, code].filter(Boolean).join(" ");
  return words === "" ? "" : `: ${words}`;
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Also hides what has nothing to say, so that it takes no room. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
  node.hidden = text === "";
}
