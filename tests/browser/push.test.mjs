// The service worker in a real Chromium: what it shows, and where a click leads. The browser's own push service cannot be
// reached from here, so the subscription is a double, and messages are put in by the browser's debugging protocol.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BASE_URL, closeTab, launchBrowser, openTab, TOKEN as token, waitForConnection } from "./support.mjs";

let browser;

before(async () => {
  browser = await launchBrowser();
});

after(() => browser?.close());

/** A subscription as a browser makes it; of RFC 8291. */
function doubleSubscription() {
  const keys = {
    p256dh: "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    auth: "BTBZMqHH6r4Tts7J_aSIgg",
  };
  let made = null;
  PushManager.prototype.getSubscription = async () => made;
  PushManager.prototype.subscribe = async ({ applicationServerKey, userVisibleOnly }) => {
    if (!userVisibleOnly || applicationServerKey.length !== 87) throw new Error(`${applicationServerKey}`);
    const endpoint = `https://push.example.com/${crypto.randomUUID()}`;
    made = { toJSON: () => ({ endpoint, expirationTime: null, keys }), unsubscribe: async () => { made = null; } };
    return made;
  };
}

/** A tab that may show notifications, subscribed, with the page's service worker and a way to push to it. */
async function subscribed(context) {
  const tab = await openTab(context, browser, { token: null, permissions: ["notifications"] });
  const { page } = tab;
  await page.context().addInitScript(doubleSubscription);
  await page.goto("about:blank");
  await page.goto(`${BASE_URL.href}#token=${token}`);
  await waitForConnection(page, "live");
  const started = page.context().waitForEvent("serviceworker");
  await page.click("text=Notify me when I'm away");
  await page.locator("#push-switch").filter({ hasText: "Stop notifying me" }).waitFor();
  const worker = await started;
  await worker.evaluate(countShown);
  const cdp = await page.context().newCDPSession(page);
  const registered = new Promise((resolve) => {
    cdp.on("ServiceWorker.workerRegistrationUpdated", ({ registrations }) => {
      const found = registrations.find(({ isDeleted }) => !isDeleted);
      if (found) resolve(found.registrationId);
    });
  });
  await cdp.send("ServiceWorker.enable");
  const registrationId = await registered;
  const push = (data) => cdp.send("ServiceWorker.deliverPushMessage", { origin: BASE_URL.origin, registrationId, data });
  return { tab, page, worker, push };
}

/** Has the worker count what it has shown. To ask the browser for it before it is on the screen can take it away again. */
function countShown() {
  const show = ServiceWorkerRegistration.prototype.showNotification;
  self.shown = 0;
  ServiceWorkerRegistration.prototype.showNotification = async function showAndCount(...what) {
    await show.apply(this, what);
    self.shown += 1;
  };
}

/** The notifications there are, once so many have been shown. */
async function notifications(worker, count) {
  const deadline = Date.now() + 20_000;
  while (await worker.evaluate(() => self.shown) < count) {
    assert.ok(Date.now() < deadline, `${count} notifications in time`);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
  return worker.evaluate(async () => {
    const all = await self.registration.getNotifications();
    return all.map(({ title, body, tag, data }) => ({ title, body, tag, url: data.url ?? null }));
  });
}

function subscriptions(page) {
  return page.evaluate(async (bearer) => {
    const response = await fetch("/api/push/subscriptions", { headers: { authorization: `Bearer ${bearer}` } });
    return (await response.json()).subscriptions;
  }, token);
}

test("a browser subscribes, and its worker shows what is pushed", async (context) => {
  const { tab, page, worker, push } = await subscribed(context);
  const [known] = await subscriptions(page);
  assert.deepEqual([known.origin, known.current], ["https://push.example.com", true]);
  const task = { title: "Sums", body: "Succeeded.", url: "/", tag: "task:1", event: { id: "1", type: "task" }, seq: 7 };
  await push(JSON.stringify(task));
  assert.deepEqual(await notifications(worker, 1), [{ title: "Sums", body: "Succeeded.", tag: "task:1", url: "/" }]);
  // A newer state of the same task stands in its place; what cannot be read is shown all the same.
  await push(JSON.stringify({ ...task, body: "Failed." }));
  await push("no JSON <b>");
  const shown = await notifications(worker, 3);
  assert.deepEqual(shown.map(({ title, body }) => [title, body]).sort(), [["Bellhop", "Something has happened."], ["Sums", "Failed."]]);

  await page.click("text=Stop notifying me");
  await page.locator("#push-switch").filter({ hasText: "Notify me" }).waitFor();
  assert.deepEqual(await subscriptions(page), []);
  await closeTab(tab);
});

test("a subscription that the browser has replaced is given to the server", async (context) => {
  const { tab, page, worker } = await subscribed(context);
  const [before] = await subscriptions(page);
  // What the page's push manager has now, as after the browser's own change.
  await page.evaluate(async () => {
    const registration = await navigator.serviceWorker.ready;
    await (await registration.pushManager.getSubscription()).unsubscribe();
    const { key } = await (await fetch("/api/push/key")).json();
    await registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  });
  const given = page.waitForResponse((response) => response.request().method() === "POST" && response.url().endsWith("/api/push/subscriptions"));
  await worker.evaluate(() => {
    const event = new ExtendableEvent("pushsubscriptionchange");
    event.newSubscription = {};
    self.dispatchEvent(event);
  });
  assert.equal((await given).status(), 201);
  const ids = (await subscriptions(page)).map(({ id }) => id);
  assert.equal(ids.length, 2);
  assert.ok(ids.includes(before.id));
  await page.click("text=Stop notifying me");
  await page.locator("#push-switch").filter({ hasText: "Notify me" }).waitFor();
  assert.deepEqual((await subscriptions(page)).map(({ id }) => id), [before.id]);
  await closeTab(tab);
});

test("a click leads to the page that is open, else opens one, and never another site", async (context) => {
  const { tab, page, worker, push } = await subscribed(context);
  // A click of the test's is not one of the user's, by which alone a worker may open and focus windows.
  const click = (tag) => worker.evaluate(async (wanted) => {
    let done;
    const seen = [];
    self.clients.openWindow = async (address) => seen.push(`open ${address}`);
    WindowClient.prototype.focus = async function focus() { seen.push(`focus ${new URL(this.url).pathname}`); };
    const [notification] = await self.registration.getNotifications({ tag: wanted });
    const event = new NotificationEvent("notificationclick", { notification });
    Object.defineProperty(event, "waitUntil", { value: (work) => { done = work; } });
    self.dispatchEvent(event);
    await done;
    return seen;
  }, tag);
  let count = 0;
  const one = async (url) => {
    count += 1;
    await push(JSON.stringify({ title: "Sums", tag: `${count}`, url }));
    await notifications(worker, count);
    return click(`${count}`);
  };
  const { origin } = BASE_URL;
  assert.deepEqual(await one("/"), ["focus /"]);
  assert.deepEqual(await one("/orders/7?x=1"), [`open ${origin}/orders/7?x=1`]);
  assert.deepEqual(await one("https://evil.example/"), ["focus /"]);
  assert.deepEqual(await one("//evil.example/"), ["focus /"]);
  await page.goto("about:blank");
  assert.deepEqual(await one("/"), [`open ${origin}/`]);
  await closeTab(tab);
});
