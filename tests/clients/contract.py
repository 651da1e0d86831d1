"""Holds docs/asyncapi.yaml against what a worker and a notifier really send, and against the code.

Run by scripts/client-test, which starts what is needed and says where it is.
"""

import json
import os
import pathlib
import re
import signal
import sys
import threading
import time
import urllib.request
import uuid

import jsonschema
import pika
import referencing
import yaml
from referencing.jsonschema import DRAFT7
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from seeds import Backend, Client, run, token

ROOT = pathlib.Path(__file__).parents[2]
API = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
PROTOCOL = (ROOT / "docs/PROTOCOL.md").read_text()
REGISTRY = referencing.Registry().with_resource("urn:api", DRAFT7.create_resource(API))
PATIENCE_S = 40

# Everything but what only comes up when something goes very wrong.
MUST_BE_SEEN = {
    *("connected subscribed unsubscribed user_joined user_left presence pong error token_expiring reconnect").split(),
    *("task.updated task.log message.new chat.updated notification.new relayedFrame anyFrame").split(),
    *("job taskStatusChanged taskLogged messageSent chatChanged notificationCreated memberAdded memberRemoved").split(),
    *("relayed anyEvent presenceNews cancel askStatus workerReport finalState deadLetter").split(),
    *("revocation resumed closed acked read inbox.updated batch").split(),
}


class Seen:
    """What came, by the message's name in the document; each is checked when it comes."""

    def __init__(self):
        self.lock, self.counts, self.problems, self.states = threading.Lock(), {}, [], set()
        self.group_states = set()

    def note(self, name, payload):
        message = API["components"]["messages"].get(name)
        if message is None:
            return self.problem(f"{name} is not in the document: {payload}")
        schema = {"$ref": f"urn:api#/components/messages/{name}/payload"}
        validator = jsonschema.Draft7Validator(schema, registry=REGISTRY)
        for error in validator.iter_errors(payload):
            self.problem(f"{name} {error.json_path}: {error.message} in {json.dumps(payload)[:500]}")
        with self.lock:
            self.counts[name] = self.counts.get(name, 0) + 1
            if name == "task.updated":
                self.states.add(payload["data"]["status"])
                if payload["data"]["kind"] == "group":
                    self.group_states.add(payload["data"]["status"])

    def problem(self, text):
        with self.lock:
            self.problems.append(text)

    def frame(self, frame, channel="socket"):
        named = API["channels"][channel]["messages"]
        kind = frame["type"]
        self.note(kind if kind in named else "relayedFrame" if "from" in frame else "anyFrame", frame)

    def event(self, key, body):
        if key.startswith("presence."):
            return self.note("presenceNews", body)
        names = {
            "task.status_changed": "taskStatusChanged",
            "task.log": "taskLogged",
            "message.sent": "messageSent",
            "chat.updated": "chatChanged",
            "notification.created": "notificationCreated",
            "inbox.updated": "inbox.updated",
        }
        kind = body["type"]
        if kind.endswith(".member_added") or kind.endswith(".member_removed"):
            return self.note("memberAdded" if kind.endswith("_added") else "memberRemoved", body)
        return self.note(names.get(kind, "relayed" if "from" in body else "anyEvent"), body)

    def until(self, condition, what):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"{what}; seen: {sorted(self.counts)}, {sorted(self.states)}"
            time.sleep(0.05)


def listen(seen, ready):
    """A backend that hears all there is on the broker."""
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    for exchange, key in [("events", "#"), ("control", "#"), ("dead", "#"), ("jobs", "default")]:
        channel.queue_bind(queue, f"bellhop.{exchange}", key)
    replies = channel.queue_declare("", exclusive=True).method.queue
    ready.append(replies)

    def take(_channel, method, properties, body):
        exchange = method.exchange.removeprefix("bellhop.")
        if exchange == "events":
            if method.routing_key.startswith("batch."):
                return seen.note("batch", json.loads(body))
            if method.routing_key == "alerts.turn":
                return seen.note("alertsTurn", {})
            return seen.event(method.routing_key, json.loads(body))
        if exchange == "jobs":
            return seen.note("job", json.loads(body))
        if exchange == "control":
            if method.routing_key in ("ask.status", "revoke.mark"):
                return seen.note("askStatus" if method.routing_key == "ask.status" else "revocationMark", {})
            order_body = json.loads(body)
            return seen.note(order_body.get("order", "revocation"), order_body)
        schema = {"$ref": "urn:api#/components/messages/deadLetter/headers"}
        jsonschema.Draft7Validator(schema, registry=REGISTRY).validate(properties.headers)
        return seen.note("deadLetter", {})

    def answer(_channel, _method, properties, body):
        seen.note("workerReport" if properties.correlation_id == "status" else "finalState", json.loads(body))

    channel.basic_consume(queue, take, auto_ack=True)
    channel.basic_consume(replies, answer, auto_ack=True)
    try:
        channel.start_consuming()
    except Exception as error:  # pylint: disable=broad-except
        seen.problem(f"the listener ended: {error!r}")


class Watched(Client):
    """A client whose frames are all checked, read in the background."""

    def __init__(self, socket, seen):
        self.seen = seen
        super().__init__(socket)
        threading.Thread(target=self.watch, daemon=True).start()

    def next(self):
        frame = super().next()
        self.seen.frame(frame)
        return frame

    def watch(self):
        try:
            for text in self.socket:
                self.seen.frame(json.loads(text))
        except ConnectionClosed:
            pass


def order(method, path, body=None):
    request = urllib.request.Request(os.environ["API_URL"] + path, method=method)
    request.add_header("Authorization", f"Bearer {token('ann', [])}")
    with urllib.request.urlopen(request, json.dumps(body).encode() if body else None, timeout=20) as answer:
        return json.load(answer)["task_id"]


def sockets(backend, seen):
    header = {"Authorization": f"Bearer {token('ann', ['room:*', 'chat:*'])}"}
    ann = Watched(connect(os.environ["WS_URL"], additional_headers=header), seen)
    bob = Watched(connect(f"{os.environ['WS_URL']}?token={token('bob', ['room:r'])}"), seen)
    short = token("eve", [], lifetime_s=20)
    Watched(connect(f"{os.environ['WS_URL']}?token={short}"), seen)
    for client in (ann, bob):
        client.send({"type": "join_room", "room_id": "r", "id": 1})
    ann.send({"type": "subscribe", "chat_id": "c"})
    for frame in ({"type": "ping", "id": {"x": 1}}, {"type": "presence", "room_id": "r"}, {"type": "dance"},
                  {"type": "pong"}, {"type": "subscribe"}, {"type": "a b"}, {"type": "join_room", "room_id": ""},
                  {"type": "leave_room", "room_id": "elsewhere"}, {"type": "auth", "token": "x"}, [1]):
        ann.send(frame)
    bob.send({"type": "join_room", "room_id": "closed"})
    bob.send({"type": "wave", "payload": {"x": None}, "data": [1]})
    seen.until(lambda: {"presence", "relayedFrame", "pong"} <= seen.counts.keys(), "answers")
    backend.send("chat.c", "message.sent", data={"content": "Hello!"})
    backend.send("chat.c", "chat.updated", data={"name": "New"})
    backend.send("user.ann", "notification.created", data={"title": "Hi"})
    backend.send("all.all", "global_event", payload={"message": "soon"})
    backend.send("room.r", "room.member_removed", data={"user_id": "bob"})
    backend.send("room.r", "room.member_added", data={"user_id": "bob"})
    backend.send("user.ann", "notification.created", klass="stored", data={"title": "Kept"})
    seen.until(lambda: "batch" in seen.counts, "a stored event")
    ann.send({"type": "ack", "seq": 1, "id": "ack"})
    ann.send({"type": "read", "up_to": 1, "id": "read"})
    ann.send({"type": "resume", "streams": [{"audience": "all", "epoch": "0", "seq": 0}], "id": "resume"})
    back = Watched(connect(f"{os.environ['WS_URL']}?since=user.1.1", additional_headers=header), seen)
    seen.until(lambda: {"acked", "read", "inbox.updated"} <= seen.counts.keys(), "the inbox")
    back.close()
    return ann


def stream(seen):
    """Reads the open notifier's event stream to its end, as one who has been there before."""
    url = os.environ["OPEN_WS_URL"].replace("ws", "http", 1).replace("/ws", "/sse") + "?room_id=r&user_id=reader"
    request = urllib.request.Request(url, headers={"Last-Event-ID": str(uuid.uuid4())})

    def read():
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as lines:
            for line in lines:
                if line.startswith(b"data: "):
                    seen.frame(json.loads(line[6:]), "stream")

    threading.Thread(target=read, daemon=True).start()
    seen.until(lambda: "resumed" in seen.counts, "the event stream")


def revocations(seen):
    """Of nobody who is here."""
    for body in ({"user_id": "mallory"}, {"token_id": "t-1"}, {"user_id": "mallory", "issued_before": "2026-01-15T10:30:00Z"}):
        request = urllib.request.Request(os.environ["API_URL"] + "/api/revocations", method="POST")
        request.add_header("Authorization", f"Bearer {token('boss', [], scope='admin')}")
        urllib.request.urlopen(request, json.dumps(body).encode(), timeout=20).close()
    seen.until(lambda: seen.counts.get("revocation", 0) >= 3, "the revocations")


def jobs(backend, seen, replies):
    order("POST", "/api/tasks", {"kind": "files.checksum", "args": {"path": "."}, "title": "Sums"})
    order("POST", "/api/tasks", {"kind": "files.checksum", "args": {"path": "../out"}})
    order("POST", "/api/tasks", {"kind": "invoices.import"})
    order("POST", "/api/tasks", {"kind": "busy"})
    later = order("POST", "/api/tasks", {"kind": "endless", "delay_s": 3})
    endless = order("POST", "/api/tasks", {"kind": "endless"})
    seen.until(lambda: {"running", "scheduled"} <= seen.states, "a task that runs, and one that waits")
    for task in (endless, later):
        order("DELETE", f"/api/tasks/{task}")
    job = {"id": str(uuid.uuid4()), "kind": "files.checksum", "args": {"path": "."}, "user_id": "ann",
           "then": [{"kind": "files.checksum", "args": {"path": "."}}]}
    properties = pika.BasicProperties(reply_to=replies, correlation_id="job")
    backend.channel.basic_publish("bellhop.jobs", "default", json.dumps(job), properties, mandatory=True)
    # A group needs no library: N messages that say which they are of how many.
    for index in range(3):
        group = {"id": "sums", "index": index, "size": 3, "title": "Three sums",
                 "then": [{"kind": "files.checksum", "args": {"path": "."}}]}
        job = {"id": f"sums/{index}", "kind": "files.checksum", "args": {"path": "."}, "user_id": "ann", "group": group}
        backend.channel.basic_publish("bellhop.jobs", "default", json.dumps(job), mandatory=True)
    properties = pika.BasicProperties(reply_to=replies, correlation_id="status")
    backend.channel.basic_publish("bellhop.control", "ask.status", b"", properties)
    seen.until(lambda: "succeeded" in seen.group_states, "the end of a group")
    states = set(API["components"]["schemas"]["status"]["enum"])
    seen.until(lambda: states <= seen.states, f"a task in each of the states {states}")


def what_is_sent_is_as_the_document_says():
    seen, ready = Seen(), []
    threading.Thread(target=listen, args=(seen, ready), daemon=True).start()
    seen.until(lambda: ready, "the listener")
    backend = Backend()
    ann = sockets(backend, seen)
    jobs(backend, seen, ready[0])
    revocations(seen)
    stream(seen)
    # The end of an instance, on one that has nothing else to do.
    guest = Watched(connect(f"{os.environ['OPEN_WS_URL']}?room_id=r&user_id=guest"), seen)
    os.kill(int(os.environ["OPEN_PID"]), signal.SIGTERM)
    seen.until(lambda: MUST_BE_SEEN <= seen.counts.keys() or seen.problems, f"{MUST_BE_SEEN}")
    assert not seen.problems, "\n".join(seen.problems)
    print(f"     {sum(seen.counts.values())} messages of {len(seen.counts)} kinds were checked")
    ann.close()
    guest.close()


def sources(*names):
    return "\n".join((ROOT / "notifier/src" / name).read_text().split("#[cfg(test)]")[0] for name in names)


def same(what, code, document):
    assert code, f"no {what} was found in the code: look at this test"
    assert code == document, f"{what}: only in the code {code - document}, only in the document {document - code}"


def every_close_code_is_documented():
    code = {(int(number), reason) for number, reason in
            re.findall(r'close\((\d+), "(\w+)"\)', sources("protocol/close.rs"))}
    same("close codes", code, {(it["code"], it["reason"]) for it in API["channels"]["socket"]["x-close-codes"]})
    for number, reason in code:
        assert f"| {number} | `{reason}`" in PROTOCOL, f"{number} {reason} is not in PROTOCOL.md"


def every_error_code_is_documented():
    text = sources("protocol/client.rs", "relay.rs", *(f"session/{path.name}" for path in
                                                       (ROOT / "notifier/src/session").glob("*.rs")))
    code = set(re.findall(r'(?:refuse\(\s*|protocol::error\(\s*|Self::\w+[^=\n]*=> )"(\w+)"', text))
    # A login that is refused is told by the reason with which the connection is closed.
    reasons = dict(re.findall(r'const (\w+): Close = close\(\d+, "(\w+)"\)', sources("protocol/close.rs")))
    refusals = sources("auth/claims.rs").split("fn close(")[1].split("\n    }")[0]
    code |= {reasons[name] for name in re.findall(r"=> close::(\w+)|=> ([A-Z_]+)", refusals) for name in name if name}
    same("error codes", code, set(API["components"]["schemas"]["errorCode"]["enum"]))
    for word in code:
        assert f"`{word}`" in PROTOCOL, f"{word} is not in PROTOCOL.md"


def every_frame_is_documented():
    text = sources("protocol/server.rs")
    code = set(re.findall(r'(?:"type": |of_place\(|=> )"([\w.]+)"', text))
    document = set(API["channels"]["socket"]["messages"]) | set(API["channels"]["stream"]["messages"])
    assert code, "no frame was found in the code: look at this test"
    assert code <= document, f"not in the document: {code - document}"
    for word in code:
        assert word in PROTOCOL, f"{word} is not in PROTOCOL.md"
    text = sources("protocol/client.rs")
    taken = set(re.findall(r'"(\w+)"(?= (?:\||=>))', text.split("match self.r#type.as_str()")[1].split("    fn ")[0]))
    offered = set()
    for name in ("ping", "auth", "subscribe", "unsubscribe", "askPresence", "resume", "ack", "readEvents"):
        found = json.dumps(API["components"]["messages"][name]["payload"])
        offered |= set(re.findall(r'"type": \{"(?:const|enum)": (.*?)\}', found))
    offered = set(re.findall(r"\w+", " ".join(offered)))
    same("frames of clients", taken, offered)


def every_reserved_type_is_documented():
    text = sources("protocol/client.rs")
    code = set(re.findall(r'"([\w.]+)"', text.split("const RESERVED:")[1].split("];")[0]))
    prefixes, types = API["components"]["messages"]["relay"]["payload"]["properties"]["type"]["not"]["anyOf"]
    same("reserved types", code, set(types["enum"]))
    code = set(re.findall(r'"([\w.]+)\."', text.split("const RESERVED_PREFIXES:")[1].split("];")[0]))
    same("reserved prefixes", code, set(re.findall(r"\w+", prefixes["pattern"].replace("\\.", ""))))


def the_document_is_one():
    schema = json.loads((ROOT / "tests/clients/node_modules/@asyncapi/specs/schemas/3.1.0-without-$id.json").read_text())
    problems = [f"{error.json_path}: {error.message[:300]}" for error in
                jsonschema.Draft7Validator(schema).iter_errors(API)]
    assert not problems, "\n".join(problems)

    def references(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    resolver = REGISTRY.resolver("urn:api")
    for reference in references(API):
        resolver.lookup(f"urn:api{reference}")


TESTS = [
    the_document_is_one,
    every_close_code_is_documented,
    every_error_code_is_documented,
    every_frame_is_documented,
    every_reserved_type_is_documented,
    what_is_sent_is_as_the_document_says,
]

if __name__ == "__main__":
    sys.exit(run("asyncapi", TESTS, lambda test: test()))
