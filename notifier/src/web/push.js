// Whether this browser is told what happens while no page is open.

import { request } from "./api.js";

const SUBSCRIPTIONS = "/api/push/subscriptions";
/** Whose events this browser is told: a subscription is the browser's, and outlives a login. */
const OWNER = "push-owner";
/** What the server calls it. */
const ID = "push-id";

/** What of the browser is needed; null where it cannot. */
export function ofBrowser() {
  const can = "serviceWorker" in navigator && "PushManager" in window && "Notification" in window;
  if (!can) return null;
  return {
    worker: () => navigator.serviceWorker.getRegistration("/"),
    register: () => navigator.serviceWorker.register("/sw.js").then(() => navigator.serviceWorker.ready),
    permission: () => Notification.permission,
    askPermission: () => Notification.requestPermission(),
    fetchKey,
  };
}

/** The server's key, or null where it sends no pushes. */
async function fetchKey() {
  try {
    const response = await fetch("/api/push/key");
    return response.ok ? (await response.json()).key : null;
  } catch {
    return null;
  }
}

export class Push {
  #browser;
  #post;
  #memory;
  #onChange;
  #key = null;
  #user = null;
  #token = null;
  #last = Promise.resolve();

  /** `memory` is `{ recall, remember }`; `onChange` gets `{ offered, on, problem }`. */
  constructor({ browser, memory, onChange, post = request }) {
    this.#browser = browser;
    this.#memory = memory;
    this.#onChange = onChange;
    this.#post = post;
  }

  /** Somebody has signed in, or is connected again. */
  signedIn(user, token) {
    const isNew = user !== this.#user;
    [this.#user, this.#token] = [user, token];
    return isNew ? this.renewed() : this.#last;
  }

  /** Gives the server what the browser has now, which may have replaced it. */
  renewed() {
    const user = this.#user;
    return this.#inTurn(async () => {
      if (user === null || user !== this.#user) return;
      // One that was refused can only be allowed again in the browser's own settings.
      if (this.#browser === null || this.#browser.permission() === "denied") return;
      this.#key ??= await this.#browser.fetchKey();
      if (this.#key === null) return;
      const subscription = await this.#subscription();
      // What is for another user must not be shown to this one.
      if (subscription !== null && this.#memory.recall(OWNER) !== user) await subscription.unsubscribe();
      else if (subscription !== null) return this.#give(await this.#subscribe());
      this.#tell(false);
    });
  }

  /** Before the token is forgotten: the next user of this browser must not see what is for this one. */
  signedOut() {
    const [user, token] = [this.#user, this.#token];
    this.#user = this.#token = null;
    return this.#inTurn(async () => {
      await this.#leave(user, token);
      if (this.#user === null) this.#onChange({ offered: false, on: false, problem: "" });
    });
  }

  /** In answer to a click, without which browsers do not ask. */
  turnOn() {
    return this.#inTurn(async () => {
      if (await this.#browser.askPermission() !== "granted") {
        return this.#tell(false, "This browser may not show notifications: allow it in its settings for this site.");
      }
      await this.#browser.register();
      await this.#give(await this.#subscribe());
    });
  }

  turnOff() {
    return this.#inTurn(async () => {
      await this.#leave(this.#user, this.#token);
      this.#tell(false);
    });
  }

  async #subscription() {
    const worker = await this.#browser.worker();
    return (await worker?.pushManager.getSubscription()) ?? null;
  }

  /** The one that there is, if it was made for the server's key; else a new one. */
  async #subscribe() {
    const { pushManager } = await this.#browser.worker();
    const known = await pushManager.getSubscription();
    if (known !== null && isFor(known, this.#key)) return known;
    await known?.unsubscribe();
    return pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: this.#key });
  }

  async #give(subscription) {
    const unanswered = "Try again.";
    const { body, problem } = await this.#post("POST", SUBSCRIPTIONS, {
      token: this.#token, body: subscription.toJSON(), unanswered,
    });
    if (problem !== undefined) return this.#tell(false, problem);
    this.#memory.remember(OWNER, this.#user);
    this.#memory.remember(ID, body.id);
    this.#tell(true);
  }

  async #leave(user, token) {
    const subscription = this.#browser === null ? null : await this.#subscription();
    if (subscription === null) return;
    const id = encodeURIComponent(this.#memory.recall(ID) ?? "");
    // First here: it is what counts, and the server hears of it from the push service, too.
    await subscription.unsubscribe();
    if (this.#memory.recall(OWNER) !== user || id === "") return;
    await this.#post("DELETE", `${SUBSCRIPTIONS}/${id}`, { token, unanswered: "" });
  }

  #tell(on, problem = "") {
    this.#onChange({ offered: true, on, problem });
  }

  /** One after the other, and a browser that refuses is told to the user. */
  #inTurn(step) {
    this.#last = this.#last.then(step).catch((error) => {
      this.#tell(false, `This browser could not be subscribed (${error.message}).`);
    });
    return this.#last;
  }
}

/** Whether a subscription was made for this key. */
export function isFor(subscription, key) {
  const made = subscription.options?.applicationServerKey;
  if (!made) return true;
  const text = btoa(String.fromCharCode(...new Uint8Array(made)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "") === key;
}
