"""What the seeds of the project describe, done by clients that know nothing of Bellhop.

Python's websockets talks to a notifier with tokens and to one without, pika is the backend. Run by scripts/client-test,
which starts what is needed and says where it is.
"""

import base64
import datetime
import hashlib
import hmac
import json
import os
import sys
import time
import traceback
import uuid

import pika
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PATIENCE_S = 20
WS_URL, OPEN_WS_URL = os.environ["WS_URL"], os.environ["OPEN_WS_URL"]

# The frames of the documents, letter by letter.
SUBSCRIBE = """{
    "type": "subscribe",
    "chat_id": "uuid"
}"""
UNSUBSCRIBE = """{
    "type": "unsubscribe", 
    "chat_id": "uuid"
}"""
PING = """{
    "type": "ping"
}"""
MESSAGE_NEW = """{
    "type": "message.new",
    "chat_id": "uuid",
    "data": {
        "id": "uuid",
        "content": "Hello!",
        "sender_id": "uuid",
        "created_at": "2026-01-15T10:30:00Z"
    }
}"""
CHAT_UPDATED = """{
    "type": "chat.updated",
    "chat_id": "uuid",
    "data": {
        "name": "New Chat Name"
    }
}"""
NOTIFICATION_NEW = """{
    "type": "notification.new",
    "data": {
        "id": "uuid",
        "title": "New task assigned",
        "body": "You have been assigned to task #123"
    }
}"""
PONG = """{
    "type": "pong"
}"""


def token(user, rooms, lifetime_s=600, **more):
    """A JSON Web Token as any library makes it."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + lifetime_s, "rooms": rooms, **more}
    head = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    with open(os.environ["SECRET_FILE"], "rb") as file:
        secret = file.read().strip()
    return (head + b"." + part(hmac.digest(secret, head, hashlib.sha256))).decode()


class Client:
    """A connection, past its first frame."""

    def __init__(self, socket):
        self.socket = socket
        self.connected = self.next()
        assert self.connected["type"] == "connected", self.connected

    def next(self):
        return json.loads(self.socket.recv(timeout=PATIENCE_S))

    def send(self, frame):
        self.socket.send(frame if isinstance(frame, str) else json.dumps(frame))

    def ask(self, frame):
        self.send(frame)
        return self.next()

    def sees(self, example):
        """The next frame is the example, and perhaps more fields."""
        wants, got = (json.loads(example) if isinstance(example, str) else example), self.next()
        assert got | wants == got, f"{got} instead of {wants}"
        return got

    def close(self):
        self.socket.close()


def by_query(user, rooms=()):
    return Client(connect(f"{WS_URL}?token={token(user, list(rooms))}"))


def by_header(user, rooms=()):
    headers = {"Authorization": f"Bearer {token(user, list(rooms))}"}
    return Client(connect(WS_URL, additional_headers=headers))


def in_the_open(user, room=None):
    client = Client(connect(f"{OPEN_WS_URL}?" + (f"room_id={room}&" if room else "") + f"user_id={user}"))
    if room:
        client.sees({"type": "subscribed", "room_id": room})
    return client


class Backend:
    def __init__(self, prefix="bellhop."):
        self.exchange = f"{prefix}events"
        self.channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
        self.channel.confirm_delivery()

    def send(self, audience, kind, klass="live", **fields):
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        body = {"type": kind, "id": str(uuid.uuid4()), "time": now, **fields}
        self.channel.basic_publish(self.exchange, f"{klass}.{audience}.{kind}", json.dumps(body))


def data_of(example):
    return json.loads(example)["data"]


# --- seed 001 ------------------------------------------------------------------


def the_token_comes_by_query_or_header(_):
    for client in (by_query("ann"), by_header("ann")):
        assert client.connected["user_id"] == "ann"
        client.close()


def without_a_good_token_nobody_stays(_):
    socket = connect(f"{WS_URL}?token=nonsense")
    try:
        socket.recv(timeout=PATIENCE_S)
        raise AssertionError("a frame instead of a close")
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 4501, closed


def each_event_of_the_bus_becomes_its_frame(backend):
    ann = by_query("ann", ["chat:uuid"])
    ann.send(SUBSCRIBE)
    ann.sees({"type": "subscribed", "chat_id": "uuid"})
    backend.send("chat.uuid", "message.sent", data=data_of(MESSAGE_NEW))
    ann.sees(MESSAGE_NEW)
    backend.send("chat.uuid", "chat.updated", data=data_of(CHAT_UPDATED))
    ann.sees(CHAT_UPDATED)
    backend.send("user.ann", "notification.created", data=data_of(NOTIFICATION_NEW))
    notification = ann.sees(NOTIFICATION_NEW)
    assert "chat_id" not in notification
    backend.send("user.ann", "task.status_changed", data={"task_id": "t", "status": "done"})
    ann.sees({"type": "task.updated", "data": {"task_id": "t", "status": "done"}})
    ann.close()


def a_ping_is_answered_by_exactly_this_pong(_):
    ann = by_query("ann")
    assert ann.ask(PING) == json.loads(PONG)
    ann.close()


def after_unsubscribe_the_chat_is_silent(backend):
    ann = by_query("ann", ["chat:uuid"])
    ann.ask(SUBSCRIBE)
    assert ann.ask(UNSUBSCRIBE) == {"type": "unsubscribed", "chat_id": "uuid"}
    backend.send("chat.uuid", "message.sent", data=data_of(MESSAGE_NEW))
    backend.send("user.ann", "note", data="last")
    ann.sees({"type": "note", "data": "last"})
    ann.close()


def who_is_no_member_of_the_chat_gets_nothing_of_it(backend):
    ann, eve = by_query("ann", ["chat:uuid"]), by_query("eve", ["chat:another"])
    ann.ask(SUBSCRIBE)
    refused = eve.ask(SUBSCRIBE)
    assert (refused["type"], refused["code"]) == ("error", "forbidden"), refused
    backend.send("chat.uuid", "message.sent", data=data_of(MESSAGE_NEW))
    ann.sees(MESSAGE_NEW)
    backend.send("user.eve", "note", data="last")
    eve.sees({"type": "note", "data": "last"})
    ann.close()
    eve.close()


def several_clients_of_a_chat_get_each_message(backend):
    clients = [by_query(f"user-{n}", ["chat:uuid"]) for n in range(3)]
    for client in clients:
        client.ask(SUBSCRIBE)
    backend.send("chat.uuid", "message.sent", data=data_of(MESSAGE_NEW))
    for client in clients:
        while (frame := client.next())["type"] == "user_joined":
            pass
        assert frame["type"] == "message.new", frame
        client.close()


def who_disconnects_is_out_of_the_chat_and_subscribes_again(backend):
    ann, bob = by_query("ann", ["chat:uuid"]), by_query("bob", ["chat:uuid"])
    ann.ask(SUBSCRIBE)
    bob.ask(SUBSCRIBE)
    ann.sees({"type": "user_joined", "chat_id": "uuid", "user_id": "bob"})
    bob.close()
    ann.sees({"type": "user_left", "chat_id": "uuid", "user_id": "bob"})
    bob = by_query("bob", ["chat:uuid"])
    backend.send("chat.uuid", "message.sent", data=data_of(MESSAGE_NEW))
    ann.sees(MESSAGE_NEW)
    assert bob.ask(SUBSCRIBE)["type"] == "subscribed", "the message before was not his"
    ann.close()
    bob.close()


def the_heartbeat_of_the_protocol_is_answered(_):
    ann = by_query("ann")
    assert ann.socket.ping().wait(PATIENCE_S)
    ann.close()


def a_message_has_64_kib_and_no_more(_):
    ann = by_query("ann")
    frame = '{"type":"ping","pad":"%s"}'
    fill = 65536 - len(frame) + 2
    assert ann.ask(frame % ("x" * fill))["type"] == "pong"
    ann.send(frame % ("x" * (fill + 1)))
    try:
        ann.next()
        raise AssertionError("an answer instead of a close")
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 1009, closed


# --- seed 003 ------------------------------------------------------------------


def a_message_goes_to_all_who_are_connected(_):
    clients = {user: in_the_open(user, "chat") for user in ("ann", "bob", "eve")}
    clients["ann"].send({"type": "message", "data": "Hello, all!"})
    for client in clients.values():
        while (frame := client.next())["type"] == "user_joined":
            pass
        assert (frame["type"], frame["from"], frame["data"]) == ("message", "ann", "Hello, all!"), frame
    # Who leaves is not in anybody's way.
    clients.pop("eve").close()
    for client in clients.values():
        client.sees({"type": "user_left", "user_id": "eve"})
    clients["bob"].send({"type": "message", "data": "Bye"})
    for client in clients.values():
        client.sees({"type": "message", "from": "bob", "data": "Bye"})
        client.close()


# --- seed 004 ------------------------------------------------------------------


def the_address_names_user_and_room(_):
    client = Client(connect(f"{OPEN_WS_URL}?room_id=room-123&user_id=user-456"))
    assert client.connected["user_id"] == "user-456"
    assert client.connected["rooms"] == ["room-123"]
    client.close()


def rooms_are_joined_and_left(_):
    ann, bob = in_the_open("ann", "room-123"), in_the_open("bob")
    assert bob.ask({"type": "join_room", "room_id": "room-123"})["type"] == "subscribed"
    ann.sees({"type": "user_joined", "room_id": "room-123", "user_id": "bob"})
    assert bob.ask({"type": "ping"}) == {"type": "pong"}
    assert bob.ask({"type": "leave_room", "room_id": "room-123"})["type"] == "unsubscribed"
    ann.sees({"type": "user_left", "room_id": "room-123", "user_id": "bob"})
    ann.close()
    bob.close()


def a_custom_type_goes_to_the_room_as_it_is(_):
    ann, bob = in_the_open("ann", "room-123"), in_the_open("bob", "room-123")
    ann.sees({"type": "user_joined"})
    bob.send('{"type": "custom_event", "payload": {"data": "some data"}}')
    for client in (ann, bob):
        client.sees({"type": "custom_event", "payload": {"data": "some data"}, "from": "bob"})
        client.close()


def the_backend_sends_to_a_room_and_to_all(_):
    # The notifier without logins is apart from the other.
    backend = Backend("open.")
    ann, bob = in_the_open("ann", "room-123"), in_the_open("bob", "another")
    for kind, payload in {
        "room_event": {"event": "user_joined", "user_id": "user-456"},
        "participant_joined": {"participant_id": "p-1", "participant_name": "Ann"},
        "document_updated": {"content": "# Title", "updated_by": "user-456"},
    }.items():
        backend.send("room.room-123", kind, room_id="room-123", payload=payload)
        ann.sees({"type": kind, "room_id": "room-123", "payload": payload})
    backend.send("all.all", "global_event", payload={"message": "Server maintenance in 5 minutes"})
    for client in (ann, bob):
        client.sees({"type": "global_event", "payload": {"message": "Server maintenance in 5 minutes"}})
        client.close()


TESTS = [
    the_token_comes_by_query_or_header,
    without_a_good_token_nobody_stays,
    each_event_of_the_bus_becomes_its_frame,
    a_ping_is_answered_by_exactly_this_pong,
    after_unsubscribe_the_chat_is_silent,
    who_is_no_member_of_the_chat_gets_nothing_of_it,
    several_clients_of_a_chat_get_each_message,
    who_disconnects_is_out_of_the_chat_and_subscribes_again,
    the_heartbeat_of_the_protocol_is_answered,
    a_message_has_64_kib_and_no_more,
    a_message_goes_to_all_who_are_connected,
    the_address_names_user_and_room,
    rooms_are_joined_and_left,
    a_custom_type_goes_to_the_room_as_it_is,
    the_backend_sends_to_a_room_and_to_all,
]


def run(name, tests, call):
    """Runs the tests one after the other; answers 1 if any failed."""
    failed = 0
    for test in tests:
        try:
            call(test)
            print(f"ok   {name}: {test.__name__.replace('_', ' ')}")
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"FAIL {name}: {test.__name__.replace('_', ' ')}")
            traceback.print_exc()
    print(f"clients: {len(tests) - failed} passed, {failed} failed", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(run("websockets", TESTS, lambda test: test(Backend())))
