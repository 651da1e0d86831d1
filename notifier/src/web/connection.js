// One WebSocket that stays open: it reconnects by itself, notices a dead peer, and says what it is doing.

const SUBPROTOCOL = "bellhop.v1";

/** Milliseconds. A delay is drawn from 0 to a ceiling, which doubles from the first to the last of these. */
const FIRST_CEILING = 500;
const LAST_CEILING = 20_000;

/** Milliseconds a connection must have lived for the next failure to count as the first again. */
const STABLE_AFTER = 10_000;

/** Milliseconds from opening the socket to the server's `connected`. */
const CONNECT_DEADLINE = 15_000;

/** Milliseconds without any frame after a ping, after which the connection is dead. */
const ANSWER_DEADLINE = 10_000;

const DEFAULT_PING_INTERVAL = 30_000;

/** Close codes with which the server asks to be left alone; `remedy` is what a person can do about it. */
const FINAL_CODES = new Map([
  [4500, { why: "another connection of yours took the place of this one", remedy: "reconnect" }],
  [4501, { why: "the server refused the token", remedy: "sign-in" }],
  [4502, { why: "the token has expired", remedy: "sign-in" }],
  [4503, { why: "the server did not get a token in time", remedy: "sign-in" }],
]);

const PASSING_CODES = new Map([
  [1001, "the server went away"],
  [1011, "the server had an error"],
  [1012, "the server is restarting"],
  [1013, "the server is busy"],
  [4000, "this page was too slow for the server"],
  [4001, "the server missed this page's answer"],
]);

/** What a close means: `{ final: true, why, remedy }` or `{ final: false, why }`. */
export function judgeClose(code, reason = "") {
  if (code < 4500 || code > 4999) return { final: false, why: PASSING_CODES.get(code) ?? "the connection was lost" };
  const known = FINAL_CODES.get(code);
  if (known) return { final: true, ...known };
  const words = reason === "" ? "" : ` ${reason}`;
  return { final: true, why: `the server ended the connection for good (${code}${words})`, remedy: "sign-in" };
}

/** Milliseconds before attempt number `attempt` (from 0), with `random` from 0 to 1: exponential, full jitter. */
export function reconnectDelay(attempt, random) {
  return Math.round(random * Math.min(LAST_CEILING, FIRST_CEILING * 2 ** attempt));
}

/**
 * States, given to `onState`: `{ name: "connecting" }`, `{ name: "live" }`, `{ name: "waiting", until, why }` with `until`
 * as `now()` counts, and `{ name: "closed", why, remedy }`. Every frame goes to `onFrame` as an object. `since()` says where
 * the page is among the stored events.
 */
export class Connection {
  #options;
  #socket = null;
  #liveSince = null;
  #attempt = 0;
  #state = "new";
  #pingInterval = DEFAULT_PING_INTERVAL;
  #timers = { reconnect: undefined, ping: undefined, answer: undefined };

  constructor({
    url, token, onState, onFrame, since = () => "", WebSocket = globalThis.WebSocket, timers = globalThis, random = Math.random,
    now = Date.now,
  }) {
    this.#options = { url, token, onState, onFrame, since, WebSocket, timers, random, now };
  }

  /** Connects now, whatever it was waiting for. */
  connect() {
    this.#abandonSocket();
    this.#enter({ name: "connecting" });
    const { url, token, since, WebSocket } = this.#options;
    const position = since();
    const query = position === "" ? "" : `?since=${encodeURIComponent(position)}`;
    const socket = new WebSocket(url + query, [SUBPROTOCOL, `bearer.${token}`]);
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason);
    this.#socket = socket;
    this.#expectFrame(CONNECT_DEADLINE);
  }

  /** Closes for good, without a word to `onState`. */
  stop() {
    this.#abandonSocket();
    this.#state = "stopped";
  }

  /** Sends a frame, if there is a connection to send it by. */
  send(frame) {
    if (this.#state === "live") this.#socket.send(JSON.stringify(frame));
  }

  /** Something changed outside (the network is back, someone looks at the page): do not wait any longer. */
  wake() {
    if (this.#state === "waiting") this.connect();
    else this.probe();
  }

  /** Asks for a sign of life at once. */
  probe() {
    if (this.#state !== "live") return;
    this.send({ type: "ping" });
    // A deadline that already runs is the earlier one, and stays.
    if (this.#timers.answer === undefined) this.#expectFrame(ANSWER_DEADLINE);
    this.#set("ping", () => this.probe(), this.#pingInterval);
  }

  #receive(text) {
    this.#clear("answer");
    const frame = parseFrame(text);
    if (frame === null) return;
    if (frame.type === "connected") this.#goLive(frame);
    this.#options.onFrame(frame);
  }

  #goLive(frame) {
    this.#liveSince = this.#options.now();
    if (frame.ping_interval_ms > 0) this.#pingInterval = frame.ping_interval_ms;
    this.#set("ping", () => this.probe(), this.#pingInterval);
    this.#enter({ name: "live" });
  }

  #closed(code, reason) {
    const { final, why, remedy } = judgeClose(code, reason);
    if (!final) return this.#wait(why);
    this.#abandonSocket();
    this.#enter({ name: "closed", why, remedy });
  }

  #wait(why) {
    const { now, random } = this.#options;
    const wasStable = this.#liveSince !== null && now() - this.#liveSince >= STABLE_AFTER;
    this.#abandonSocket();
    if (wasStable) this.#attempt = 0;
    const delay = reconnectDelay(this.#attempt, random());
    this.#attempt += 1;
    this.#set("reconnect", () => this.connect(), delay);
    this.#enter({ name: "waiting", until: now() + delay, why });
  }

  #expectFrame(milliseconds) {
    this.#set("answer", () => this.#wait("the server does not answer"), milliseconds);
  }

  /** A dead peer never answers a close, so nothing may wait for the socket's own end. */
  #abandonSocket() {
    for (const name of Object.keys(this.#timers)) this.#clear(name);
    this.#liveSince = null;
    if (this.#socket === null) return;
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #enter(state) {
    this.#state = state.name;
    this.#options.onState(state);
  }

  #set(name, callback, milliseconds) {
    this.#clear(name);
    this.#timers[name] = this.#options.timers.setTimeout(callback, milliseconds);
  }

  #clear(name) {
    this.#options.timers.clearTimeout(this.#timers[name]);
    this.#timers[name] = undefined;
  }
}

/** A frame this page cannot read is of no use to it, but is no reason to give up the connection either. */
function parseFrame(text) {
  try {
    const frame = JSON.parse(text);
    return typeof frame?.type === "string" ? frame : null;
  } catch {
    return null;
  }
}
