import assert from "node:assert/strict";
import { test } from "node:test";
import { isFor, Push } from "../../../notifier/src/web/push.js";

const KEY = "BA__";

/** A browser, a server and a page that note what is asked of them. */
class Fakes {
  asked = [];
  shown = null;
  subscription = null;
  key = KEY;
  permission = "default";
  willGrant = "granted";
  refuses = null;
  #memory = new Map();

  page() {
    return new Push({
      browser: {
        worker: async () => ({ pushManager: this }),
        register: async () => {},
        permission: () => this.permission,
        askPermission: async () => (this.permission = this.willGrant),
        fetchKey: async () => this.key,
      },
      memory: { recall: (name) => this.#memory.get(name) ?? null, remember: (name, value) => this.#memory.set(name, value) },
      onChange: (state) => { this.shown = state; },
      post: async (method, path, { token, body }) => {
        this.asked.push([method, path, token, body?.endpoint].filter((it) => it !== undefined).join(" "));
        return this.refuses === null ? { status: 201, body: { id: "id of " + body?.endpoint } } : { problem: this.refuses };
      },
    });
  }

  async getSubscription() {
    return this.subscription;
  }

  async subscribe({ userVisibleOnly, applicationServerKey }) {
    assert.equal(userVisibleOnly, true);
    if (this.fails) throw new Error(this.fails);
    const made = Uint8Array.from(atob(applicationServerKey.replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const endpoint = `e${(this.count = (this.count ?? 0) + 1)}`;
    this.subscription = {
      options: { applicationServerKey: made.buffer },
      toJSON: () => ({ endpoint }),
      unsubscribe: async () => { this.subscription = null; },
    };
    return this.subscription;
  }
}

async function subscribed() {
  const fakes = new Fakes();
  const push = fakes.page();
  await push.signedIn("ada", "t1");
  await push.turnOn();
  return { fakes, push };
}

test("a browser that may is offered it, is subscribed at a click, and is given again at the next load", async () => {
  const fakes = new Fakes();
  const push = fakes.page();
  await push.signedIn("ada", "t1");
  assert.deepEqual(fakes.shown, { offered: true, on: false, problem: "" });
  assert.deepEqual(fakes.asked, []);
  await push.turnOn();
  assert.deepEqual(fakes.shown, { offered: true, on: true, problem: "" });
  await push.signedIn("ada", "t2");
  assert.deepEqual(fakes.asked, ["POST /api/push/subscriptions t1 e1"], "not at every reconnect");
  await fakes.page().signedIn("ada", "t3");
  assert.deepEqual(fakes.asked.slice(1), ["POST /api/push/subscriptions t3 e1"]);
  assert.equal(fakes.shown.on, true);
});

test("nothing is offered where the server has no key, the browser cannot, or the user has said no", async () => {
  for (const change of [{ key: null }, { permission: "denied" }]) {
    const fakes = Object.assign(new Fakes(), change);
    await fakes.page().signedIn("ada", "t");
    assert.equal(fakes.shown, null);
  }
  let shown = null;
  const old = new Push({ browser: null, memory: {}, onChange: (state) => { shown = state; } });
  await old.signedIn("ada", "t");
  assert.equal(shown, null);
  await old.signedOut();
  assert.equal(shown.offered, false);
});

test("who signs out leaves nothing behind, and what another user left is ended", async () => {
  const { fakes, push } = await subscribed();
  await push.signedOut();
  assert.equal(fakes.subscription, null);
  assert.deepEqual(fakes.asked.slice(1), ["DELETE /api/push/subscriptions/id%20of%20e1 t1"]);
  assert.deepEqual(fakes.shown, { offered: false, on: false, problem: "" });

  const other = await subscribed();
  await other.fakes.page().signedIn("bob", "t");
  assert.equal(other.fakes.subscription, null);
  assert.equal(other.fakes.asked.length, 1, "bob gives nothing");
  assert.deepEqual(other.fakes.shown, { offered: true, on: false, problem: "" });
});

test("with another key of the server's, and after the browser has replaced it, a new one is given", async () => {
  const { fakes, push } = await subscribed();
  fakes.key = "BB__";
  await fakes.page().signedIn("ada", "t2");
  assert.deepEqual(fakes.asked.slice(1), ["POST /api/push/subscriptions t2 e2"]);
  assert.equal(isFor(fakes.subscription, "BB__"), true);
  assert.equal(isFor(fakes.subscription, KEY), false);
  assert.equal(isFor({}, KEY), true, "browsers that do not say");
  fakes.subscription = null;
  fakes.key = KEY;
  await fakes.subscribe({ userVisibleOnly: true, applicationServerKey: KEY });
  await push.renewed();
  assert.deepEqual(fakes.asked.slice(2), ["POST /api/push/subscriptions t1 e3"]);
});

test("what goes wrong is said, and can be tried again", async () => {
  const fakes = new Fakes();
  const push = fakes.page();
  await push.signedIn("ada", "t");
  fakes.willGrant = "denied";
  await push.turnOn();
  assert.match(fakes.shown.problem, /allow it in its settings/);
  fakes.willGrant = "granted";
  fakes.fails = "push service not available";
  await push.turnOn();
  assert.match(fakes.shown.problem, /could not be subscribed \(push service not available\)/);
  fakes.fails = null;
  fakes.refuses = "no";
  await push.turnOn();
  assert.deepEqual(fakes.shown, { offered: true, on: false, problem: "no" });
  fakes.refuses = null;
  await push.turnOn();
  assert.deepEqual(fakes.shown, { offered: true, on: true, problem: "" });
  await push.turnOff();
  assert.deepEqual(fakes.shown, { offered: true, on: false, problem: "" });
  assert.equal(fakes.subscription, null);
});
