"""Mails to people who are away: events published by pika, mails taken by aiosmtpd.

Run by scripts/client-test, which says where the notifier's program, the broker and the secret are.
"""

import collections
import datetime
import re
import signal
import sys
import tempfile
import time
import uuid

from websockets.sync.client import connect

from scene import ADMIN, PUBLIC_URL, Notifier, Relay, Scene, address, newcomer, wait_for
from seeds import Client, run, token


def text_of(message):
    return message.get_body(("plain",)).get_content()


def link_of(message):
    """The path of the one-click link."""
    url = re.fullmatch(r"<(https://.*)>", message["list-unsubscribe"])[1]
    assert message["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    return url.removeprefix(PUBLIC_URL)


def came_by(scene, user):
    """Somebody was connected once, with his address in his token, and has left."""
    bearer = token(user, [], email=address(user), name="Ann")
    Client(connect(f"ws://127.0.0.1:{scene.notifier.port}/ws?token={bearer}")).close()
    wait_for(lambda: scene.notifier.contact(user), "the address of the token")
    presence = f"/api/users/{user}/presence"
    wait_for(lambda: not scene.notifier.told("GET", presence, bearer=ADMIN)["online"], "the user is away")


def what_nobody_has_seen_comes_by_mail_once(scene):
    ann = newcomer("ann")
    came_by(scene, ann)
    event = scene.publish(ann, "Paid: 7 €")
    _, sent = scene.notifier.logs(event, "ordered", "sent")
    [message] = scene.mails(ann)
    assert message["subject"] == "Paid: 7 €" and message["to"].addresses[0].display_name == "Ann", message["to"]
    assert f"https://shop.example.org/{event}" in text_of(message), text_of(message)
    assert message["message-id"] == f"<{uuid.UUID(sent['order']).hex}@example.org>", message["message-id"]
    assert (sent["channel"], sent["user_id"], sent["attempt"]) == ("email", ann, 1), sent
    assert link_of(message).startswith("/unsubscribe/")
    scene.settle()
    scene.mails(ann)


def what_is_read_in_time_is_not_mailed(scene):
    ann = newcomer("ann")
    came_by(scene, ann)
    event = scene.publish(ann, "Read me", "letter")
    wait_for(lambda: scene.notifier.unread(ann) == 1, "the letter in the inbox")
    scene.notifier.told("POST", "/api/inbox/read", {"ids": [event]}, bearer=token(ann, []))
    scene.notifier.logs(event, "read")
    assert not scene.relay.of(ann)


def the_backends_address_counts_more_than_the_tokens(scene):
    ann, other = newcomer("ann"), newcomer("other")
    scene.notifier.put_contact(ann, email=address(other))
    came_by(scene, ann)
    scene.notifier.logs(scene.publish(ann, "To the other"), "ordered", "sent")
    scene.mails(other)
    assert not scene.relay.of(ann) and scene.notifier.contact(ann)["source"] == "api"


def several_at_once_are_one_mail(scene):
    ann = newcomer("ann")
    scene.notifier.put_contact(ann)
    events = [scene.publish(ann, f"News {number}") for number in range(7)]
    for event in events:
        scene.notifier.logs(event, "ordered", "sent")
    [message] = scene.mails(ann)
    assert message["subject"] == "News 6, and 6 more", message["subject"]
    assert re.findall(r"News \d", text_of(message)) == [f"News {number}" for number in reversed(range(7))]


def a_digest_has_what_is_still_unread(scene):
    ann = newcomer("ann")
    scene.notifier.put_contact(ann)

    def in_a_moment():
        at = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=8)).replace(microsecond=0)
        choices = {"news": {"mail": "daily"}}
        scene.notifier.prefer(ann, time_zone="UTC", digest_at=at.strftime("%H:%M:%S"), categories=choices)
        return at

    at = in_a_moment()
    first, read, second = (scene.publish(ann, title) for title in ("First", "Read", "Second"))
    wait_for(lambda: scene.notifier.unread(ann) == 3, "three events in the inbox")
    scene.settle()
    assert not scene.relay.of(ann), "a mail before its time"
    scene.notifier.told("POST", "/api/inbox/read", {"ids": [read]}, bearer=token(ann, []))
    [message] = scene.mails(ann)
    assert at <= message["date"].datetime, "a digest before its time"
    titles = re.findall("First|Read|Second", text_of(message))
    assert titles == ["Second", "First"], text_of(message)
    for event, wants in [(first, ["ordered", "sent"]), (read, ["read"]), (second, ["ordered", "sent"])]:
        scene.notifier.logs(event, *wants)
    # What comes later is in the next one, and alone there, though the others are still unread.
    in_a_moment()
    scene.publish(ann, "Third")
    scene.settle()
    scene.mails(ann)
    [_, message] = scene.mails(ann, 2)
    assert re.findall("First|Read|Second|Third", text_of(message)) == ["Third"], text_of(message)


def what_the_server_does_not_take_now_comes_later(scene):
    ann = newcomer("ann")
    scene.notifier.put_contact(ann)
    scene.relay.answers["DATA"] = "451 4.3.0 later"
    event = scene.publish(ann, "Later")
    scene.notifier.logs(event, "ordered", "retrying")
    scene.relay.answers.clear()
    *_, retrying, sent = scene.notifier.logs(event, "ordered", "retrying", "sent")
    assert "451" in retrying["detail"] and sent["attempt"] == 2, (retrying, sent)
    refused, taken = scene.mails(ann, 2)
    assert refused["message-id"] == taken["message-id"]


def an_address_that_is_gone_gets_nothing_until_it_is_said_again(scene):
    ann = newcomer("ann")
    came_by(scene, ann)
    scene.relay.answers["RCPT"] = "550 5.1.1 no such user"
    _, gone = scene.notifier.logs(scene.publish(ann, "Gone"), "ordered", "gone")
    scene.relay.answers.clear()
    assert "550" in gone["detail"] and "550" in scene.notifier.contact(ann)["suppressed"]["reason"], gone
    came_by(scene, ann)
    scene.notifier.logs(scene.publish(ann, "Nowhere"), "no_recipient")
    assert not scene.relay.of(ann)
    scene.notifier.put_contact(ann)
    scene.notifier.logs(scene.publish(ann, "Again"), "ordered", "sent")
    assert scene.mails(ann)[0]["subject"] == "Again" and "suppressed" not in scene.notifier.contact(ann)


def one_click_ends_the_mails(scene):
    ann, kind = newcomer("ann"), "application/x-www-form-urlencoded"
    scene.notifier.put_contact(ann)
    scene.publish(ann, "Too much")
    link = link_of(scene.mails(ann)[0])

    def choice():
        answer = scene.notifier.told("GET", "/api/preferences", bearer=token(ann, []))
        return answer["effective"]["categories"]["news"]["mail"]

    def post(path):
        return scene.notifier.ask("POST", path, "List-Unsubscribe=One-Click", kind=kind)[0]

    head, claims, signature = link.rsplit("/", 1)[1].split(".")
    unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"  # {"alg":"none","typ":"JWT"}
    for forged in (f"{head}.{claims}.{signature[::-1]}", f"{unsigned}.{claims}.", claims, token(ann, [], cat="news")):
        assert post(f"/unsubscribe/{forged}") == 404, forged
    assert "<button>" in scene.notifier.told("GET", link) and choice() == "each"
    assert post(link) == 200 and choice() == "never"
    scene.notifier.logs(scene.publish(ann, "No more"), "off")
    scene.mails(ann)


def what_waits_to_be_sent_again_is_not_sent_to_who_has_left(scene):
    ann = newcomer("ann")
    scene.notifier.put_contact(ann)
    scene.relay.answers["DATA"] = "451 4.3.0 later"
    event = scene.publish(ann, "Too late")
    scene.notifier.logs(event, "ordered", "retrying")
    scene.relay.answers.clear()
    assert scene.notifier.ask("POST", link_of(scene.mails(ann)[0]))[0] == 200
    scene.notifier.logs(event, "ordered", "retrying", "off")
    scene.mails(ann)


def a_killed_notifier_sends_once_more_and_under_the_same_id(scene):
    # The relay has the text, and the notifier has or may have its answer.
    for says_nothing, counts in ((True, {2}), (False, {1, 2})):
        ann = newcomer("ann")
        scene.notifier.put_contact(ann)
        scene.relay.says_nothing = says_nothing
        event = scene.publish(ann, "Once")
        scene.mails(ann)
        scene.notifier.end(signal.SIGKILL)
        scene.relay.says_nothing = False
        scene.notifier.start()
        scene.notifier.logs(event, "ordered", "sent")
        scene.settle()
        ids = [message["message-id"] for message in scene.relay.of(ann)]
        assert len(ids) in counts and len(set(ids)) == 1, ids


def a_thousand_users_have_their_mails_soon(scene, count=1000):
    users = [newcomer("user") for _ in range(count)]
    for user in users:
        scene.notifier.put_contact(user)
    scene.relay.mails.clear()
    before, began = scene.notifier.processor_time(), time.monotonic()
    events = [scene.publish(user, f"For {user}") for user in users]
    published = time.monotonic() - began
    wait_for(lambda: len(scene.relay.mails) >= count, lambda: f"{count} mails, {len(scene.relay.mails)}")
    took, spent = time.monotonic() - began, scene.notifier.processor_time() - before
    for event in events:
        scene.notifier.logs(event, "ordered", "sent")
    receivers = collections.Counter(to for taken in scene.relay.mails for to in taken.rcpt_tos)
    assert receivers == {address(user): 1 for user in users}, receivers.most_common(3)
    share = spent / 60 * 1000 / count
    print(f"{count} mails {took:.1f} s after the first event ({published:.1f} s to publish); "
          f"{spent / count * 1e3:.2f} ms of processor time each, {share:.1%} of a core at 1,000 a minute")
    assert share < 0.5, share


TESTS = [
    what_nobody_has_seen_comes_by_mail_once,
    what_is_read_in_time_is_not_mailed,
    the_backends_address_counts_more_than_the_tokens,
    several_at_once_are_one_mail,
    a_digest_has_what_is_still_unread,
    what_the_server_does_not_take_now_comes_later,
    an_address_that_is_gone_gets_nothing_until_it_is_said_again,
    one_click_ends_the_mails,
    what_waits_to_be_sent_again_is_not_sent_to_who_has_left,
    a_killed_notifier_sends_once_more_and_under_the_same_id,
    a_thousand_users_have_their_mails_soon,
]


def main():
    with tempfile.TemporaryDirectory() as folder, Relay() as relay:
        notifier = Notifier(folder, relay)
        try:
            failed = run("away", TESTS, lambda test: test(Scene(relay, notifier)))
        finally:
            notifier.end()
        if failed:
            print((notifier.folder / "log").read_text()[-4000:])
        return failed


if __name__ == "__main__":
    sys.exit(main())
