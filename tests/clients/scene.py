"""What away.py stands on: a mail server, a notifier of its own, and who publishes."""

import asyncio
import email
import email.policy
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import uuid

import mail
from seeds import Backend, token

PATIENCE_S = 40
PREFIX = "away."
# One-click links are https; whoever ends TLS before the notifier passes the path on.
PUBLIC_URL = "https://live.example.org"
ADMIN = token("boss", [], scope="admin publish")

CONFIG = """
[escalation]
public_url = "{public_url}"

[[escalation.categories]]
name = "news"
events = ["news"]
mail_after = "1s"

[[escalation.categories]]
name = "letters"
events = ["letter"]
mail_after = "4s"
until = "read"

[mail]
smtp = "smtp+plain://127.0.0.1:{port}"
from = "Bellhop <bell@example.org>"
"""


class Relay(mail.Relay):
    """One that may take a text and then say nothing."""

    says_nothing = False

    async def handle_DATA(self, server, session, envelope):
        answer = await super().handle_DATA(server, session, envelope)
        if self.says_nothing:
            await asyncio.get_running_loop().create_future()
        return answer

    def of(self, user):
        """The mails to a user, as Python reads them."""
        mails = [taken for taken in list(self.mails) if taken.rcpt_tos == [address(user)]]
        return [email.message_from_bytes(taken.content, policy=email.policy.default) for taken in mails]


class Notifier:
    """The program, killed and started again as the tests like."""

    def __init__(self, folder, relay):
        self.folder = pathlib.Path(folder)
        (self.folder / "notifier.toml").write_text(CONFIG.format(public_url=PUBLIC_URL, port=relay.port))
        self.port = free_port()
        self.log = open(self.folder / "log", "ab")  # pylint: disable=consider-using-with
        self.start()

    def start(self):
        settings = {"http.listen": f"127.0.0.1:{self.port}", "amqp.prefix": PREFIX, "websocket.drain_window": "0s",
                    "auth.secret_file": os.environ["SECRET_FILE"], "store.path": self.folder / "store.db"}
        flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        environment = {"PATH": os.environ["PATH"], "BELLHOP_AMQP__URL": os.environ["AMQP_URL"]}
        command = [mail.NOTIFIER, "run", "--config", self.folder / "notifier.toml", *flags]
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        wait_for(self.is_ready, "the notifier is ready")

    def is_ready(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)

    def ask(self, method, path, body=None, bearer=None, kind="application/json"):
        """The status, and the answer: what its JSON says, or its text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        headers = {"content-type": kind} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
        body = body if isinstance(body, str | None) else json.dumps(body)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        is_json = "json" in (answer.getheader("content-type") or "")
        return answer.status, json.loads(text) if is_json else text

    def told(self, *arguments, **options):
        status, answer = self.ask(*arguments, **options)
        assert status in (200, 204), answer
        return answer

    def attempts(self, event):
        return self.told("GET", f"/api/deliveries?event={event}", bearer=ADMIN)["attempts"]

    def logs(self, event, *wants):
        """Waits until this, and nothing else, is in the log of an event; answers it."""
        def outcomes():
            return [attempt["outcome"] for attempt in self.attempts(event)]
        wait_for(lambda: outcomes() == list(wants), lambda: f"{wants} in the log, which has {outcomes()}")
        return self.attempts(event)

    def contact(self, user):
        return self.told("GET", f"/api/users/{user}/contact", bearer=ADMIN)["contact"]

    def put_contact(self, user, **contact):
        self.told("PUT", f"/api/users/{user}/contact", contact or {"email": address(user)}, bearer=ADMIN)

    def prefer(self, user, **preferences):
        self.told("PUT", "/api/preferences", preferences, bearer=token(user, []))

    def unread(self, user):
        return self.told("GET", "/api/inbox?unread=true", bearer=token(user, []))["unread"]

    def processor_time(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Scene:
    def __init__(self, relay, notifier):
        self.relay, self.notifier, self.backend = relay, notifier, Backend(PREFIX)

    def publish(self, user, title, kind="news"):
        event = str(uuid.uuid4())
        data = {"title": title, "url": f"https://shop.example.org/{event}"}
        self.backend.send(f"user.{user}", kind, klass="stored", id=event, data=data)
        return event

    def mails(self, user, count=1):
        """Waits for so many mails to a user."""
        wait_for(lambda: len(self.relay.of(user)) >= count, f"{count} mails to {user}")
        mails = self.relay.of(user)
        assert len(mails) == count, [one["subject"] for one in mails]
        return mails

    def settle(self):
        """Until everything that was due before has been looked at: that goes in order."""
        last = newcomer("last")
        self.notifier.put_contact(last)
        self.publish(last, "last")
        self.mails(last)


def free_port():
    """Below those of outgoing connections, so that it is still free when the notifier is started again."""
    while True:
        port = random.randrange(15000, 31000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def wait_for(is_there, what):
    end = time.monotonic() + PATIENCE_S
    while not is_there():
        assert time.monotonic() < end, f"waited for {what() if callable(what) else what}"
        time.sleep(0.02)


def newcomer(name):
    """A user whom no test has had."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def address(user):
    return f"{user}@example.org"
