// The page: who is signed in, the connection, the form and the list, wired together.

import { request } from "./api.js";
import { Announcer } from "./announcer.js";
import { CardList, taskName } from "./cards.js";
import { Connection } from "./connection.js";
import { Inbox } from "./inbox.js";
import { JobForm } from "./job-form.js";
import { ofBrowser, Push } from "./push.js";
import {
  adoptTokenFromAddress, currentPosition, currentToken, forgetToken, keepPosition, keepToken, recall, remember,
  tokenProblem,
} from "./session.js";
import { hasEnded, isOver, TaskBoard } from "./tasks.js";

/** Tasks in the list; the oldest finished ones make room. */
const LIST_LIMIT = 200;

const byId = (id) => document.getElementById(id);
const board = new TaskBoard(LIST_LIMIT);
const cards = new CardList(byId("task-list"), { onCancel: cancel });
const announcer = new Announcer(byId("announcer"));
const push = new Push({ browser: ofBrowser(), memory: { recall, remember }, onChange: showPush });
let pushIsOn = false;
let inbox = new Inbox();
let connection = null;
let connectionState = { name: "idle" };
let countdown;

function signIn(token) {
  const problem = tokenProblem(token);
  if (problem !== null) return askForToken(problem);
  keepToken(token);
  showForm("job");
  connection?.stop();
  inbox = new Inbox(currentPosition());
  const address = new URL("/ws", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const since = () => inbox.position;
  connection = new Connection({ url: address.href, token, since, onState: showConnection, onFrame: receive });
  connection.connect();
}

function signOut() {
  push.signedOut();
  connection?.stop();
  connection = null;
  forgetToken();
  inbox = new Inbox();
  writeUnread();
  board.clear();
  byId("user").textContent = "";
  showConnection({ name: "idle" });
  askForToken("");
  byId("token").focus();
  byId("who").hidden = true;
}

function askForToken(problem) {
  showForm("sign-in");
  byId("token").value = "";
  byId("token").setAttribute("aria-invalid", String(problem !== ""));
  byId("sign-in-status").textContent = problem;
  byId("sign-in-status").dataset.tone = "bad";
}

/** Shows one of the two forms. Who was at work in the other one goes on in this one, and not at the top of the page. */
function showForm(id) {
  const [form, other] = id === "job" ? [byId("job"), byId("sign-in")] : [byId("sign-in"), byId("job")];
  const wasInOther = other.contains(document.activeElement);
  form.hidden = false;
  other.hidden = true;
  if (wasInOther) form.querySelector("input").focus();
}

function receive(frame) {
  const { position } = inbox;
  inbox.receive(frame);
  if (inbox.position !== position) keepPosition(inbox.position);
  writeUnread();
  if (frame.type === "connected") {
    // Somebody else's tasks are not theirs to see.
    if (byId("user").textContent !== frame.user_id) board.clear();
    byId("user").textContent = frame.user_id;
    byId("who").hidden = false;
    push.signedIn(frame.user_id, currentToken());
    announce(board.fill(frame.tasks ?? [], Date.now()));
    scheduleRender();
  }
  if (frame.type === "task.updated") {
    const applied = board.apply(frame.data, Date.now());
    if (applied === null) return;
    announce([applied]);
    scheduleRender();
  }
  if (frame.type === "task.log") {
    board.addLog(frame.data, Date.now());
    scheduleRender();
  }
}

async function cancel(task) {
  if (!board.askCancel(task.id)) return;
  scheduleRender();
  const unanswered = "The task may be cancelled all the same: wait a little, or try again.";
  const path = `/api/tasks/${encodeURIComponent(task.id)}`;
  const { problem = "" } = await request("DELETE", path, { token: currentToken(), unanswered });
  // An end that was faster than the answer has been said.
  if (board.answerCancel(task.id, problem) && problem === "") announcer.say(`Cancelling ${taskName(task)}.`);
  scheduleRender();
}

function announce(applied) {
  for (const one of applied) if (one.change !== null) announcer.say(announcement(one));
}

function announcement({ task, change }) {
  const name = taskName(task);
  if (change === "ended") return `${name} ${task.status}.`;
  return task.attempt > 1 ? `${name} started again, attempt ${task.attempt}.` : `${name} started.`;
}

function showConnection(state) {
  const cameBack = state.name === "live" && connectionState.name !== "live";
  if (connectionState.name === "live" || cameBack) board.doubtUnfinished();
  connectionState = state;
  if (state.remedy === "sign-in") askForToken(`Paste a new token: ${state.why}.`);
  clearInterval(countdown);
  if (state.name === "waiting") countdown = setInterval(writeConnection, 250);
  writeConnection();
  scheduleRender();
}

function writeConnection() {
  const { name, why, until, remedy } = connectionState;
  const button = byId("reconnect");
  byId("connection").dataset.state = name;
  const text = {
    idle: () => "Not connected",
    connecting: () => "Connecting…",
    live: () => "Live",
    waiting: () => `Reconnecting in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s: ${why}`,
    closed: () => `Closed: ${why}`,
  }[name]();
  if (byId("connection-text").textContent !== text) byId("connection-text").textContent = text;
  button.textContent = name === "waiting" ? "Connect now" : "Connect again";
  const needed = name === "waiting" || remedy === "reconnect";
  // Hiding the focused button would throw a keyboard user back to the top of the page.
  if (!needed && document.activeElement === button) byId("connection").focus();
  button.hidden = !needed;
}

function writeUnread() {
  byId("inbox").hidden = inbox.unread === null;
  const text = String(inbox.unread ?? 0);
  if (byId("unread").textContent !== text) byId("unread").textContent = text;
  const button = byId("read-all");
  const isIdle = inbox.readAll() === null;
  if (isIdle && document.activeElement === button) byId("inbox").focus();
  button.hidden = isIdle;
}

function showPush({ offered, on, problem }) {
  pushIsOn = on;
  byId("push").hidden = !offered;
  byId("push-problem").textContent = problem;
  byId("push-switch").textContent = on ? "Stop notifying me" : "Notify me when I'm away";
}

function readAll() {
  const frame = inbox.readAll();
  if (frame !== null) connection?.send(frame);
}

let renderAsked = false;

/** Many frames arrive between two pictures; the last one of each task is what is drawn. */
function scheduleRender() {
  if (renderAsked) return;
  renderAsked = true;
  requestAnimationFrame(() => {
    renderAsked = false;
    render();
  });
}

function render() {
  const tasks = board.all();
  cards.render(tasks);
  byId("count").textContent = tasks.length === 0 ? "" : countTasks(tasks);
  byId("clear").hidden = !tasks.some(clearable());
  byId("empty").hidden = tasks.length > 0;
  byId("empty").textContent = byId("job").hidden
    ? "Sign in to see your tasks."
    : "No tasks yet. Start one here, or publish a job of yours with any AMQP client: it shows up by itself.";
}

function countTasks(tasks) {
  const finished = tasks.filter(hasEnded).length;
  const doubted = tasks.filter((task) => task.doubted).length;
  const active = `${tasks.length - finished - doubted} active · ${finished} finished`;
  return doubted === 0 ? active : `${active} · ${doubted} without news`;
}

/** What is in doubt during a cut may well be running, and what still is in doubt afterwards may never be heard of again. */
function clearable() {
  return connectionState.name === "live" ? isOver : hasEnded;
}

function clearFinished() {
  board.remove(clearable());
  byId("tasks").focus();
  scheduleRender();
}

function adopt() {
  if (adoptTokenFromAddress() || connection === null) {
    const token = currentToken();
    if (token !== null) signIn(token);
    else askForToken("");
  }
}

new JobForm(byId("job"), {
  token: currentToken,
  accepted: (job) => {
    board.addQueued(job, Date.now());
    scheduleRender();
  },
});
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(byId("token").value.trim());
});
byId("sign-out").addEventListener("click", signOut);
byId("push-switch").addEventListener("click", () => (pushIsOn ? push.turnOff() : push.turnOn()));
navigator.serviceWorker?.addEventListener("message", ({ data }) => {
  if (data?.type === "push-subscription-changed") push.renewed();
});
byId("read-all").addEventListener("click", readAll);
byId("clear").addEventListener("click", clearFinished);
byId("reconnect").addEventListener("click", () => connection?.connect());
addEventListener("hashchange", adopt);
addEventListener("online", () => connection?.wake());
addEventListener("offline", () => connection?.probe());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") connection?.wake();
});
adopt();
scheduleRender();
