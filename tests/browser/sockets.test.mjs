// What the browser's own WebSocket makes of the notifier: the snippet of the fourth document that the project began
// with, and the ways in which a page can bring its token.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BASE_URL, launchBrowser, OPEN_URL, TOKEN } from "./support.mjs";

let browser;

before(async () => {
  browser = await launchBrowser();
});

after(() => browser?.close());

/** A page of the notifier at `url`: others may not connect to it. */
async function pageAt(context, url) {
  const page = await browser.newPage();
  context.after(() => page.close());
  await page.goto(url.href);
  return page;
}

/** How the page's sockets at these addresses, with these subprotocols, begin or end. */
function outcomes(page, sockets) {
  return page.evaluate((all) => Promise.all(all.map(([url, protocols]) => new Promise((resolve) => {
    const ws = new WebSocket(url, protocols);
    ws.onmessage = ({ data }) => resolve({ protocol: ws.protocol, frame: JSON.parse(data) });
    ws.onclose = ({ code, reason }) => resolve({ code, reason });
  }))), sockets);
}

test("the snippet of seed 004 runs as it is written", async (context) => {
  const page = await pageAt(context, OPEN_URL);
  const received = await page.evaluate((address) => new Promise((resolve) => {
    const seen = [];
    const console = {
      log: (label, message) => {
        seen.push({ label, message });
        if (message.type === "custom_event") resolve(seen);
      },
    };

    const ws = new WebSocket(
      `${address}/ws?room_id=room-123&user_id=user-456`,
    );

    ws.onmessage = (event) => {
      const message = JSON.parse(event.data);
      console.log("Received:", message);
    };

    // Not before it is open: a browser throws.
    ws.onopen = () => {
      // Отправить сообщение
      ws.send(
        JSON.stringify({
          type: "custom_event",
          payload: { data: "some data" },
        }),
      );
    };
  }), OPEN_URL.origin.replace("http", "ws"));
  assert.deepEqual(received.map(({ label, message }) => `${label} ${message.type}`), [
    "Received: connected", "Received: subscribed", "Received: custom_event",
  ]);
  const [{ message: connected }, , { message: custom }] = received;
  assert.deepEqual(connected.rooms, ["room-123"]);
  assert.equal(custom.room_id, "room-123");
  assert.equal(custom.from, "user-456");
  assert.deepEqual(custom.payload, { data: "some data" });
});

test("a page brings its token as a subprotocol, and hears by a code that it is no good", async (context) => {
  const page = await pageAt(context, BASE_URL);
  const url = `${BASE_URL.origin.replace("http", "ws")}/ws`;
  const [good, first, bad, query] = await outcomes(page, [
    [url, ["bellhop.v1", `bearer.${TOKEN}`]],
    [url, [`bearer.${TOKEN}`, "bellhop.v1"]],
    [url, ["bellhop.v1", "bearer.nonsense"]],
    [`${url}?token=nonsense`, []],
  ]);
  for (const answer of [good, first]) {
    assert.equal(answer.protocol, "bellhop.v1", "the token is not echoed");
    assert.equal(answer.frame.type, "connected");
  }
  for (const answer of [bad, query]) assert.deepEqual(answer, { code: 4501, reason: "invalid_token" });
});
