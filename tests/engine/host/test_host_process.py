"""Real hosts: how they end, what they cost, and ten thousand odd lines."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import protocol
from engine.host.pipe import CHUNK
from engine.protocol import messages

ROOT = Path(__file__).resolve().parents[3]
HELLO = {"jsonrpc": "2.0", "id": "hello", "method": "hello", "params": {"version": messages.VERSION}}


def request(identity: object, method: str, **params: object) -> dict:
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}


class Process:
    """`python -m engine`, as a client starts it, and the lines between the two."""

    def __init__(self, workspace: Path, greeted: bool = True):
        workspace.mkdir(exist_ok=True)
        self.log = workspace / "host.log"
        environment = {"LORATUI_WORKSPACE": str(workspace), "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
        with self.log.open("a+b") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "engine"],
                env=os.environ | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        if greeted:
            assert self.ask(HELLO)["id"] == "hello"

    def write(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, *lines: bytes | dict) -> None:
        self.write(b"".join((json.dumps(line).encode() if isinstance(line, dict) else line) + b"\n" for line in lines))

    def next(self) -> dict:
        line = self.process.stdout.readline()
        assert line, "the host has ended"
        return json.loads(line)

    def ask(self, line: bytes | dict) -> dict:
        self.send(line)
        return self.next()

    def hang_up(self) -> list[dict]:
        """End the host as its client's end does; what it still says."""
        self.process.stdin.close()
        last = self.process.stdout.read()
        assert self.process.wait(20) == 0
        return [json.loads(line) for line in last.splitlines()]

    def resident(self) -> int:
        """Bytes of memory that the host has in use."""
        fields = Path(f"/proc/{self.process.pid}/status").read_text().split("VmRSS:")[1].split()
        return int(fields[0]) * 1024


@pytest.fixture
def host(tmp_path) -> Iterator:
    started = []

    def start(greeted: bool = True) -> Process:
        started.append(Process(tmp_path / "ws", greeted))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        with one.process:
            pass


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


def test_a_host_ends_with_its_client_and_says_nothing(host):
    one = host()
    assert one.hang_up() == []
    assert one.log.read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_host_ends_quietly_on_a_signal(host, number):
    one = host()
    one.process.send_signal(number)
    assert one.process.wait(20) == 0
    assert one.log.read_bytes() == b""


def test_a_host_starts_with_next_to_nothing():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "engine"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "msgspec" in imported
    assert imported.isdisjoint({"torch", "numpy", "PIL", "psutil", "pynvml", "asyncio", "logging", "safetensors"})


def test_a_host_answers_all_that_was_piped_into_it_before_it_ends(host):
    one = host(greeted=False)
    one.send(HELLO, *(request(number, "devices.list") for number in range(20)))
    assert {answer["id"] for answer in one.hang_up()} == {"hello", *range(20)}


@needs_proc
def test_a_line_without_an_end_is_refused_and_not_kept(host):
    one = host()
    before = one.resident()
    for _ in range(64):
        one.send(b"x" * (1 << 20))
        assert one.next()["error"]["code"] == messages.PARSE_ERROR
    for _ in range(1024):
        one.write(b"[" * CHUNK)
    one.write(b"\n")
    refused = one.next()
    assert (refused["id"], refused["error"]["code"]) == (None, messages.INVALID_REQUEST)
    assert str(messages.LONGEST) in refused["error"]["message"]
    assert one.resident() - before < 24 << 20
    assert one.ask(request(1, "queue.list"))["id"] == 1


def job(workspace: Path, name: str = "20260101-0000-cat", state: str = "running") -> Path:
    directory = workspace / "projects" / "default" / "runs" / name
    directory.mkdir(parents=True)
    (directory / protocol.CONFIG).write_text('kind = "train"\nname = "cat"\n')
    (directory / protocol.STATUS).write_bytes(protocol.Status(state=state).to_bytes())
    (directory / protocol.JOURNAL).touch()
    return directory


def journal_lines(first: int, count: int) -> bytes:
    rates = {"unet": 1e-4, "text": 5e-5}
    return b"".join(
        protocol.encode(protocol.Step(t=1e9 + step, step=step, loss=0.1, instance=0.1, grad_norm=1.0, lr=rates))
        for step in range(first, first + count)
    )


@needs_proc
def test_a_reader_who_sleeps_costs_no_memory_and_misses_nothing(host, tmp_path):
    one = host()
    directory = job(tmp_path / "ws", state="done")
    path = directory / protocol.JOURNAL
    one.ask(request(1, "jobs.watch", job="cat"))
    assert one.next()["params"]["state"] == "done"
    before = one.resident()
    with path.open("ab", buffering=0) as file:
        for first in range(0, 100_000, 1000):
            file.write(journal_lines(first, 1000))
    most, found, offset = 0, [], 0
    while offset < path.stat().st_size:
        told = one.next()["params"]
        offset = told["offset"]
        found += [event["step"] for event in told["events"]]
        if len(found) % 7 == 0:
            most = max(most, one.resident())
    assert found == list(range(100_000))
    assert max(most, one.resident()) - before < 16 << 20


def test_two_hosts_on_one_workspace_tell_the_same(host, tmp_path):
    one, two = host(), host()
    directory = job(tmp_path / "ws", state="done")
    (directory / protocol.JOURNAL).write_bytes(journal_lines(0, 500) + b'{"event":"st')
    seen = []
    for each in (one, two):
        size = each.ask(request(1, "jobs.watch", job=directory.name))["result"]["size"]
        assert size == len(journal_lines(0, 500))
        steps, offset = [], 0
        while offset < size:
            told = each.next()["params"]
            offset = told["offset"]
            steps += [event["step"] for event in told["events"]]
        seen.append(steps)
    assert seen == [list(range(500))] * 2
    assert one.hang_up() == []
    with (directory / protocol.JOURNAL).open("ab") as file:
        file.write(b'ep","step":500,"loss":0.5}\n')
    assert [event["step"] for event in two.next()["params"]["events"]] == [500]


def test_a_host_looks_things_up_without_anything_heavy(tmp_path):
    code = f"""
import sys
from pathlib import Path
from engine.host.methods import Methods
from engine.protocol import browse, messages
table = Methods(Path({str(tmp_path)!r}), None).table()
table["jobs.list"](messages.ListJobs())
table["queue.list"](messages.Nothing())
table["projects.list"](messages.Nothing())
table["devices.list"](messages.Nothing())
table["adapters.list"](messages.AdaptersRef(folders=[{str(tmp_path)!r}]))
table["images.list"](messages.FolderRef(path={str(tmp_path)!r}))
table["bases.resolve"](messages.ResolveBase(base="tiny"))
table["projects.create"](browse.ProjectRef(name="cats"))
table["drafts.write"](browse.Draft(project="cats", config={{"model": {{"base": "tiny"}}}}))
table["drafts.read"](browse.ProjectRef(name="cats"))
table["projects.rename"](browse.RenameProject(name="cats", to="dogs"))
table["projects.remove"](browse.ProjectRef(name="dogs"))
table["workspace.watch"](messages.Nothing())
subsets = [{{"path": {str(tmp_path)!r}}}]
table["runs.plan"](browse.PlanRun(config={{"model": {{"base": "tiny"}}, "dataset": {{"subsets": subsets}}}}))
print(*(name for name in ("torch", "numpy", "diffusers", "transformers", "asyncio") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


HARMLESS = [
    ("jobs.list", {"project": "default", "limit": 3}),
    ("jobs.show", {"job": "20260101-0000-cat"}),
    ("jobs.show", {"job": "nothing"}),
    ("jobs.unwatch", {"job": "20260101-0000-cat"}),
    ("jobs.control", {"job": "nothing", "name": "set", "field": "optimizer.lr_unet", "value": 1e-4}),
    ("queue.list", {}),
    ("queue.move", {"job": "nothing", "position": 2}),
    ("projects.list", {}),
    ("projects.rename", {"name": "nothing", "to": "nothing else"}),
    ("projects.remove", {"name": "nothing"}),
    ("drafts.read", {"name": "nothing"}),
    ("drafts.write", {"project": "nothing", "preset": "style", "config": {"training": {"steps": 3}}}),
    ("jobs.log", {"job": "20260101-0000-cat", "offset": -100}),
    ("runs.plan", {"config": {"model": {"base": "tiny"}, "training": {"steps": 3}}}),
    ("adapters.list", {"folders": ["/nowhere"], "offset": 0, "limit": 100, "find": "a -b"}),
    ("adapters.remove", {"path": "/nowhere/a.safetensors"}),
    ("images.list", {"path": "/nowhere", "offset": 10, "limit": 10, "find": "a"}),
    ("images.subsets", {"subsets": [{"path": "/nowhere"}, {}]}),
    ("captions.count", {"base": "tiny", "texts": ["a cat"]}),
    ("captions.write", {"project": "default", "path": "/nowhere/a.png", "text": "a cat"}),
    ("captions.undo", {"name": "default"}),
    ("captions.redo", {"name": "default"}),
    ("bases.resolve", {"base": "tiny"}),
    ("no.method", {"really": [None]}),
]
ODDITIES: list[object] = [
    None, True, -1, 0, 1 << 63, 1 << 64, 10**400, 1e308, 5e-324, "", "\0", "é😀", "\ud800", [], {}, [[]] * 50,
    {"a": {}}, "x" * 5000, "../../etc", "NaN",
]  # fmt: skip


def fuzz(drawn: random.Random, number: int) -> bytes:
    """A line: a valid message, one that was damaged, or noise."""
    method, params = drawn.choice(HARMLESS)
    message = request(f"odd-{number}", method, **params)
    kind = drawn.randrange(8)
    if kind <= 1:
        return json.dumps(message | {"id": number}).encode()
    if kind == 2:
        return drawn.randbytes(drawn.randrange(1, 300)).replace(b"\n", b"\0")
    if kind == 3:
        return drawn.choice([b"[", b'{"a":', b'{"params":[', b'[{"id":']) * drawn.choice([10, 1000, 20_000])
    if kind == 4:
        message[drawn.choice(list(message))] = drawn.choice(ODDITIES)
    if kind == 5 and message["params"]:
        message["params"][drawn.choice([*message["params"], "unknown"])] = drawn.choice(ODDITIES)
    line = bytearray(json.dumps(message).encode())
    if kind == 6:
        for _ in range(drawn.randrange(1, 6)):
            line[drawn.randrange(len(line))] = drawn.choice(b'{}[]",:\\0 \x00\xff\xc3e')
    if kind == 7:
        del line[drawn.randrange(len(line)) :]
    return bytes(line).replace(b"\n", b" ")


def silent(line: bytes) -> bool:
    """Whether a line gets no reply: nothing but blanks, or a request without an id."""
    try:
        message = json.loads(line) if line.strip() else {"jsonrpc": "2.0", "method": ""}
    except (ValueError, RecursionError):
        return False
    asks = isinstance(message, dict) and message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str)
    return asks and "id" not in message


@needs_proc
def test_ten_thousand_odd_lines_each_have_their_answer_and_the_host_lives(host, tmp_path):
    one = host()
    job(tmp_path / "ws", state="done")
    drawn = random.Random(20261123)
    lines = [fuzz(drawn, number) for number in range(10_000)]
    threading.Thread(target=lambda: one.send(*lines, request("last", "hello", version=1)), daemon=True).start()
    answers = [one.next()]
    while answers[-1]["id"] != "last":
        answers.append(one.next())
    assert one.resident() < 100 << 20
    answers += one.hang_up()

    assert len(answers) == sum(not silent(line) for line in lines) + 1
    counts = Counter(answer["id"] for answer in answers)
    asked = {number for number, line in enumerate(lines) if line.startswith(b'{"jsonrpc": "2.0", "id": %d,' % number)}
    assert len(asked) > 2000
    assert {number: counts[number] for number in asked} == dict.fromkeys(asked, 1)
    codes = {answer["error"]["code"] for answer in answers if "error" in answer}
    assert codes == {
        messages.PARSE_ERROR, messages.INVALID_REQUEST, messages.UNKNOWN_METHOD, messages.INVALID_PARAMS,
        messages.REFUSED_BY_RULE,
    }  # fmt: skip
    assert one.log.read_bytes() == b""
