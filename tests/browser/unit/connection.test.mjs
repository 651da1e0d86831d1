import assert from "node:assert/strict";
import { test } from "node:test";
import { Connection, judgeClose, reconnectDelay } from "../../../notifier/src/web/connection.js";

/** A clock that stands still until it is told to advance. */
class FakeClock {
  time = 0;
  #timers = new Map();
  #last = 0;

  setTimeout = (callback, delay) => {
    this.#last += 1;
    this.#timers.set(this.#last, { callback, due: this.time + delay });
    return this.#last;
  };

  clearTimeout = (id) => this.#timers.delete(id);

  advance(milliseconds) {
    const end = this.time + milliseconds;
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.due <= end).sort((a, b) => a[1].due - b[1].due)[0];
      if (due === undefined) break;
      this.#timers.delete(due[0]);
      this.time = due[1].due;
      due[1].callback();
    }
    this.time = end;
  }
}

function setUp({ random = () => 1 } = {}) {
  const clock = new FakeClock();
  const world = { clock, sockets: [], states: [], frames: [] };
  class FakeSocket {
    sent = [];
    isClosed = false;
    constructor(url, protocols) {
      Object.assign(this, { url, protocols });
      world.sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {
      this.isClosed = true;
    }
    receive(frame) {
      this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
    }
    drop(code = 1006, reason = "") {
      this.onclose({ code, reason });
    }
  }
  world.connection = new Connection({
    url: "ws://host/ws",
    token: "a.b.c",
    since: () => world.since ?? "",
    onState: (state) => world.states.push(state),
    onFrame: (frame) => world.frames.push(frame),
    WebSocket: FakeSocket,
    timers: clock,
    random,
    now: () => clock.time,
  });
  world.socket = () => world.sockets.at(-1);
  world.state = () => world.states.at(-1);
  world.goLive = () => world.socket().receive({ type: "connected", user_id: "ada", ping_interval_ms: 30_000 });
  world.connection.connect();
  return world;
}

test("delays double up to 20 s, and the whole of each is left to chance", () => {
  assert.deepEqual([0, 1, 2, 5, 6, 40].map((attempt) => reconnectDelay(attempt, 1)), [500, 1000, 2000, 16_000, 20_000, 20_000]);
  assert.equal(reconnectDelay(6, 0.25), 5000);
  assert.equal(reconnectDelay(6, 0), 0);
});

test("codes from 4500 to 4999 are final, all others are not", () => {
  for (const code of [1000, 1001, 1006, 1009, 1011, 1012, 4000, 4001, 4499]) assert.equal(judgeClose(code).final, false, `${code}`);
  for (const code of [4500, 4501, 4502, 4503, 4700, 4999]) assert.equal(judgeClose(code).final, true, `${code}`);
  assert.equal(judgeClose(4500).remedy, "reconnect");
  assert.equal(judgeClose(4502).remedy, "sign-in");
  assert.match(judgeClose(4777, "moved").why, /4777 moved/);
});

test("the token travels as a subprotocol, and only `connected` makes the connection live", () => {
  const { connection, socket, states, goLive } = setUp();
  assert.deepEqual(socket().protocols, ["bellhop.v1", "bearer.a.b.c"]);
  assert.deepEqual(states.map((state) => state.name), ["connecting"]);
  goLive();
  assert.deepEqual(states.map((state) => state.name), ["connecting", "live"]);
  connection.stop();
  assert.equal(socket().isClosed, true);
});

test("each connection says where the page was when it was made", () => {
  const world = setUp({ random: () => 0 });
  assert.equal(world.socket().url, "ws://host/ws");
  world.connection.send({ type: "read", up_to: 1 });
  world.since = "user.a1.7";
  world.socket().drop();
  world.clock.advance(0);
  assert.equal(world.socket().url, "ws://host/ws?since=user.a1.7");
  world.goLive();
  world.connection.send({ type: "read", up_to: 7 });
  assert.deepEqual(world.sockets.map((socket) => socket.sent), [[], [{ type: "read", up_to: 7 }]]);
});

test("a lost connection is made again, later each time", () => {
  const { clock, sockets, socket, state } = setUp();
  for (const delay of [500, 1000, 2000]) {
    socket().drop();
    assert.deepEqual(state(), { name: "waiting", until: clock.time + delay, why: "the connection was lost" });
    const before = sockets.length;
    clock.advance(delay - 1);
    assert.equal(sockets.length, before);
    clock.advance(1);
    assert.equal(sockets.length, before + 1);
  }
});

test("only a connection that lasted makes the delays short again", () => {
  const { clock, socket, state, goLive } = setUp();
  const delayAfter = (lifetime) => {
    goLive();
    clock.advance(lifetime);
    socket().drop();
    const delay = state().until - clock.time;
    clock.advance(delay);
    return delay;
  };
  assert.deepEqual([100, 100, 100, 10_000, 100].map(delayAfter), [500, 1000, 2000, 500, 1000]);
});

test("a final close ends it", () => {
  const { clock, sockets, socket, state, goLive } = setUp();
  goLive();
  socket().drop(4502);
  assert.equal(state().name, "closed");
  clock.advance(3_600_000);
  assert.equal(sockets.length, 1);
});

test("a peer that does not answer a ping within 10 s is given up", () => {
  const { clock, socket, state, goLive } = setUp();
  goLive();
  clock.advance(30_000);
  assert.deepEqual(socket().sent, [{ type: "ping" }]);
  clock.advance(9_999);
  assert.equal(state().name, "live");
  clock.advance(1);
  assert.equal(state().name, "waiting");
  assert.equal(state().why, "the server does not answer");
});

test("any frame is a sign of life, even one that cannot be read", () => {
  const { clock, socket, state, frames, goLive } = setUp();
  goLive();
  for (const frame of [{ type: "pong" }, { type: "task.updated" }, "not JSON", "null"]) {
    clock.advance(30_000);
    socket().receive(frame);
  }
  clock.advance(29_000);
  assert.equal(state().name, "live");
  assert.equal(socket().sent.length, 4);
  assert.deepEqual(frames.map((frame) => frame.type), ["connected", "pong", "task.updated"]);
});

test("a server that accepts but says nothing is given up too", () => {
  const { clock, socket, state } = setUp();
  const first = socket();
  clock.advance(15_000);
  assert.equal(state().name, "waiting");
  assert.equal(first.isClosed, true);
});

test("a socket that was given up cannot speak any more", () => {
  const { clock, socket } = setUp();
  const first = socket();
  clock.advance(15_000);
  assert.equal(first.onmessage, null);
  assert.equal(first.onclose, null);
});

test("waking connects at once while waiting, and asks for a sign of life while live", () => {
  const { connection, clock, sockets, socket, state, goLive } = setUp();
  goLive();
  connection.wake();
  connection.wake();
  assert.equal(socket().sent.length, 2);
  clock.advance(10_000);
  assert.equal(state().name, "waiting", "asking twice must not give the peer more time");
  connection.wake();
  assert.equal(sockets.length, 2);
  assert.equal(state().name, "connecting");
  clock.advance(14_000);
  assert.equal(sockets.length, 2, "the delay that was cut short must not connect again");
});
