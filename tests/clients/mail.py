"""Mails of `notifier mail test`, taken by aiosmtpd and read by Python's email and html.parser.

Run by scripts/client-test, which says where the notifier's program is.
"""

import asyncio
import email
import email.policy
import html.parser
import json
import logging
import os
import pathlib
import random
import re
import resource
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings

from aiosmtpd.smtp import SMTP, AuthResult

from seeds import run

NOTIFIER = os.environ["NOTIFIER"]
TO = "ann@example.org"
PASSWORD = "hunter2-of-the-relay"
PATIENCE_S = 30
TIMEOUT_S = 5
ROUNDS = 200

# It warns of clients that go away and of logins without TLS, which is what some tests are for.
logging.getLogger("mail.log").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="aiosmtpd")

FRAGMENTS = [
    "\r\nBcc: eve@example.org", "\n\n<b>body</b>", "\r", "\u2028X: y", "\u0085X: y", "=?utf-8?q?=0D=0ABcc:_x?=",
    "\r\n.\r\nMAIL FROM:<eve@example.org>\r\n", "\n.\n", "\n..", "<script>alert(1)</script>", "<img src=x onerror=y>",
    '" onmouseover="alert(1)', "' style='x", "<!--", "</td></table>", "&lt;b&gt;", "{{ 7 * 7 }}{% for %}",
    "javascript:alert(1)", "\u202egro.live", "\u200b\ufeff", "\0\a\x1b[31m", 'https://a.org/"><b>', "é日本語🙂", "x", " ",
]


class Folder:
    """Keys and certificates of a certificate authority of our own, and files of events."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                     "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=relay",
                     "-keyout", "relay.key", "-out", "relay.csr")
        (self.path / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        self.openssl("x509", "-req", "-in", "relay.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                     "-days", "2", "-extfile", "names", "-out", "relay.pem")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.path, check=True, capture_output=True)

    def tls(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path / "relay.pem", self.path / "relay.key")
        return context

    def event(self, title, text, url=None):
        path = self.path / "event.json"
        data = {"title": title, "body": text, "url": url}
        path.write_text(json.dumps({"type": "notification.created", "id": str(uuid.uuid4()),
                                    "time": "2026-01-15T10:30:00Z", "data": data}))
        return str(path)


class Relay:
    """A mail server that keeps what it is given, and answers what it is told to."""

    def __init__(self, answers=None, slipped_in=False, **options):
        self.answers, self.mails, self.users, self.clients = answers or {}, [], [], set()
        if options.pop("login", False):
            options |= {"authenticator": self.authenticate, "auth_required": True}
        self.slipped_in, self.commands = slipped_in, []
        self.tls, self.options = options.pop("tls", None), options
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def authenticate(self, server, session, envelope, mechanism, data):
        self.users.append((session.ssl is not None, data.login))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    async def handle_RCPT(self, server, session, envelope, address, options):
        envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 OK")

    async def handle_DATA(self, server, session, envelope):
        self.mails.append(envelope)
        self.clients.add(session.peer)
        return self.answers.get("DATA", "250 2.0.0 queued as 7")

    async def listen(self):
        if self.slipped_in:
            return await asyncio.start_server(self.slip_in, "127.0.0.1", 0)
        return await self.loop.create_server(
            lambda: SMTP(self, loop=self.loop, **self.options), "127.0.0.1", 0, ssl=self.tls)

    def __enter__(self):
        self.thread.start()
        server = asyncio.run_coroutine_threadsafe(self.listen(), self.loop).result(PATIENCE_S)
        self.port = server.sockets[0].getsockname()[1]
        return self

    async def slip_in(self, reader, writer):
        """A server behind somebody who adds an answer in the clear, to be taken for the first encrypted one."""
        writer.write(b"220 relay\r\n")
        answers = {b"EHLO": b"250-relay\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n", b"AUTH": b"235 in\r\n",
                   b"DATA": b"354 go on\r\n", b"STARTTLS": b"220 go on\r\n250 AUTH PLAIN\r\n"}
        while line := await reader.readline():
            word = line.split()[0] if line.strip() else b""
            self.commands.append(word)
            writer.write(answers.get(word, b"250 OK\r\n"))
            if word == b"STARTTLS":
                await writer.start_tls(self.tls)

    async def end(self):
        others = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result(PATIENCE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE_S)
        self.loop.close()

    def only_mail(self):
        assert len(self.mails) == 1, f"{len(self.mails)} mails"
        envelope = self.mails[0]
        assert envelope.mail_from == "bell@example.org" and envelope.rcpt_tos == [TO], envelope.rcpt_tos
        return email.message_from_bytes(envelope.content, policy=email.policy.default)


def notify(relay, *arguments, scheme="smtp+plain", user=None, password=PASSWORD, trust=None):
    """Runs `notifier mail test`; answers its exit code and what it printed."""
    address = f"{scheme}://{user + '@' if user else ''}127.0.0.1:{relay.port}"
    environment = {
        "BELLHOP_AUTH__SECRET": "x" * 32, "BELLHOP_MAIL__SMTP": address, "BELLHOP_MAIL__TIMEOUT": f"{TIMEOUT_S}s",
        "BELLHOP_MAIL__FROM": "Bellhop <bell@example.org>", "PATH": os.environ["PATH"],
    }
    if user:
        environment["BELLHOP_MAIL__PASSWORD"] = password
    if trust:
        environment["SSL_CERT_FILE"] = str(trust)
    began = time.monotonic()
    ran = subprocess.run([NOTIFIER, "mail", "test", TO, *arguments], env=environment, capture_output=True, text=True,
                         timeout=PATIENCE_S, check=False)
    printed = ran.stdout + ran.stderr
    assert password not in printed, "the password is printed"
    return ran.returncode, printed, time.monotonic() - began


def parts(message):
    assert message.get_content_type() == "multipart/alternative", message.get_content_type()
    kinds = [part.get_content_type() for part in message.iter_parts()]
    assert kinds == ["text/plain", "text/html"], kinds
    text, page = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
    assert not message.defects and not any(part.defects for part in message.iter_parts())
    return text, page


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes' names, where its links lead, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.text, self.styles = set(), [], "", set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add((tag, *sorted(name for name, _ in attrs)))
        self.links += [value for name, value in attrs if name == "href"]
        self.styles |= {value for name, value in attrs if name == "style"}

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def a_mail_arrives_with_its_headers_and_both_parts(folder):
    with Relay() as relay:
        text = "one\n.\n..two <3\nétroit 🙂"
        event = folder.event("Grüße, \"Ann\" <x>", text, "https://a.org/?a=1&b=2")
        code, printed, _ = notify(relay, "--event", event)
        assert code == 0 and "250 2.0.0 queued as 7" in printed, printed
        message = relay.only_mail()
        assert message["subject"] == 'Grüße, "Ann" <x>', message["subject"]
        assert message["from"].addresses[0].display_name == "Bellhop"
        assert [address.addr_spec for address in message["to"].addresses] == [TO]
        assert message["auto-submitted"] == "auto-generated"
        assert re.fullmatch(r"<[0-9a-f]{32}@example\.org>", message["message-id"]), message["message-id"]
        assert abs(message["date"].datetime.timestamp() - time.time()) < 60
        plain, page = parts(message)
        assert text in plain and "https://a.org/?a=1&b=2" in plain, plain
        page = Page(page)
        assert page.links == ["https://a.org/?a=1&b=2"] and "étroit 🙂" in page.text and "..two <3" in page.text


def logins_are_made_behind_starttls_or_tls(folder):
    for scheme, options in [
        ("smtp", {"tls_context": folder.tls(), "require_starttls": True}),
        ("smtps", {"tls": folder.tls(), "auth_require_tls": False}),
    ]:
        with Relay(login=True, **options) as relay:
            trust = folder.path / "ca.pem"
            code, printed, _ = notify(relay, scheme=scheme, user="bell%40example.org", trust=trust)
            assert code == 0, printed
            relay.only_mail()
            assert [user for _, user in relay.users] == [b"bell@example.org"], relay.users
            code, printed, _ = notify(relay, scheme=scheme, user="bell", password="wrong-word", trust=trust)
            assert code == 1 and "the login: 535" in printed, printed
            # Signed by nobody whom this machine knows.
            before = len(relay.users)
            code, printed, _ = notify(relay, scheme=scheme, user="bell", trust="/dev/null")
            assert code == 1 and "certificate" in printed.lower() and len(relay.users) == before, printed


def without_starttls_there_is_neither_login_nor_mail(_):
    with Relay(login=True, auth_require_tls=False) as relay:
        code, printed, _ = notify(relay, scheme="smtp", user="bell")
        assert code == 1 and "no STARTTLS" in printed, printed
        assert not relay.users and not relay.mails


def an_answer_slipped_in_before_encryption_gets_no_mail(folder):
    with Relay(slipped_in=True, tls=folder.tls()) as relay:
        code, printed, _ = notify(relay, scheme="smtp", user="bell", trust=folder.path / "ca.pem")
        assert code == 1 and "the start of the text: 250" in printed, printed
        # It may be gone before its last line is read.
        end = time.monotonic() + 10
        while b"DATA" not in relay.commands and time.monotonic() < end:
            time.sleep(0.01)
        assert b"STARTTLS" in relay.commands and relay.commands[-1] == b"DATA", relay.commands


def what_the_server_refuses_is_told(_):
    for answers, wants in [
        ({"RCPT": "550 5.1.1 no such user"}, "the address was refused with 550: 5.1.1 no such user"),
        ({"RCPT": "450 4.2.0 greylisted"}, "was not taken now: the receiver: 450 4.2.0 greylisted"),
        ({"DATA": "451 4.3.0 later"}, "was not taken now: the text: 451 4.3.0 later"),
        ({"DATA": "552 5.3.4 too big"}, "cannot be sent: the text: 552 5.3.4 too big"),
    ]:
        with Relay(answers) as relay:
            code, printed, took = notify(relay)
            assert code == 1 and wants in printed and took < TIMEOUT_S, printed


def a_connection_takes_one_mail_after_the_other(_):
    with Relay() as relay:
        code, printed, _ = notify(relay, "--count", "20")
        assert code == 0 and "20 mails in" in printed, printed
        ids = {email.message_from_bytes(mail.content)["message-id"] for mail in relay.mails}
        assert (len(relay.mails), len(ids), len(relay.clients)) == (20, 20, 1), relay.clients


def hostile_events_add_no_header_no_tag_and_no_link(folder):
    seed = int(os.environ.get("BELLHOP_TEST_SEED", time.time_ns() % 2**32))
    print(f"BELLHOP_TEST_SEED={seed}")
    choose = random.Random(seed)

    def hostile():
        return "".join(choose.choices(FRAGMENTS, k=choose.randrange(6)))

    with Relay() as relay:
        assert notify(relay, "--event", folder.event("t", "a\nb", "https://a.org/"))[0] == 0
        usual = relay.only_mail()
        ours = Page(parts(usual)[1])
        for _ in range(ROUNDS):
            relay.mails.clear()
            title, text, url = hostile(), hostile(), hostile()
            code, printed, _ = notify(relay, "--event", folder.event(title, text, url))
            assert code == 0, printed
            message = relay.only_mail()
            assert message.keys() == usual.keys(), message.keys()
            assert [address.addr_spec for address in message["to"].addresses] == [TO]
            plain, page = parts(message)
            page = Page(page)
            assert page.tags <= ours.tags and page.styles <= ours.styles, page.tags | page.styles
            assert all(re.match(r"https?://[a-z]", link) for link in page.links), page.links
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", plain)


def a_thousand_mails_a_minute_cost_little(_, count=1000):
    def spent(mails):
        with Relay() as relay:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            code, printed, _ = notify(relay, "--count", str(mails))
            assert code == 0, printed
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, printed

    # Less what the program's start costs.
    (one, _), (all_of_them, printed) = spent(1), spent(count)
    each = (all_of_them - one) / (count - 1)
    share = each * 1000 / 60
    print(f"{printed.splitlines()[-1]}; {each * 1e3:.2f} ms of processor time each, {share:.1%} of a core at 1,000 a minute")
    assert share < 0.25, share


TESTS = [
    a_mail_arrives_with_its_headers_and_both_parts,
    logins_are_made_behind_starttls_or_tls,
    without_starttls_there_is_neither_login_nor_mail,
    an_answer_slipped_in_before_encryption_gets_no_mail,
    what_the_server_refuses_is_told,
    a_connection_takes_one_mail_after_the_other,
    hostile_events_add_no_header_no_tag_and_no_link,
    a_thousand_mails_a_minute_cost_little,
]


def main():
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(path)
        return run("aiosmtpd", TESTS, lambda test: test(folder))


if __name__ == "__main__":
    sys.exit(main())
