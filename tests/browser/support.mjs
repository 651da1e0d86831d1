// What the page's tests need around them: a browser, a connection that can be cut, and eyes.

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { chromium } from "playwright-core";

export const BASE_URL = new URL(required("BASE_URL", "the address of a running notifier, e.g. http://127.0.0.1:8080"));
export const OPEN_URL = new URL(required("OPEN_URL", "the address of another one, in auth.mode none"));
export const TOKEN = required("TOKEN", "a token of that notifier, as `notifier token --user ada` prints it");
/** For tests of what is kept, which other tests would disturb. */
export const OTHER_TOKEN = required("OTHER_TOKEN", "a token of that notifier for another user");
/** Of a job that runs for some seconds, so that there is something to watch. */
export const JOB_ARGS = process.env.JOB_ARGS ?? '{"path":"."}';
/** Milliseconds for a whole job. */
export const JOB_DEADLINE = 90_000;

function required(name, meaning) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: it is ${meaning}`);
  return value;
}

export function launchBrowser() {
  // Each launch has a profile of its own, in a temporary folder that goes with it.
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
}

/** Stands between the browser and the notifier, and can be cut like a cable. */
export class Cable {
  #server = createServer((socket) => this.#join(socket));
  #sockets = new Set();
  #isCut = false;

  /** Gone when the test `context` ends, however it ends. */
  static async lay(context) {
    const cable = new Cable();
    context.after(() => cable.#remove());
    cable.#server.listen(0, "127.0.0.1");
    await once(cable.#server, "listening");
    return cable;
  }

  get url() {
    return new URL(`http://127.0.0.1:${this.#server.address().port}/`);
  }

  cut() {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend() {
    this.#isCut = false;
  }

  #remove() {
    this.cut();
    this.#server.close();
  }

  #join(near) {
    if (this.#isCut) return near.destroy();
    const far = connect(Number(BASE_URL.port || 80), BASE_URL.hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      this.#sockets.add(one);
      one.pipe(other);
      // An error is always followed by a close, and the other end is told by that.
      one.on("error", () => {});
      one.on("close", () => {
        this.#sockets.delete(one);
        other.destroy();
      });
    }
  }
}

/** A tab of its own for the test `context`, with a list of everything that went wrong in it. */
export async function openTab(context, browser, { url = BASE_URL, token = TOKEN, ...options } = {}) {
  const profile = await browser.newContext({ viewport: { width: 1180, height: 820 }, ...options });
  context.after(() => profile.close());
  const page = await profile.newPage();
  const tab = { page, url, troubles: [], addresses: [], expected: [] };
  page.on("pageerror", (error) => tab.troubles.push(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") tab.troubles.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => tab.addresses.push(request.url()));
  page.on("websocket", (socket) => tab.addresses.push(socket.url()));
  await page.goto(token === null ? url.href : `${url.href}#token=${token}`);
  return tab;
}

/** Closes the tab and fails for errors other than the `expected` ones, and for a request to any other host. */
export async function closeTab({ page, url, troubles, addresses, expected }) {
  await page.context().close();
  assert.deepEqual(troubles.filter((text) => !expected.some((pattern) => pattern.test(text))), []);
  assert.ok(addresses.some((address) => address.startsWith("ws")), "the page opened no WebSocket");
  assert.deepEqual(addresses.filter((address) => new URL(address).host !== url.host), []);
}

export function waitForConnection(page, state) {
  return page.waitForSelector(`#connection[data-state="${state}"]`, { timeout: 30_000 });
}

export function cardOf(page, id) {
  return page.locator(`li[data-task-id="${id}"]`);
}

export async function waitForStatus(page, id, status) {
  await page.waitForSelector(`li[data-task-id="${id}"][data-status="${status}"]`, { timeout: JOB_DEADLINE });
}

/** Seconds until the next attempt, as the card says. */
export async function secondsLeft(card) {
  return Number(/in (\d+) s/.exec(await card.locator(".next").textContent())[1]);
}

export async function fillJob(page, { kind = "files.checksum", args = JOB_ARGS, title = "" }) {
  await page.fill("#kind", kind);
  await page.fill("#args", args);
  await page.fill("#title", title);
}

/** Does what `submit` does and returns the server's answer to it as `{ status, body }`. */
export async function answerTo(page, submit) {
  const [response] = await Promise.all([page.waitForResponse("**/api/tasks"), submit()]);
  return { status: response.status(), body: await response.json() };
}

/** Starts a job through the form and returns its id. */
export async function startJob(page, job = {}) {
  await fillJob(page, job);
  const { status, body } = await answerTo(page, () => page.click("#job button[type=submit]"));
  assert.equal(status, 202, JSON.stringify(body));
  return body.task_id;
}

/** From now on, notes every value of every progress bar; `barValues` reads them. */
export function watchBars(page) {
  return page.evaluate(() => {
    window.barValues = {};
    new MutationObserver((changes) => {
      for (const { target } of changes) {
        if (target.localName !== "progress" || !target.hasAttribute("value")) continue;
        const id = target.closest("li").dataset.taskId;
        (window.barValues[id] ??= []).push(target.value);
      }
    }).observe(document.getElementById("task-list"), { subtree: true, attributeFilter: ["value"] });
  });
}

export function barValues(page, id) {
  return page.evaluate((taskId) => window.barValues[taskId] ?? [], id);
}

/** Fails for text whose contrast with what is behind it is under 4.5 to 1, the bar of WCAG AA. */
export async function assertReadable(page, where) {
  const poor = await page.evaluate(() => {
    const channels = (color) => color.match(/[\d.]+/g).map(Number);
    const luminance = (color) => {
      const [red, green, blue] = channels(color).map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = (node) => {
      for (let at = node; at !== null; at = at.parentElement) {
        const color = getComputedStyle(at).backgroundColor;
        if (channels(color)[3] !== 0) return color;
      }
      return "rgb(255, 255, 255)";
    };
    const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== "");
    return [...document.body.querySelectorAll("*")]
      .filter((node) => node.checkVisibility() && (hasText(node) || node.value))
      .map((node) => {
        const [light, dark] = [luminance(getComputedStyle(node).color), luminance(behind(node))].sort((a, b) => b - a);
        return { node, ratio: (light + 0.05) / (dark + 0.05) };
      })
      .filter(({ ratio }) => ratio < 4.5)
      .map(({ node, ratio }) => `${node.localName}.${node.className} "${node.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`);
  });
  assert.deepEqual(poor, [], where);
}

export async function assertNoSidewaysScroll(page) {
  const [content, view] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= view, `the page is ${content} px wide in a view of ${view} px`);
}
