// What the page shows again after it was loaded anew: the server keeps it. See README.md for how to start both.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  cardOf, closeTab, launchBrowser, openTab, OTHER_TOKEN as token, startJob, waitForConnection, waitForStatus,
} from "./support.mjs";

const REFUSED_ARGS = '{"path":"../outside-the-root"}';

let browser;

before(async () => {
  browser = await launchBrowser();
});

after(() => browser?.close());

/** Waits until the server's board has a running task; its states come there a moment later than here. */
function waitForBoard(page, id) {
  return page.waitForFunction(async ([taskId, bearer]) => {
    const response = await fetch("/api/tasks?status=running", { headers: { authorization: `Bearer ${bearer}` } });
    return (await response.json()).tasks.some((task) => task.task_id === taskId && task.status === "running");
  }, [id, token]);
}

function barOf(page, id) {
  return cardOf(page, id).locator("progress").evaluate((bar) => bar.value);
}

test("after a reload the same tasks stand where they stood, and the connection goes on where it was", async (context) => {
  const tab = await openTab(context, browser, { token });
  const { page, addresses } = tab;
  await waitForConnection(page, "live");
  const endless = await startJob(page, { kind: "endless", args: "{}", title: "Endless" });
  await waitForStatus(page, endless, "running");
  const failed = await startJob(page, { args: REFUSED_ARGS, title: "Refused" });
  await waitForStatus(page, failed, "failed");
  const moving = await startJob(page, { title: "Moving" });
  await page.waitForFunction((id) => document.querySelector(`li[data-task-id="${id}"] progress`)?.value > 0, moving);
  await waitForBoard(page, endless);
  await waitForBoard(page, moving);
  const stood = await barOf(page, moving);
  const reason = await cardOf(page, failed).locator(".outcome").textContent();

  await page.reload();
  await waitForConnection(page, "live");
  // Nothing more is heard of these two before they are cancelled.
  await waitForStatus(page, endless, "running");
  await waitForStatus(page, failed, "failed");
  assert.equal(await cardOf(page, failed).locator(".outcome").textContent(), reason);
  assert.equal(await cardOf(page, endless).locator("h3").textContent(), "Endless");
  await page.waitForFunction(([id, least]) => {
    const card = document.querySelector(`li[data-task-id="${id}"]`);
    return card?.dataset.status === "succeeded" || card?.querySelector("progress").value >= least - 5;
  }, [moving, stood]);
  const sockets = addresses.filter((address) => address.startsWith("ws"));
  assert.equal(new URL(sockets[0]).search, "");
  assert.match(new URL(sockets.at(-1)).search, /^\?since=user\.[0-9a-f]+\.\d+$/);
  assert.match(await page.evaluate(() => sessionStorage.getItem("bellhop.position")), /^user\.[0-9a-f]+\.\d+$/);

  await cardOf(page, endless).locator(".cancel").click();
  await waitForStatus(page, endless, "cancelled");
  await waitForStatus(page, moving, "succeeded");
  await closeTab(tab);
});

test("what is unread is counted, and is read on every tab and after a reload", async (context) => {
  const tab = await openTab(context, browser, { token });
  const other = await openTab(context, browser, { token });
  const { page } = tab;
  const shows = (where, count) => where.waitForFunction(
    (text) => document.getElementById("unread").textContent === text && !document.getElementById("inbox").hidden,
    String(count),
  );
  for (const { page: each } of [tab, other]) await waitForConnection(each, "live");
  const before = Number(await page.textContent("#unread"));
  const failed = await startJob(page, { args: REFUSED_ARGS, title: "To be read" });
  await waitForStatus(page, failed, "failed");
  for (const { page: each } of [tab, other]) await shows(each, before + 1);
  await page.getByRole("button", { name: "Mark all read" }).focus();
  await page.keyboard.press("Enter");
  for (const { page: each } of [tab, other]) {
    await shows(each, 0);
    assert.equal(await each.locator("#read-all").isVisible(), false);
  }
  assert.equal(await page.evaluate(() => document.activeElement.id), "inbox");
  await page.reload();
  await waitForConnection(page, "live");
  await shows(page, 0);
  await closeTab(other);
  await closeTab(tab);
});

test("finished tasks that were cleared do not come back with the connection", async (context) => {
  const tab = await openTab(context, browser, { token });
  const { page } = tab;
  await waitForConnection(page, "live");
  const failed = await startJob(page, { args: REFUSED_ARGS, title: "Cleared" });
  await waitForStatus(page, failed, "failed");
  await page.click("#clear");
  await cardOf(page, failed).waitFor({ state: "detached" });
  await page.evaluate((bearer) => { location.hash = `token=${bearer}`; }, token);
  await page.waitForFunction(() => location.hash === "");
  await waitForConnection(page, "live");
  const later = await startJob(page, { args: REFUSED_ARGS, title: "After" });
  await waitForStatus(page, later, "failed");
  assert.equal(await cardOf(page, failed).count(), 0);
  await closeTab(tab);
});
