"""Messages of `notifier push test`, decrypted by Mozilla's http-ece, their sender checked by py-vapid.

Run by scripts/client-test, which says where the notifier's program is.
"""

import base64
import http.server
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import http_ece
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02

from seeds import run

NOTIFIER = os.environ["NOTIFIER"]
PATIENCE_S = 20
SUBJECT = "mailto:ops@example.org"


def encoded(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def point(key):
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


class PushService(http.server.BaseHTTPRequestHandler):
    """Takes everything, and keeps it."""

    # With one connection for all, as push services do.
    protocol_version = "HTTP/1.1"
    requests = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(201)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Browser:
    """Has subscribed to a push service of its own."""

    def __init__(self):
        self.service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), PushService)
        threading.Thread(target=self.service.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self.service.server_address[1]}"
        self.secret, self.auth = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)

    def subscription(self):
        keys = {"p256dh": encoded(point(self.secret)), "auth": encoded(self.auth)}
        return json.dumps({"endpoint": f"{self.origin}/push/some-secret", "expirationTime": None, "keys": keys})

    def close(self):
        self.service.shutdown()
        self.service.server_close()

    def read(self, body):
        return json.loads(http_ece.decrypt(body, private_key=self.secret, auth_secret=self.auth, version="aes128gcm"))


def notifier(*arguments, given=""):
    """What it has printed, and said of an error."""
    # Without the settings of the notifier that runs beside it.
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([NOTIFIER, *arguments], input=given, env=environment, capture_output=True, text=True,
                          timeout=PATIENCE_S, check=False)
    assert (done.returncode == 0) == (done.stderr == ""), done
    return done.stdout, done.stderr


def try_to_push(key_file, given, *arguments, private="true"):
    settings = ["auth.mode=none", f"push.allow_private={private}", f"push.subject={SUBJECT}", f"push.key_file={key_file}"]
    flags = [part for setting in settings for part in ("--set", setting)]
    return notifier("push", "test", *arguments, *flags, given=given)


def push(key_file, browser, *arguments):
    PushService.requests.clear()
    printed, error = try_to_push(key_file, browser.subscription(), *arguments)
    assert error == "", error
    return printed


def sent(key_file, body):
    """Sends a message with this key to a browser; what came there."""
    data = {"title": "Täst", "body": body}
    event = {"type": "note.made", "id": str(uuid.uuid4()), "time": "2026-01-15T10:30:00Z", "data": data}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(event, file)
        file.flush()
        browser = Browser()
        push(key_file, browser, "--event", file.name)
    browser.close()
    [(path, headers, encrypted)] = PushService.requests
    assert path == "/push/some-secret", path
    assert headers["content-encoding"] == "aes128gcm" and headers["ttl"] == "86400", headers
    return browser, headers, encrypted


def check_sender(browser, headers, public):
    # py-vapid wants none of the spaces that RFC 8292 has in its examples.
    authorization = headers["authorization"].replace(", ", ",")
    assert Vapid02.verify(authorization)
    token, key = authorization.removeprefix("vapid t=").split(",k=")
    assert key == public, f"{key} instead of {public}"
    claims = json.loads(decoded(token.split(".")[1]))
    assert claims["aud"] == browser.origin and claims["sub"] == SUBJECT, claims
    assert 0 < claims["exp"] - time.time() <= 12 * 3600, claims
    another = encoded(point(ec.generate_private_key(ec.SECP256R1())))
    assert not is_signed(authorization.replace(key, another))


def is_signed(authorization):
    try:
        return Vapid02.verify(authorization)
    except InvalidSignature:
        return False


def check(key_file, public):
    browser, headers, body = sent(key_file, "7 € 🙂")
    said = browser.read(body)
    assert (said["title"], said["body"]) == ("Täst", "7 € 🙂"), said
    check_sender(browser, headers, public)


def with_its_own_key(folder):
    path = f"{folder}/own.pem"
    public = notifier("vapid", "--out", path)[0].strip()
    check(path, public)
    assert encoded(point(Vapid02.from_file(path).private_key)) == public, "py-vapid reads another key from the file"


def with_a_key_of_py_vapid(folder):
    key, path = Vapid02(), f"{folder}/py.pem"
    key.generate_keys()
    key.save_key(path)
    check(path, encoded(point(key.private_key)))


def with_a_key_as_web_push_prints_it(folder):
    key, path = ec.generate_private_key(ec.SECP256R1()), f"{folder}/raw"
    with open(path, "w", encoding="ascii") as file:
        file.write(encoded(key.private_numbers().private_value.to_bytes(32, "big")) + "\n")
    check(path, encoded(point(key)))


def the_longest_message(folder):
    path = f"{folder}/own.pem"
    browser, _, body = sent(path, "é" * 9000)
    said = browser.read(body)
    assert len(body) in range(4093, 4097), f"{len(body)} bytes of 4096"
    assert said["body"].endswith("é…"), said["body"][-10:]


def what_is_refused_is_told_without_the_secret(folder):
    PushService.requests.clear()
    browser = Browser()
    good = browser.subscription()
    for given, private, told in [
        (good, "false", "the endpoint"),
        (good.replace("some-secret", "some-secret" * 200), "true", "the endpoint"),
        (good.replace('"auth": "', '"auth": "some-secret'), "true", "keys.auth"),
        (json.dumps("https://push.example.com/some-secret"), "true", "standard input must be a subscription"),
        ("some-secret", "true", "standard input must be a subscription"),
    ]:
        printed, error = try_to_push(f"{folder}/own.pem", given, private=private)
        assert told in error and printed == "", error
        assert "some-secret" not in error, error
    browser.close()
    assert not PushService.requests


def a_thousand_messages_a_minute_cost_little(folder, count=500):
    def spent(messages):
        browser = Browser()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        printed = push(f"{folder}/own.pem", browser, "--count", str(messages))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        browser.close()
        assert len(PushService.requests) == messages
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, printed

    # Less what the program's start costs.
    (one, _), (all_of_them, printed) = spent(1), spent(count)
    each = (all_of_them - one) / (count - 1)
    share = each * 1000 / 60
    print(f"{printed.splitlines()[-1]}; {each * 1e3:.2f} ms of processor time each, {share:.1%} of a core at 1,000 a minute")
    assert share < 0.5, share


# The first makes the key that the others take.
TESTS = [
    with_its_own_key,
    with_a_key_of_py_vapid,
    with_a_key_as_web_push_prints_it,
    the_longest_message,
    what_is_refused_is_told_without_the_secret,
    a_thousand_messages_a_minute_cost_little,
]

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(run("Web Push", TESTS, lambda test: test(folder)))
