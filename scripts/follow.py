#!/usr/bin/env python3
"""Shows the progress of a user's tasks in the terminal, as the notifier sends it.

    BELLHOP_TOKEN=... scripts/follow.py ws://127.0.0.1:8080/ws [--ready FILE] [--until N]

Needs nothing but Python: the client's half of RFC 6455 is below. FILE is created
once the notifier has accepted the token; with --until it ends after N tasks have.
"""

import argparse
import base64
import collections
import json
import os
import pathlib
import socket
import struct
import sys
import urllib.parse

FINAL = {"succeeded", "failed", "cancelled"}
LOG_LINES = 3  # of each running task on a terminal
COLOURS = {"succeeded": 32, "failed": 31, "cancelled": 33, "retrying": 33, "running": 36}


class Gone(Exception):
    """The connection ended; says why."""


class WebSocket:
    """A client that reads text messages and answers pings."""

    def __init__(self, url, token):
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=10)
        self.socket.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        # The server pings every 30 s, so a longer silence means that it is gone.
        self.socket.settimeout(90)
        self.stream = self.socket.makefile("rb")
        answer = self.stream.readline().decode().strip()
        while self.stream.readline().strip():
            pass
        if " 101 " not in answer + " ":
            raise Gone(f"the notifier refused the connection: {answer}")

    def send(self, opcode, payload):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def read(self, count):
        data = self.stream.read(count)
        if len(data) < count:
            raise Gone("the notifier closed the connection")
        return data

    def messages(self):
        text = b""
        while True:
            first, length = self.read(2)
            opcode, length = first & 0x0F, length & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", self.read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.read(8))
            payload = self.read(length)
            if opcode == 0x8:
                code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                raise Gone(f"the notifier closed the connection: {code} {payload[2:].decode()}")
            if opcode == 0x9:
                self.send(0xA, payload)
            elif opcode in (0x0, 0x1):
                text += payload
                if first & 0x80:
                    yield json.loads(text)
                    text = b""


def amount(value, unit):
    if unit != "bytes":
        return f"{value:,}"
    for name in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {name}"
        value /= 1000
    return f"{value:.2f} GB"


def printable(text):
    """What came from a job may not move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def duration(seconds):
    for size, name, small_size, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {name} {seconds % size // small_size} {small}"
    return f"{seconds} s"


def figures(progress):
    """How much, how fast and how long still, as far as the worker knows."""
    done, total, rate, left = (progress.get(key) for key in ("done", "total", "rate", "remaining_s"))
    unit, parts = progress.get("unit") or "", []
    suffix = "" if unit in ("", "bytes") else f" {unit}"
    if done is not None:
        parts.append(amount(done, unit) + (f" of {amount(total, unit)}" if total is not None else "") + suffix)
    if rate is not None:
        number = f"{rate:,.3g}" if rate < 1 and unit != "bytes" else amount(round(rate), unit)
        parts.append(f"{number}{suffix}/s")
    if left is not None:
        parts.append(f"{duration(left)} left")
    return parts


def steps(progress):
    """The step, and the step within it, each with its figures."""
    step, names = progress.get("step"), []
    while step:
        place = f"{step['index']}/{step['count']} " if step.get("index") and step.get("count") else ""
        names.append(", ".join([place + step["name"], *figures(step)]))
        step = step.get("step")
    return names


def innermost(progress):
    while progress.get("step"):
        progress = progress["step"]
    return progress


def in_short(result):
    """The plain values of a result; lists can be long."""
    if not isinstance(result, dict):
        return "" if result is None else json.dumps(result)
    plain = {key: value for key, value in result.items() if not isinstance(value, (dict, list))}
    return ", ".join(f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in plain.items())


def describe(task):
    """One line about a task."""
    status, progress = task["status"], task.get("progress") or {}
    percent = progress.get("percent")
    if status == "succeeded":
        percent, detail = 100, in_short(task.get("result"))
    elif task.get("error"):
        detail = f"{task['error']['code']}: {task['error']['message']}"
    else:
        parts = figures(progress) + steps(progress)
        detail = " · ".join(parts) if parts else innermost(progress).get("message") or ""
    filled = int((percent or 0) / 5)
    bar = "█" * filled + "·" * (20 - filled)
    share = "      " if percent is None else f"{percent:5.1f}%"
    name = (task.get("title") or task["kind"])[:26]
    return status, printable(f"{name:<26} {status:<9} {bar} {share}  {detail}")


class Board:
    """On a terminal each task has a line that moves; elsewhere a line says what changed."""

    def __init__(self):
        self.tasks, self.said, self.drawn = {}, {}, 0
        self.logs = collections.defaultdict(lambda: collections.deque(maxlen=LOG_LINES))
        self.moves = sys.stdout.isatty()

    def update(self, task):
        seen = self.tasks.get(task["task_id"])
        if seen and task["rev"] <= seen["rev"]:
            return
        if seen and not task.get("progress"):
            task["progress"] = seen.get("progress")
        self.tasks[task["task_id"]] = task
        if self.moves:
            self.draw()
        else:
            self.tell(task)

    def log(self, data):
        lines = [line["text"] for line in data["lines"]]
        if data.get("dropped"):
            lines.insert(0, f"({data['dropped']:,} lines left out)")
        self.logs[data["task_id"]].extend(lines)
        if self.moves:
            self.draw()
        else:
            task = self.tasks.get(data["task_id"], {})
            name = (task.get("title") or task.get("kind") or data["task_id"])[:26]
            for line in lines:
                print(printable(f"{name:<26} | {line}")[:160], flush=True)

    def draw(self):
        width = os.get_terminal_size().columns
        lines = []
        for task_id, task in self.tasks.items():
            status, line = describe(task)
            lines.append((COLOURS.get(status, 0), line))
            if status not in FINAL:
                lines += [(2, printable(f"  | {text}")) for text in self.logs[task_id]]
        out = f"\x1b[{self.drawn}A" if self.drawn else ""
        out += "".join(f"\x1b[{colour}m{line[: width - 1]}\x1b[0m\x1b[K\n" for colour, line in lines)
        # Lines that are no longer there.
        print(out + "\x1b[J", end="", flush=True)
        self.drawn = len(lines)

    def tell(self, task):
        status, line = describe(task)
        percent = (task.get("progress") or {}).get("percent") or 0
        state = (status, int(percent // 20))
        if self.said.get(task["task_id"]) != state:
            self.said[task["task_id"]] = state
            print(line[:160], flush=True)

    def ended(self):
        return sum(task["status"] in FINAL for task in self.tasks.values())


def follow(options):
    board = Board()
    for frame in WebSocket(options.url, os.environ["BELLHOP_TOKEN"]).messages():
        if frame["type"] == "connected" and options.ready:
            pathlib.Path(options.ready).touch()
        if frame["type"] == "task.log":
            board.log(frame["data"])
        if frame["type"] == "task.updated":
            board.update(frame["data"])
            if options.until and board.ended() >= options.until:
                return


def main():
    parser = argparse.ArgumentParser(description="Show the progress of a user's tasks.")
    parser.add_argument("url")
    parser.add_argument("--ready", metavar="FILE")
    parser.add_argument("--until", metavar="N", type=int)
    try:
        follow(parser.parse_args())
    except KeyboardInterrupt:
        sys.exit(130)
    except (Gone, OSError) as reason:
        sys.exit(f"follow: {reason}")


main()
