import assert from "node:assert/strict";
import { test } from "node:test";
import { Inbox } from "../../../notifier/src/web/inbox.js";

const EPOCH = "00000000000000a1";

function connected(seq, unread) {
  const streams = [
    { audience: "user", id: "ada", epoch: EPOCH, seq },
    { audience: "all", id: "all", epoch: EPOCH, seq: 70 },
  ];
  return { type: "connected", streams, unread };
}

function event(fields) {
  return { type: "note", epoch: EPOCH, ...fields };
}

test("the position follows the user's own events, and never goes back within a life of the stream", () => {
  const inbox = new Inbox();
  inbox.receive(connected(4, 2));
  assert.equal(inbox.position, "", "what was missed comes first");
  const positions = [
    event({ type: "task.updated", seq: 3 }),
    event({ seq: 5, unread: 3 }),
    event({ type: "task.updated", seq: 4 }),
    event({ seq: 71 }),
    event({ type: "task.updated", seq: 99, room_id: "lobby" }),
    { type: "task.updated", data: {} },
    event({ seq: 6, unread: 4, epoch: "00000000000000a2" }),
  ].map((frame) => {
    inbox.receive(frame);
    return inbox.position.replace("user.00000000000000", "");
  });
  assert.deepEqual(positions, ["a1.3", "a1.5", "a1.5", "a1.5", "a1.5", "a1.5", "a2.6"]);
});

test("after what was missed, and when something is lost, it goes on where the server says", () => {
  const inbox = new Inbox(`user.${EPOCH}.9`);
  inbox.receive({ type: "resumed", recovered: false, streams: connected(3, 0).streams });
  assert.equal(inbox.position, `user.${EPOCH}.3`);
  inbox.receive({ type: "stream_reset", audience: "all", id: "all", epoch: EPOCH, seq: 8 });
  assert.equal(inbox.position, `user.${EPOCH}.3`);
  inbox.receive({ type: "stream_reset", audience: "user", id: "ada", epoch: "1", seq: 8 });
  assert.equal(inbox.position, "user.1.8");
  // Where nothing is kept.
  inbox.receive({ type: "resumed", recovered: false });
  assert.equal(inbox.position, "user.1.8");
});

test("the server counts what is unread, and all of it can be read", () => {
  const inbox = new Inbox();
  assert.deepEqual([inbox.unread, inbox.readAll()], [null, null]);
  inbox.receive(connected(4, 2));
  assert.deepEqual([inbox.unread, inbox.readAll()], [2, { type: "read", up_to: 4 }]);
  inbox.receive(event({ seq: 5, unread: 3 }));
  assert.deepEqual([inbox.unread, inbox.readAll()], [3, { type: "read", up_to: 5 }]);
  inbox.receive({ type: "inbox.updated", data: { unread: 1, mark: "read", up_to: 3 } });
  assert.equal(inbox.unread, 1);
  inbox.receive({ type: "read", unread: 0 });
  assert.deepEqual([inbox.unread, inbox.readAll()], [0, null]);
  inbox.receive({ type: "connected" });
  assert.equal(inbox.unread, null, "another instance keeps nothing");
});

test("a number that was counted earlier does not replace one that was counted later", () => {
  const inbox = new Inbox();
  inbox.receive(connected(4, 0));
  const read = (seq, unread) => ({ type: "inbox.updated", data: { unread, mark: "read", up_to: seq, epoch: EPOCH, seq } });
  const counts = [
    event({ seq: 5, unread: 1 }),
    read(6, 0), // overtakes the next
    event({ seq: 6, unread: 2 }),
    event({ seq: 7, unread: 1 }), // overtakes the next
    read(6, 0),
    read(7, 0),
    event({ seq: 1, unread: 1, epoch: "00000000000000a2" }),
  ].map((frame) => {
    inbox.receive(frame);
    return inbox.unread;
  });
  assert.deepEqual(counts, [1, 0, 0, 1, 1, 0, 1]);
  assert.equal(inbox.position, "user.00000000000000a2.1", "they were shown all the same");
  inbox.receive(connected(4, 3));
  assert.equal(inbox.unread, 3, "another connection begins anew");
});
