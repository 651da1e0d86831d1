// What the seeds of the project describe, done by Node's ws; amqplib is the backend. Run by scripts/client-test.

import assert from "node:assert/strict";
import { createHmac, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import amqp from "amqplib";
import WebSocket from "ws";

const { WS_URL, OPEN_WS_URL, AMQP_URL, SECRET_FILE } = process.env;
const PATIENCE_MS = 20_000;

let broker;
let channel;

before(async () => {
  broker = await amqp.connect(AMQP_URL);
  channel = await broker.createConfirmChannel();
});

after(() => broker.close());

// The notifier without logins is apart from the other, as "open.".
async function publish(audience, type, fields, prefix = "bellhop.") {
  const body = { type, id: randomUUID(), time: new Date().toISOString(), ...fields };
  channel.publish(`${prefix}events`, `live.${audience}.${type}`, Buffer.from(JSON.stringify(body)));
  await channel.waitForConfirms();
}

function token(user, rooms) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const head = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, iat: now, exp: now + 600, rooms })}`;
  const key = readFileSync(SECRET_FILE, "utf8").trim();
  return `${head}.${createHmac("sha256", key).update(head).digest("base64url")}`;
}

/** Everything that comes on a socket, in order. */
function inbox(context, ws) {
  context.after(() => ws.terminate());
  const waiting = [];
  const wanted = [];
  const put = (item) => (wanted.length > 0 ? wanted.shift()(item) : waiting.push(item));
  ws.on("message", (data) => put(JSON.parse(data)));
  ws.on("close", (code, reason) => put({ closed: code, reason: String(reason) }));
  ws.on("error", (error) => put({ error: error.message }));
  return {
    ws,
    next: () => (waiting.length > 0
      ? Promise.resolve(waiting.shift())
      : new Promise((resolve, reject) => {
        const late = setTimeout(() => reject(new Error("nothing came in time")), PATIENCE_MS);
        wanted.push((item) => { clearTimeout(late); resolve(item); });
      })),
    send: (frame) => ws.send(typeof frame === "string" ? frame : JSON.stringify(frame)),
  };
}

/** The next frame has these fields. */
async function sees(client, wants) {
  const got = await client.next();
  assert.deepEqual({ ...got, ...wants }, got);
  return got;
}

async function inTheOpen(context, user, room) {
  const client = inbox(context, new WebSocket(`${OPEN_WS_URL}?room_id=${room}&user_id=${user}`));
  await sees(client, { type: "connected", user_id: user, rooms: [room] });
  await sees(client, { type: "subscribed", room_id: room });
  return client;
}

async function loggedIn(context, user, rooms) {
  const client = inbox(context, new WebSocket(`${WS_URL}?token=${token(user, rooms)}`));
  await sees(client, { type: "connected", user_id: user });
  return client;
}

test("seed 001: a token by query, header, subprotocol and first frame", async (context) => {
  const ann = token("ann", []);
  const ways = [
    new WebSocket(`${WS_URL}?token=${ann}`),
    new WebSocket(WS_URL, { headers: { authorization: `Bearer ${ann}` } }),
    new WebSocket(WS_URL, ["bellhop.v1", `bearer.${ann}`]),
    new WebSocket(WS_URL),
  ];
  const clients = ways.map((ws) => inbox(context, ws));
  ways[3].on("open", () => clients[3].send({ type: "auth", token: ann }));
  for (const client of clients) await sees(client, { type: "connected", user_id: "ann" });
  assert.deepEqual(ways.map((ws) => ws.protocol), ["", "", "bellhop.v1", ""]);
});

test("seed 001: subscribe, the frames of a chat, unsubscribe, ping", async (context) => {
  const ann = await loggedIn(context, "ann", ["chat:uuid"]);
  ann.send({ type: "subscribe", chat_id: "uuid" });
  await sees(ann, { type: "subscribed", chat_id: "uuid" });
  const message = { id: "uuid", content: "Hello!", sender_id: "uuid", created_at: "2026-01-15T10:30:00Z" };
  await publish("chat.uuid", "message.sent", { data: message });
  await sees(ann, { type: "message.new", chat_id: "uuid", data: message });
  await publish("chat.uuid", "chat.updated", { data: { name: "New Chat Name" } });
  await sees(ann, { type: "chat.updated", chat_id: "uuid", data: { name: "New Chat Name" } });
  const note = { id: "uuid", title: "New task assigned", body: "You have been assigned to task #123" };
  await publish("user.ann", "notification.created", { data: note });
  await sees(ann, { type: "notification.new", data: note });
  ann.send({ type: "unsubscribe", chat_id: "uuid" });
  assert.deepEqual(await ann.next(), { type: "unsubscribed", chat_id: "uuid" });
  ann.send({ type: "ping" });
  assert.deepEqual(await ann.next(), { type: "pong" });
});

test("seed 001: a chat of others stays closed", async (context) => {
  const eve = await loggedIn(context, "eve", ["chat:another"]);
  eve.send({ type: "subscribe", chat_id: "uuid" });
  await sees(eve, { type: "error", code: "forbidden" });
});

test("seed 003: what one says all hear, and who leaves is gone", async (context) => {
  const ann = await inTheOpen(context, "ann", "chat-n");
  const bob = await inTheOpen(context, "bob", "chat-n");
  await sees(ann, { type: "user_joined", user_id: "bob" });
  bob.send({ type: "message", data: "Hello, all!" });
  for (const client of [ann, bob]) await sees(client, { type: "message", from: "bob", data: "Hello, all!" });
  bob.ws.close();
  await sees(ann, { type: "user_left", user_id: "bob" });
});

test("seed 004: its snippet, as it is written", async (context) => {
  const received = [];
  const arrived = new Promise((resolve) => {
    const console = {
      log: (label, message) => {
        received.push([label, message]);
        if (message.type === "custom_event") resolve();
      },
    };
    const ws = new WebSocket(
      `${OPEN_WS_URL}?room_id=room-123&user_id=user-456`,
    );
    context.after(() => ws.terminate());

    ws.onmessage = (event) => {
      const message = JSON.parse(event.data);
      console.log("Received:", message);
    };

    // Not before it is open: no client may.
    ws.onopen = () => ws.send(
      JSON.stringify({
        type: "custom_event",
        payload: { data: "some data" },
      }),
    );
  });
  await arrived;
  const types = received.map(([label, message]) => `${label} ${message.type}`);
  assert.deepEqual(types, ["Received: connected", "Received: subscribed", "Received: custom_event"]);
  assert.deepEqual(received[2][1].payload, { data: "some data" });
  assert.equal(received[2][1].from, "user-456");
});

test("seed 004: join_room, leave_room, ping, and who comes and goes", async (context) => {
  const ann = await inTheOpen(context, "ann", "room-n");
  const bob = await inTheOpen(context, "bob", "elsewhere");
  bob.send({ type: "join_room", room_id: "room-n" });
  await sees(bob, { type: "subscribed", room_id: "room-n" });
  await sees(ann, { type: "user_joined", room_id: "room-n", user_id: "bob" });
  bob.send({ type: "ping" });
  assert.deepEqual(await bob.next(), { type: "pong" });
  bob.send({ type: "leave_room", room_id: "room-n" });
  await sees(bob, { type: "unsubscribed", room_id: "room-n" });
  await sees(ann, { type: "user_left", room_id: "room-n", user_id: "bob" });
});

test("seed 004: the backend sends to a room and to all", async (context) => {
  const ann = await inTheOpen(context, "ann", "room-b");
  const bob = await inTheOpen(context, "bob", "room-c");
  const joined = { event: "user_joined", user_id: "user-456" };
  await publish("room.room-b", "room_event", { room_id: "room-b", payload: joined }, "open.");
  await sees(ann, { type: "room_event", room_id: "room-b", payload: joined }, "open.");
  await publish("room.room-b", "participant_joined", { payload: { participant_id: "p", participant_name: "Ann" } }, "open.");
  await sees(ann, { type: "participant_joined", room_id: "room-b" });
  await publish("room.room-b", "document_updated", { payload: { content: "# Title", updated_by: "user-456" } }, "open.");
  await sees(ann, { type: "document_updated", room_id: "room-b" });
  const maintenance = { message: "Server maintenance in 5 minutes" };
  await publish("all.all", "global_event", { payload: maintenance }, "open.");
  for (const client of [ann, bob]) await sees(client, { type: "global_event", payload: maintenance });
});
