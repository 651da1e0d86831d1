"""Tasks go in through the real Celery client and come out at a WebSocket; the real Flower shows the worker.

Run by scripts/celery-test, which starts what is needed and says where it is.
"""

import datetime
import json
import os
import pathlib
import queue
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

import producers
from kombu import Connection
from websockets.sync.client import connect

DEADLINE_S = 60
FINAL = {"succeeded", "failed", "cancelled"}
NODE = "bellhop@celery-test"
UTC = datetime.timezone.utc


class Wrong(Exception):
    """What was seen is not what has to be seen."""


def check(condition, problem):
    if not condition:
        raise Wrong(problem)


def until(what, seconds, look):
    """The first true answer of `look`."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        check(time.monotonic() < end, f"{what} was not so within {seconds} s; last seen: {seen!r}")
        time.sleep(0.1)


class User:
    """Somebody who is connected and waits."""

    def __init__(self, url, token):
        self.socket = connect(url, subprotocols=["bellhop.v1", f"bearer.{token}"], open_timeout=5)
        self.states, self.news = {}, queue.Queue()
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        for message in self.socket:
            frame = json.loads(message)
            if frame["type"] == "task.updated":
                self.news.put(frame["data"])

    def wait(self, task_id, found, seconds=20):
        """All states of a task up to the first that `found` likes."""
        end = time.monotonic() + seconds
        while not any(map(found, self.states.get(task_id, []))):
            try:
                state = self.news.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                seen = [state["status"] for state in self.states.get(task_id, [])]
                raise Wrong(f"task {task_id} did not come so far within {seconds} s; seen: {seen}") from None
            self.states.setdefault(state["task_id"], []).append(state)
        return self.states[task_id]

    def end_of(self, task_id):
        return self.wait(task_id, lambda state: state["status"] in FINAL)[-1]

    def succeeds(self, task_id):
        end = self.end_of(task_id)
        check(end["status"] == "succeeded", f"task {task_id} ended so: {end}")
        return end


class Flower:
    """Flower's own process, asked over HTTP."""

    def __init__(self, url):
        self.url = url

    def get(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return f"{error.code}: {error.read().decode()}"
        except OSError:
            return ""

    def json(self, path):
        text = self.get(path)
        return json.loads(text) if text.startswith("{") else {}

    def refreshed(self, wanted):
        """What the worker answers Flower, once it has all that is wanted in time."""
        worker = self.json(f"/api/workers?refresh=1&workername={NODE}").get(NODE, {})
        return worker if all(what in worker for what in wanted) else {}

    def task(self, task_id, state):
        """What Flower knows of a task, once it is in this state."""

        def look():
            info = self.json(f"/api/task/info/{task_id}")
            return info if info.get("state") == state else None

        return until(f"Flower's state {state} of task {task_id}", 10, look)


class Checks:
    def __init__(self, env):
        self.run = pathlib.Path(env["RUN"])
        self.ann = User(env["WS_URL"], env["TOKEN_ANN"])
        self.batch = User(env["WS_URL"], env["TOKEN_BATCH"])
        (self.run / "watching").touch()
        self.flower = Flower(env["FLOWER_URL"])
        self.app = producers.app()
        self.sent = {}

    def send(self, name, *, user="ann", app=None, **options):
        headers = {"user_id": user} if user else {}
        return (app or self.app).send_task(name, headers=headers, **options).id

    def dead_letter(self):
        """The next dead letter's headers and body."""
        with Connection(producers.BROKER) as connection:
            channel = connection.channel()
            message = until("a dead letter", 10, lambda: channel.basic_get("bellhop.dead", no_ack=True))
            return message.headers, message.body

    # --- producers ---

    def queues_declared_by_celery_first(self):
        for name in ("early", "early-quorum", "early-priority"):
            end = self.ann.succeeds(f"task-{name}")
            check(end["result"] == {"queue": name}, f"the result is {end['result']}")

    def queues_declared_by_the_worker_first(self):
        producers.send_to_all("late")
        for name in ("late", "late-quorum", "late-priority"):
            self.ann.succeeds(f"task-{name}")

    def flower_listens(self):
        # What the worker tells before Flower listens, Flower never hears of.
        until("Flower to hear the worker", 30, lambda: self.flower.json("/api/workers?status=1").get(NODE))

    def keyword_arguments(self):
        task_id = self.send("tests.echo", kwargs={"pages": 3, "of": "ü"}, shadow="Three pages")
        end = self.ann.succeeds(task_id)
        check(end["result"] == {"pages": 3, "of": "ü"}, f"the result is {end['result']}")
        check(end["title"] == "Three pages", f"the title is {end.get('title')}")
        self.sent["succeeded"] = task_id

    def positional_arguments(self):
        end = self.ann.succeeds(self.send("tests.echo", args=[1, "two"], kwargs={"three": None}))
        check(end["result"] == {"args": [1, "two"], "three": None}, f"the result is {end['result']}")

    def a_task_without_a_user(self):
        self.batch.succeeds(self.send("tests.echo", user=None))
        task_id = self.send("tests.echo", user=None, kwargs={"user_id": "ann"})
        check(self.ann.succeeds(task_id)["user_id"] == "ann", "the argument names the user")

    def retries_count_as_attempts(self):
        task_id = self.send("tests.attempt", retries=2)
        end = self.ann.succeeds(task_id)
        check((end["attempt"], end["result"]) == (3, 3), f"it ended so: {end}")

    def the_soft_time_limit(self):
        began = time.monotonic()
        absent = str(self.run / "never")
        task_id = self.send("tests.wait", kwargs={"file": absent}, time_limit=50, soft_time_limit=1)
        end = self.ann.end_of(task_id)
        check(end["status"] == "failed" and end["error"]["code"] == "timeout", f"it ended so: {end}")
        check(time.monotonic() - began < 15, "the hard limit was taken")
        self.dead_letter()

    def times_limits_and_priority(self):
        """What our job says of them, as its dead letter shows."""
        now = datetime.datetime.now(UTC)
        eta, expires = now + datetime.timedelta(seconds=0.3), now + datetime.timedelta(hours=1)
        task_id = self.send("tests.fail", eta=eta, expires=expires, time_limit=50, soft_time_limit=40, priority=3)
        self.ann.end_of(task_id)
        headers, body = self.dead_letter()
        job = json.loads(body)
        check(job["id"] == task_id and "task" not in headers, f"the dead letter is {job}, {headers}")
        seen = [datetime.datetime.fromisoformat(job[field]) for field in ("run_at", "expires_at")]
        check(seen == [eta, expires], f"sent {eta} and {expires}, came {seen}")
        check((job["timeout_s"], job["priority"]) == (40, 3), f"the job is {job}")
        # Without an offset, and by counting from now.
        task_id = self.send("tests.fail", eta=now.replace(tzinfo=None).isoformat(), expires=60)
        self.ann.end_of(task_id)
        job = json.loads(self.dead_letter()[1])
        check(datetime.datetime.fromisoformat(job["run_at"]) == now, f"sent {now}, came {job['run_at']}")
        left = datetime.datetime.fromisoformat(job["expires_at"]) - now
        check(55 < left.total_seconds() < 65, f"it expires in {left}")
        check("priority" not in job, "Celery's 0 is nobody's wish")

    def a_countdown_is_kept(self):
        due = datetime.datetime.now(UTC) + datetime.timedelta(seconds=2)
        task_id = self.send("tests.echo", eta=due)
        states = self.ann.wait(task_id, lambda state: state["status"] == "succeeded")
        began = next(state for state in states if state["status"] == "running")
        check(datetime.datetime.fromisoformat(began["timestamp"]) >= due, f"due {due}, began {began['timestamp']}")

    def what_comes_too_late_is_revoked(self):
        past = datetime.datetime.now(UTC) - datetime.timedelta(seconds=5)
        task_id = self.send("tests.echo", expires=past)
        end = self.ann.end_of(task_id)
        check(end.get("error", {}).get("code") == "expired", f"it ended so: {end}")
        self.dead_letter()
        self.sent["revoked"] = task_id

    def a_task_is_revoked(self):
        task_id = self.send("tests.echo", countdown=3)
        self.ann.wait(task_id, lambda state: state["status"] == "scheduled")
        self.app.control.revoke(task_id)
        end = self.ann.end_of(task_id)
        check(end["status"] == "cancelled", f"it ended so: {end}")
        go_on = self.run / "never"
        task_id = self.send("tests.wait", kwargs={"file": str(go_on)})
        self.ann.wait(task_id, lambda state: state.get("progress"))
        self.app.control.revoke(task_id, terminate=True)
        end = self.ann.end_of(task_id)
        check(end["status"] == "cancelled", f"it ended so: {end}")

    def our_own_queue(self):
        """Straight to our exchange, for one task or for all of a producer's."""
        task_id = self.send("tests.echo", exchange="bellhop.jobs", routing_key="default", kwargs={"way": "ours"})
        check(self.ann.succeeds(task_id)["result"] == {"way": "ours"}, "the arguments came")
        self.ann.succeeds(self.send("tests.echo", app=producers.app_that_declares_nothing()))

    def what_is_refused(self):
        link = self.app.signature("tests.echo")
        protocol_1 = producers.app(task_protocol=1)
        pickled = producers.app(task_serializer="pickle")
        for app, options, wants in [
            (self.app, {"link": link}, "`link`"),
            (self.app, {"compression": "gzip"}, "task_compression"),
            (protocol_1, {}, "task_protocol = 2"),
            (protocol_1, {"exchange": "bellhop.jobs", "routing_key": "default"}, "task_protocol = 2"),
            (pickled, {}, "task_serializer"),
        ]:
            task_id = self.send("tests.echo", app=app, **options)
            headers, _ = self.dead_letter()
            check(headers["x-bellhop-reason"] == "unreadable", f"{task_id}: {headers}")
            check(wants in headers["x-bellhop-error"], f"{wants} is not in {headers['x-bellhop-error']}")

    # --- Flower ---

    def flower_sees_the_worker(self):
        until("the worker online", 15, lambda: self.flower.json("/api/workers?status=1").get(NODE))
        # Flower leaves out what is not answered within a second.
        wanted = ["active_queues", "registered", "stats"]
        worker = until("all that Flower asks the worker", 15, lambda: self.flower.refreshed(wanted))
        names = [queue["name"] for queue in worker["active_queues"]]
        check("celery" in names and "bellhop.jobs.default" in names, f"queues {names}")
        check("tests.echo" in worker["registered"], f"registered {worker['registered']}")
        check(worker["stats"]["total"]["tests.echo"] > 0, f"stats {worker['stats']}")
        every = self.flower.json("/api/workers?refresh=1")
        check(NODE in every, f"all workers: {list(every)}")

    def flower_shows_its_pages(self):
        for path, wants in [
            (f"/worker/{NODE}", "bellhop.jobs.default"),
            ("/workers", NODE),
            ("/workers?json=1", '"status": true'),
            (f"/task/{self.sent['succeeded']}", "tests.echo"),
        ]:
            page = self.flower.get(path)
            check(wants in page, f"{wants} is not on Flower's page {path}: {page[:300]}")

    def flower_sees_tasks_run_and_succeed(self):
        go_on = self.run / f"go-{uuid.uuid4().hex}"
        task_id = self.send("tests.wait", kwargs={"file": str(go_on)})
        self.ann.wait(task_id, lambda state: state.get("progress"))
        started = self.flower.task(task_id, "STARTED")
        check(started["name"] == "tests.wait" and started["kwargs"].startswith("{'file': "), f"it is {started}")
        until("the task active", 15, lambda: [task["id"] for task in self.flower.refreshed(["active"]).get("active", [])] == [task_id])
        go_on.touch()
        self.ann.succeeds(task_id)
        done = self.flower.task(task_id, "SUCCESS")
        check(done["result"] == "'went on'" and done["worker"] == NODE, f"it is {done}")
        check(done["runtime"] > 0 and done["started"] >= done["received"], f"its times are {done}")
        age = time.time() - done["timestamp"]
        check(abs(age) < 60, f"its time is {age} s ago")

    def flower_sees_failures(self):
        task_id = self.send("tests.fail")
        self.ann.end_of(task_id)
        self.dead_letter()
        failed = self.flower.task(task_id, "FAILURE")
        check(failed["exception"].startswith("exit_3: "), f"the exception is {failed['exception']}")
        check("no paper" in failed["traceback"], f"the traceback is {failed['traceback']}")

    def flower_sees_what_was_revoked(self):
        task = self.flower.task(self.sent["revoked"], "REVOKED")
        check(task["name"] == "tests.echo", f"it is {task}")

    def flower_lists_every_task(self):
        tasks = self.flower.json(f"/api/tasks?workername={NODE}")
        check(self.sent["succeeded"] in tasks, f"tasks {list(tasks)}")

    def celery_inspects_the_worker(self):
        inspect = self.app.control.inspect(destination=[NODE], timeout=5)
        check(inspect.ping() == {NODE: {"ok": "pong"}}, "no pong")
        until("one pong to all", 15, lambda: self.app.control.ping(timeout=1) == [{NODE: {"ok": "pong"}}])

    def flower_sees_the_worker_leave(self):
        pid, _ = (self.run / "worker.pid").read_text().split()
        os.kill(int(pid), signal.SIGTERM)

        def is_offline():
            return self.flower.json("/api/workers?status=1").get(NODE) is False

        # Long before three heartbeats are missed.
        until("the worker offline", 5, is_offline)


def main():
    signal.signal(signal.SIGALRM, lambda *_: os._exit(fail(f"not done after {DEADLINE_S} s")))
    signal.alarm(DEADLINE_S)
    checks = Checks(os.environ)
    names = [name for name in vars(Checks) if not name.startswith("_") and name not in {"send", "dead_letter"}]
    for name in names:
        began = time.monotonic()
        try:
            getattr(checks, name)()
        except Wrong as problem:
            sys.exit(fail(f"{name}: {problem}"))
        print(f"  {name.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"celery: {len(names)} passed, 0 failed", flush=True)
    os._exit(0)


def fail(problem):
    print(f"celery-test failed: {problem}", file=sys.stderr, flush=True)
    return 1


main()
