// Drives the page in a real browser, against a notifier and a worker that run. See README.md for how to start them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  answerTo, assertNoSidewaysScroll, assertReadable, barValues, Cable, cardOf, closeTab, fillJob, JOB_ARGS, JOB_DEADLINE,
  launchBrowser, openTab, secondsLeft, startJob, TOKEN, waitForConnection, waitForStatus, watchBars,
} from "./support.mjs";

const REFUSED_ARGS = '{"path":"../outside-the-root"}';
const LOST_CONNECTION = /WebSocket connection to .* failed|net::ERR_/;
const REFUSED_REQUEST = /the server responded with a status of 4\d\d/;

let browser;

before(async () => {
  browser = await launchBrowser();
});

after(() => browser?.close());

test("a job started by keyboard moves, ends, and shows its result", async (context) => {
  const tab = await openTab(context, browser);
  const { page } = tab;
  await waitForConnection(page, "live");
  // Of an earlier run against the same server.
  if (await page.locator("#read-all").isVisible()) {
    await page.click("#read-all");
    await page.locator("#read-all").waitFor({ state: "hidden" });
    await page.reload();
    await waitForConnection(page, "live");
  }
  await page.locator("#push-switch").waitFor();
  await watchBars(page);

  const stops = [];
  for (const text of [null, null, null, "files.checksum", JOB_ARGS, "Started by keyboard"]) {
    await page.keyboard.press("Tab");
    stops.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className));
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none", `no visible focus on ${stops.at(-1)}`);
    if (text === null) continue;
    await page.keyboard.press("Control+A");
    await page.keyboard.type(text);
  }
  assert.deepEqual(stops, ["skip", "push-switch", "sign-out", "kind", "args", "title"]);
  const { status, body } = await answerTo(page, async () => {
    await page.keyboard.press("Tab");
    await page.keyboard.press("Space");
  });
  assert.equal(status, 202, JSON.stringify(body));

  const id = body.task_id;
  await waitForStatus(page, id, "running");
  await waitForStatus(page, id, "succeeded");
  const values = await barValues(page, id);
  assert.ok(new Set(values.filter((value) => value > 0 && value < 100)).size >= 2, `the bar was only seen at ${values}`);
  assert.deepEqual(values, [...values].sort((a, b) => a - b), "the bar went back");

  const card = cardOf(page, id);
  assert.equal(await card.locator("h3").textContent(), "Started by keyboard");
  assert.match(await card.locator(".outcome").textContent(), /^Done in /);
  assert.equal(await card.locator("progress").isVisible(), false);
  await card.locator(".more summary").focus();
  await page.keyboard.press("Enter");
  await card.locator(".more pre").waitFor({ state: "visible" });
  assert.match(await card.locator(".more pre").textContent(), /^\{\n {2}"/);
  await page.waitForFunction(() => /Started by keyboard succeeded\./.test(document.getElementById("announcer").textContent));
  await closeTab(tab);
});

test("the token leaves the address bar, stays in the tab, and goes with signing out", async (context) => {
  const tab = await openTab(context, browser, { token: null });
  const { page, url } = tab;
  await page.waitForSelector("#sign-in:not([hidden])");
  await page.fill("#token", "not a token");
  await page.keyboard.press("Enter");
  assert.match(await page.textContent("#sign-in-status"), /not a token: one has three parts/);
  await page.fill("#token", TOKEN);
  await page.keyboard.press("Enter");
  await waitForConnection(page, "live");
  assert.notEqual((await page.textContent("#user")).trim(), "");

  await page.reload();
  await waitForConnection(page, "live");
  assert.equal(page.url(), url.href);
  await page.click("#sign-out");
  await waitForConnection(page, "idle");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.reload();
  await page.waitForSelector("#sign-in:not([hidden])");

  await page.evaluate((token) => { location.hash = `token=${token}`; }, TOKEN);
  await waitForConnection(page, "live");
  assert.equal(page.url(), url.href);
  await closeTab(tab);
});

test("a token the server refuses ends in the sign-in form, and not in endless attempts", async (context) => {
  const tab = await openTab(context, browser, { token: "bm90.YQ.dG9rZW4" });
  await waitForConnection(tab.page, "closed");
  assert.match(await tab.page.textContent("#sign-in-status"), /the server refused the token/);
  await assertReadable(tab.page, "refused");
  await closeTab(tab);
});

test("args that are not JSON are explained before anything is sent", async (context) => {
  const tab = await openTab(context, browser);
  const { page, addresses } = tab;
  await waitForConnection(page, "live");
  await fillJob(page, { args: '{"path": }' });
  await page.click("#job button[type=submit]");
  assert.match(await page.textContent("#job-status"), /^Args are not valid JSON: .+/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "args");
  assert.deepEqual(addresses.filter((address) => address.endsWith("/api/tasks")), []);
  await closeTab(tab);
});

test("a kind that is not open is refused in the server's words", async (context) => {
  const tab = await openTab(context, browser);
  const { page } = tab;
  tab.expected.push(REFUSED_REQUEST);
  await waitForConnection(page, "live");
  await fillJob(page, { kind: "not.open.to.anyone" });
  const { status, body } = await answerTo(page, () => page.click("#job button[type=submit]"));
  assert.ok(status >= 400 && status < 500, `status ${status}`);
  await page.waitForSelector('#job-status[data-tone="bad"]');
  assert.equal(await page.textContent("#job-status"), body.error.message);
  assert.equal(await page.locator("li.task", { hasText: "not.open.to.anyone" }).count(), 0);
  await closeTab(tab);
});

test("a job that fails says why, and what it is called cannot become markup", async (context) => {
  const tab = await openTab(context, browser);
  const { page } = tab;
  await waitForConnection(page, "live");
  const title = "<img src=x onerror=alert(1)> & <b>bold</b>";
  const id = await startJob(page, { args: REFUSED_ARGS, title });
  await waitForStatus(page, id, "failed");
  const card = cardOf(page, id);
  assert.match(await card.locator(".outcome").textContent(), /^Failed.*: .*outside-the-root.* \(\w+\)$/);
  assert.equal(await card.locator("h3").textContent(), title);
  assert.equal(await page.locator("#tasks img, #tasks b").count(), 0);
  await closeTab(tab);
});

test("a job in steps says where it is and how fast, and its log can be opened and stays", async (context) => {
  const tab = await openTab(context, browser);
  const { page } = tab;
  await waitForConnection(page, "live");
  const id = await startJob(page, { kind: "invoices.import", args: "{}", title: "Import" });
  const card = cardOf(page, id);
  // In one look at each frame: there is a rate for little more than half a second.
  const look = await page.waitForFunction((element) => {
    const steps = [...element.querySelectorAll(".steps li")].map((step) => step.textContent);
    if (!steps.some((step) => /^2 of 2: Book · \d+% · \d+ of 10 invoices · [\d.]+ invoices\/s$/.test(step))) return null;
    return { left: element.querySelector(".left").textContent, message: element.querySelector(".message").textContent };
  }, await card.elementHandle(), { timeout: JOB_DEADLINE });
  const { left, message } = await look.jsonValue();
  assert.match(left, /^about \d+ s left$/, "the last step's end is the end of all");
  assert.match(message, /^invoice 2024-/);
  assert.equal(await card.locator("pre.log").isVisible(), false, "the log is closed at first");
  await card.locator(".lines summary").focus();
  await page.keyboard.press("Enter");
  await card.locator("pre.log").waitFor({ state: "visible" });
  await assertReadable(page, "steps and log");
  if (process.env.SCREENSHOTS) await card.screenshot({ path: `${process.env.SCREENSHOTS}/steps.png` });
  await assertNoSidewaysScroll(page);

  await waitForStatus(page, id, "failed");
  assert.equal(await card.locator(".steps").isVisible(), false);
  const lines = (await card.locator("pre.log").textContent()).split("\n");
  assert.match(lines[0], /^\d\d:\d\d:\d\d {2}10 invoices to book$/);
  assert.match(lines.at(-1), /Radia Perlman: 64000 cents$/, "the last line before the end");
  assert.equal(await card.locator(".lines summary").textContent(), `Log: ${lines.length} lines`);
  await closeTab(tab);
});

test("a running job is cancelled by keyboard, asked for once, and the focus stays in its card", async (context) => {
  const tab = await openTab(context, browser);
  const { page } = tab;
  await waitForConnection(page, "live");
  const orders = [];
  // The order goes out when the test says so, and the page has to bear with it until then.
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  // Before the job starts: the browser says that requests are held a moment before it holds them.
  await page.route("**/api/tasks/*", async (route) => {
    orders.push(`${route.request().method()} ${new URL(route.request().url()).pathname}`);
    await released;
    await route.continue();
  });
  const id = await startJob(page, { kind: "endless", args: "{}", title: "Endless" });
  await waitForStatus(page, id, "running");
  const card = cardOf(page, id);
  await card.getByRole("button", { name: "Cancel Endless", exact: true }).focus();
  await page.keyboard.press("Enter");
  await card.locator('.cancel[aria-disabled="true"]').waitFor();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Space");
  assert.equal(await card.locator(".cancel").textContent(), "Cancel", "nobody has taken the order yet");
  await assertReadable(page, "asked to cancel");
  release();
  await waitForStatus(page, id, "cancelled");
  assert.deepEqual(orders, [`DELETE /api/tasks/${id}`]);
  assert.equal(await card.locator(".cancel").isVisible(), false);
  assert.equal(await card.locator(".more summary").evaluate((summary) => summary === document.activeElement), true);
  await page.waitForFunction(() => /Endless cancelled\./.test(document.getElementById("announcer").textContent));
  await closeTab(tab);
});

test("an order that is refused is explained in the card, and can be given again", async (context) => {
  const tab = await openTab(context, browser);
  const { page } = tab;
  tab.expected.push(/the server responded with a status of 503|net::ERR_FAILED/);
  await waitForConnection(page, "live");
  const answers = [
    (route) => route.fulfill({ status: 503, json: { error: { code: "broker_unavailable", message: "no broker" } } }),
    (route) => route.abort(),
  ];
  await page.route("**/api/tasks/*", (route) => (answers.shift() ?? ((last) => last.continue()))(route));
  const id = await startJob(page, { kind: "endless", args: "{}" });
  await waitForStatus(page, id, "running");
  const card = cardOf(page, id);
  await card.locator(".cancel").click();
  const problem = card.getByRole("alert");
  await problem.filter({ hasText: /^no broker$/ }).waitFor();
  await page.mouse.move(0, 0);
  await assertReadable(page, "refused to cancel");
  await card.locator('.cancel[aria-disabled="false"]').click();
  await problem.filter({ hasText: /^No answer from the server \(.+\)\. The task may be cancelled all the same/ }).waitFor();
  await card.locator('.cancel[aria-disabled="false"]').click();
  await waitForStatus(page, id, "cancelled");
  assert.equal(await problem.isVisible(), false);
  await closeTab(tab);
});

test("a scheduled job counts down to its time, and ends then if it was cancelled", async (context) => {
  const tab = await openTab(context, browser);
  const { page } = tab;
  await waitForConnection(page, "live");
  const id = await page.evaluate(async (token) => {
    const body = JSON.stringify({ kind: "endless", title: "Later", delay_s: 15 });
    const response = await fetch("/api/tasks", { method: "POST", headers: { authorization: `Bearer ${token}` }, body });
    return (await response.json()).task_id;
  }, TOKEN);
  await waitForStatus(page, id, "scheduled");
  const card = cardOf(page, id);
  const next = card.locator(".next");
  assert.match(await next.textContent(), /^Starts at .*\d:\d\d:\d\d.*, in \d+ s$/);
  const seconds = await secondsLeft(card);
  await page.waitForFunction(
    ([taskId, before]) => Number(/in (\d+) s/.exec(document.querySelector(`li[data-task-id="${taskId}"] .next`).textContent)?.[1]) < before,
    [id, seconds],
  );
  await card.locator(".cancel").click();
  await card.getByRole("button", { name: "Cancelling… Later", exact: true }).waitFor();
  assert.equal(await card.locator(".outcome").textContent(), "It will not run.");
  assert.match(await next.textContent(), /^Ends at the latest at /);
  await assertReadable(page, "cancelling");
  await waitForStatus(page, id, "cancelled");
  assert.equal(await next.isVisible(), false);
  await closeTab(tab);
});

test("a job that is to be tried again says when", async (context) => {
  const tab = await openTab(context, browser, { viewport: { width: 360, height: 740 } });
  const { page } = tab;
  await waitForConnection(page, "live");
  const id = await startJob(page, { kind: "busy", args: "{}", title: "Busy" });
  await waitForStatus(page, id, "retrying");
  const card = cardOf(page, id);
  assert.match(await card.locator(".outcome").textContent(), /^To be tried again\. Attempt 1 failed: .*the ledger is busy/);
  assert.match(await card.locator(".next").textContent(), /^Next attempt at .*\d:\d\d:\d\d.*, in \d+ (d|h|min|s)/);
  const at = Date.parse(await card.locator(".next time").getAttribute("datetime"));
  assert.ok(at > Date.now() && at < Date.now() + 24 * 3600 * 1000, new Date(at).toISOString());
  assert.equal(await card.locator(".cancel").isVisible(), true);
  await assertReadable(page, "retrying");
  await assertNoSidewaysScroll(page);
  if (process.env.SCREENSHOTS) await card.screenshot({ path: `${process.env.SCREENSHOTS}/retrying.png` });
  await closeTab(tab);
});

test("a cut connection is shown and made again, whatever ended meanwhile", async (context) => {
  const cable = await Cable.lay(context);
  const tab = await openTab(context, browser, { url: cable.url });
  const { page } = tab;
  tab.expected.push(LOST_CONNECTION);
  await waitForConnection(page, "live");
  const cutOff = await startJob(page, { title: "Cut off" });
  await waitForStatus(page, cutOff, "running");

  cable.cut();
  await waitForConnection(page, "waiting");
  // The first waits may be over before anybody has read them.
  await page.locator("#connection-text").filter({ hasText: /^Reconnecting in \d+ s: / }).waitFor();
  await page.waitForSelector(`li[data-task-id="${cutOff}"][data-doubted]`);
  await assertReadable(page, "waiting");

  // Another tab of the same user, which is not cut off, tells when the job has ended.
  const witness = await openTab(context, browser);
  await waitForConnection(witness.page, "live");
  const later = await startJob(witness.page, { title: "Started while the other tab was cut off" });
  await waitForStatus(witness.page, later, "succeeded");
  // When the witness never heard of the first job, it ended before the witness was there.
  if (await cardOf(witness.page, cutOff).count() > 0) await waitForStatus(witness.page, cutOff, "succeeded");
  await closeTab(witness);

  cable.mend();
  // The page may be faster than the hand.
  await page.click("#reconnect", { timeout: 1000 }).catch(() => {});
  await waitForConnection(page, "live");
  const standing = await cardOf(page, cutOff).evaluate((card) => ({ ...card.dataset }));
  assert.ok("doubted" in standing || standing.status === "succeeded", JSON.stringify(standing));

  const afterwards = await startJob(page, { title: "After the cut" });
  await waitForStatus(page, afterwards, "succeeded");
  await closeTab(tab);
});

test("the page reconnects by itself", async (context) => {
  const cable = await Cable.lay(context);
  const tab = await openTab(context, browser, { url: cable.url });
  tab.expected.push(LOST_CONNECTION);
  await waitForConnection(tab.page, "live");
  cable.cut();
  await waitForConnection(tab.page, "waiting");
  cable.mend();
  await waitForConnection(tab.page, "live");
  await closeTab(tab);
});

test("on a phone nothing is wider than the screen, and dark is dark and light is light", async (context) => {
  const tab = await openTab(context, browser, { viewport: { width: 360, height: 740 } });
  const { page } = tab;
  await waitForConnection(page, "live");
  await assertNoSidewaysScroll(page);
  const failed = await startJob(page, { args: REFUSED_ARGS, title: "unbroken".repeat(20) });
  await waitForStatus(page, failed, "failed");
  const moving = await startJob(page, { title: "On a phone" });
  await waitForStatus(page, moving, "running");
  await assertNoSidewaysScroll(page);

  const lightness = {};
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await assertReadable(page, colorScheme);
    lightness[colorScheme] = await page.evaluate(() => {
      const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
      return (red + green + blue) / 3;
    });
  }
  assert.ok(lightness.light > 200 && lightness.dark < 50, JSON.stringify(lightness));

  await waitForStatus(page, moving, "succeeded");
  await cardOf(page, moving).locator(".more summary").click();
  await cardOf(page, moving).locator(".more pre").waitFor({ state: "visible" });
  await assertNoSidewaysScroll(page);
  await closeTab(tab);
});

const PICTURES = [
  { name: "light", colorScheme: "light", viewport: { width: 1180, height: 800 } },
  { name: "dark", colorScheme: "dark", viewport: { width: 1180, height: 800 } },
  { name: "phone", colorScheme: "light", viewport: { width: 360, height: 1240 } },
];

for (const { name, ...look } of process.env.SCREENSHOTS ? PICTURES : []) {
  test(`picture: ${name}`, async (context) => {
    const tab = await openTab(context, browser, { ...look, deviceScaleFactor: 2 });
    const { page } = tab;
    const reaches = (id, percent) => page.waitForFunction(
      ([taskId, least]) => document.querySelector(`li[data-task-id="${taskId}"] progress`)?.value >= least,
      [id, percent],
      { timeout: JOB_DEADLINE },
    );
    await waitForConnection(page, "live");
    await waitForStatus(page, await startJob(page, { title: "Checksums of the backup" }), "succeeded");
    await waitForStatus(page, await startJob(page, { args: REFUSED_ARGS, title: "Checksums of a folder elsewhere" }), "failed");
    const first = await startJob(page, { title: "Manifest of the photo archive" });
    await reaches(first, 25);
    const second = await startJob(page, { title: "Manifest of the release" });
    await page.fill("#title", "");
    await page.evaluate(() => document.activeElement.blur());
    await page.mouse.move(0, 0);
    await reaches(second, 20);
    await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png` });
    // The next tab would see them too.
    for (const id of [first, second]) await waitForStatus(page, id, "succeeded");
    await closeTab(tab);
  });
}
