"""Jobs go in through a foreign AMQP client and must come out at a foreign WebSocket client.

Run by scripts/smoke, which starts what is needed and says where it is.
"""

import hashlib
import http.server
import json
import os
import pathlib
import queue
import signal
import statistics
import sys
import threading
import time
import uuid

import pika
from websockets.sync.client import connect

DEADLINE_S = 50
LATENCY_JOBS = 20
FINAL = {"succeeded", "failed", "cancelled"}
# What an incoming webhook of Mattermost takes; it ignores other fields, which
# is how a misspelt one stays unseen.
WEBHOOK_FIELDS = {"text", "channel", "username", "icon_url", "icon_emoji", "attachments", "type", "props", "priority"}
WEBHOOK_TEXT_LIMIT = 16383


class Wrong(Exception):
    """What was seen is not what has to be seen."""


def check(condition, problem):
    if not condition:
        raise Wrong(problem)


class Webhook:
    """A Mattermost that takes posts on one address, and is stricter than the real one."""

    def __init__(self, port, path):
        self.posts, self.problems = queue.Queue(), []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                problem = webhook.problem_of(self, path, body)
                if problem:
                    webhook.problems.append(problem)
                self.send_response(400 if problem else 200)
                self.end_headers()
                self.wfile.write((problem or "ok").encode())
                if not problem:
                    webhook.posts.put(json.loads(body))

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    @staticmethod
    def problem_of(request, path, body):
        if request.path != path:
            return f"posted to {request.path} instead of {path}"
        if request.headers.get_content_type() != "application/json":
            return f"content type {request.headers.get_content_type()}"
        try:
            post = json.loads(body)
        except ValueError as error:
            return f"no JSON: {error}"
        if not isinstance(post, dict) or not (post.get("text") or post.get("attachments")):
            return "neither text nor attachments"
        if unknown := post.keys() - WEBHOOK_FIELDS:
            return f"unknown fields {sorted(unknown)}"
        if len(post.get("text", "")) > WEBHOOK_TEXT_LIMIT:
            return f"a text of {len(post['text'])} characters"
        return None

    def wait_for(self, text, seconds):
        until = time.monotonic() + seconds
        while True:
            try:
                post = self.posts.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                refused = "".join(f"; refused: {problem}" for problem in self.problems)
                raise Wrong(f"no post with {text} reached the webhook within {seconds} s{refused}") from None
            if text in json.dumps(post):
                return post


class User:
    """Someone who is connected and waits; keeps when each frame came."""

    def __init__(self, socket):
        self.socket = socket
        check(self.socket.subprotocol == "bellhop.v1", f"subprotocol {self.socket.subprotocol}")
        first = json.loads(self.socket.recv(timeout=5))
        check(first["type"] == "connected" and first["user_id"] == "smoke", f"first frame {first}")
        self.frames = queue.Queue()
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        for message in self.socket:
            self.frames.put((time.perf_counter(), json.loads(message)))

    def until_it_ends(self, task_id, seconds):
        """All states of the task up to its last, each with the time of its frame."""
        states, until = [], time.monotonic() + seconds
        while not states or states[-1][1]["status"] not in FINAL:
            try:
                at, frame = self.frames.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                seen = [state["status"] for _, state in states]
                raise Wrong(f"task {task_id} did not end within {seconds} s; seen: {seen}") from None
            if frame["type"] == "task.updated" and frame["data"]["task_id"] == task_id:
                states.append((at, frame["data"]))
        revs = [state["rev"] for _, state in states]
        check(all(a < b for a, b in zip(revs, revs[1:])), f"task {task_id}: rev does not grow: {revs}")
        return states


class Producer:
    """Publishes jobs as any AMQP client would."""

    def __init__(self, url):
        self.channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
        self.channel.confirm_delivery()

    def publish(self, kind, args):
        task_id = str(uuid.uuid4())
        job = {"id": task_id, "kind": kind, "args": args, "user_id": "smoke"}
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
        self.channel.basic_publish("bellhop.jobs", "default", json.dumps(job), properties, mandatory=True)
        return task_id


def manifest_sha256(folder):
    """What the task promises: sha256sum of every file, in byte order of the path, hashed again."""
    lines = []
    for path in folder.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append((f"./{path.name}", f"{digest}  ./{path.name}\n"))
    return hashlib.sha256("".join(line for _, line in sorted(lines)).encode()).hexdigest()


def a_job_succeeds(producer, user, files):
    states = user.until_it_ends(producer.publish("files.checksum", {"path": "work"}), 20)
    last = states[-1][1]
    check(last["status"] == "succeeded", f"the checksum job ended so: {last}")
    running = [state for _, state in states if state["status"] == "running" and state.get("progress")]
    check(running, "the checksum job showed no progress")
    found, computed = last["result"]["manifest_sha256"], manifest_sha256(files / "work")
    check(found == computed, f"the checksum is {found} and should be {computed}")
    return f"{len(running)} frames of progress, and the right checksum"


def a_job_fails(producer, user, webhook):
    task_id = producer.publish("invoices.import", {})
    last = user.until_it_ends(task_id, 20)[-1][1]
    check(last["status"] == "failed" and last.get("error"), f"the import ended so: {last}")
    check("not an amount" in last["error"]["message"], f"the reason is missing: {last['error']}")
    webhook.wait_for(task_id, 10)
    return f"its owner and the webhook were told ({last['error']['code']})"


def latency(producer, user):
    took = []
    for _ in range(LATENCY_JOBS):
        began = time.perf_counter()
        task_id = producer.publish("files.checksum", {"path": "small"})
        states = user.until_it_ends(task_id, 10)
        check(states[-1][1]["status"] == "succeeded", f"a small job ended so: {states[-1][1]}")
        took.append((states[0][0] - began) * 1000)
    return f"median {statistics.median(took):.1f} ms, max {max(took):.1f} ms, {LATENCY_JOBS} jobs one by one"


def main():
    env = os.environ
    signal.signal(signal.SIGALRM, lambda *_: os._exit(fail(f"not done after {DEADLINE_S} s")))
    signal.alarm(DEADLINE_S)
    webhook = Webhook(int(env["WEBHOOK_PORT"]), env["WEBHOOK_PATH"])
    producer = Producer(env["AMQP_URL"])
    protocols = ["bellhop.v1", f"bearer.{env['TOKEN']}"]
    with connect(env["WS_URL"], subprotocols=protocols, open_timeout=5) as socket:
        run_checks(producer, User(socket), webhook, pathlib.Path(env["FILES"]))
    print("smoke: 3 passed, 0 failed")


def run_checks(producer, user, webhook, files):
    for name, run in [
        ("a job succeeds", lambda: a_job_succeeds(producer, user, files)),
        ("a job fails", lambda: a_job_fails(producer, user, webhook)),
        ("publish to first frame", lambda: latency(producer, user)),
    ]:
        try:
            print(f"  {name}: {run()}", flush=True)
        except Wrong as problem:
            sys.exit(fail(f"{name}: {problem}"))


def fail(problem):
    print(f"smoke failed: {problem}", file=sys.stderr, flush=True)
    return 1


main()
