"""Every line is answered and none ends the host: the protocol in process, then against real hosts."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import Problem, UserError
from engine.host.methods import Methods
from engine.host.pipe import Outbox
from engine.host.server import Server, Then, notification
from engine.protocol import browse, messages

ROOT = Path(__file__).resolve().parents[3]
HELLO = {"jsonrpc": "2.0", "id": "hello", "method": "hello", "params": {"version": messages.VERSION}}


def request(identity: object, method: str, **params: object) -> dict:
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}


class Pipe:
    """A client's two ends of a host's pipe, a line at a time."""

    def __init__(self, sink: int, source: int):
        self.sink, self.pipe = sink, os.fdopen(source, "rb")

    def send(self, *lines: bytes | dict) -> None:
        data = b"".join((json.dumps(line).encode() if isinstance(line, dict) else line) + b"\n" for line in lines)
        view = memoryview(data)
        while view:
            view = view[os.write(self.sink, view) :]

    def next(self) -> dict:
        line = self.pipe.readline()
        assert line, "the host has ended"
        return json.loads(line, parse_constant=pytest.fail)

    def ask(self, line: bytes | dict) -> dict:
        self.send(line)
        return self.next()


class InProcess(Pipe):
    """A server on a thread, with any methods in place of the real ones."""

    def __init__(self, methods: dict, workspace: Path, greeted: bool = True):
        (there, self.ours), (back, self.theirs) = os.pipe(), os.pipe()
        super().__init__(self.ours, back)
        self.outbox = Outbox(self.theirs)
        self.server = Server(there, self.outbox, methods, workspace)
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()
        if greeted:
            self.ask(HELLO)


@pytest.fixture
def serve(tmp_path) -> Iterator:
    served = []

    def start(greeted: bool = True, **methods) -> InProcess:
        table = {name.replace("_", "."): method for name, method in methods.items()}
        served.append(InProcess(table, tmp_path, greeted))
        return served[-1]

    yield start
    for pipe in served:
        os.close(pipe.sink)
        pipe.thread.join(20)


def refuse(params):
    raise UserError([Problem(where="a", expected="b"), Problem(where="c", field="d", found="e")])


def test_hello_comes_first(serve):
    pipe = serve(greeted=False, jobs_list=lambda _: messages.Jobs(jobs=[]))
    early = pipe.ask(request(1, "jobs.list"))
    assert (early["id"], early["error"]["code"]) == (1, messages.INVALID_REQUEST)
    assert '"version":1' in early["error"]["message"]
    hello = pipe.ask(HELLO)["result"]
    assert (hello["version"], hello["pid"]) == (messages.VERSION, os.getpid())
    assert pipe.ask(request(2, "jobs.list"))["result"] == {"jobs": []}


@pytest.mark.parametrize("version", [0, messages.VERSION + 1])
def test_another_version_is_told_what_to_do_and_gets_no_further(serve, version):
    pipe = serve(greeted=False, jobs_list=lambda _: messages.Jobs(jobs=[]))
    refused = pipe.ask(request(1, "hello", version=version))["error"]
    assert refused["code"] == messages.REFUSED_BY_RULE
    assert refused["data"]["problems"][0]["found"] == str(version)
    assert "update both" in refused["message"]
    assert "error" in pipe.ask(request(2, "jobs.list"))


DEEP = b"[" * 400_000
ODD_LINES = {
    b"nonsense": (messages.PARSE_ERROR, None),
    b"{": (messages.PARSE_ERROR, None),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.list"} {}': (messages.PARSE_ERROR, None),
    b"\xff\xfe\x00": (messages.PARSE_ERROR, None),
    b'{"jsonrpc":"2.0","id":3,"method":"\xff"}': (messages.INVALID_REQUEST, 3),
    b'{"\xff":3}': (messages.PARSE_ERROR, None),
    b'"text"': (messages.INVALID_REQUEST, None),
    b"17": (messages.INVALID_REQUEST, None),
    b"null": (messages.INVALID_REQUEST, None),
    b"NaN": (messages.PARSE_ERROR, None),
    b"{}": (messages.INVALID_REQUEST, None),
    b'[{"jsonrpc":"2.0","id":3,"method":"jobs.list"}]': (messages.INVALID_REQUEST, None),
    b"[]": (messages.INVALID_REQUEST, None),
    DEEP: (messages.INVALID_REQUEST, None),
    b'{"a":' + DEEP: (messages.PARSE_ERROR, None),
    b'{"a":' + b'{"a":' * 100_000: (messages.PARSE_ERROR, None),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.list","params":' + b"[" * 900 + b"]" * 900 + b"}": (
        messages.INVALID_PARAMS,
        3,
    ),
    b'{"jsonrpc":"2.0","id":[3],"method":"jobs.list"}': (messages.INVALID_REQUEST, None),
    b'{"jsonrpc":"2.0","id":{},"method":"jobs.list"}': (messages.INVALID_REQUEST, None),
    b'{"jsonrpc":"2.0","id":1.5,"method":"jobs.list"}': (messages.INVALID_REQUEST, None),
    b'{"jsonrpc":"2.0","id":true,"method":"jobs.list"}': (messages.INVALID_REQUEST, None),
    b'{"jsonrpc":"2.0","id":"\\ud800","method":"jobs.list"}': (messages.PARSE_ERROR, None),
    b'{"jsonrpc":"2.0","id":1' + b"0" * 9999 + b',"method":"jobs.list"}': (messages.INVALID_REQUEST, None),
    b'{"jsonrpc":"1.0","id":3,"method":"jobs.list"}': (messages.INVALID_REQUEST, 3),
    b'{"id":3,"method":"jobs.list"}': (messages.INVALID_REQUEST, 3),
    b'{"jsonrpc":2,"id":3,"method":"jobs.list"}': (messages.INVALID_REQUEST, 3),
    b'{"jsonrpc":"2.0","id":3}': (messages.INVALID_REQUEST, 3),
    b'{"jsonrpc":"2.0","id":3,"method":7}': (messages.INVALID_REQUEST, 3),
    b'{"jsonrpc":"2.0","id":3,"result":{}}': (messages.INVALID_REQUEST, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.fly"}': (messages.UNKNOWN_METHOD, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"__class__"}': (messages.UNKNOWN_METHOD, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.list","params":[]}': (messages.INVALID_PARAMS, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.list","params":null}': (messages.INVALID_PARAMS, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.list","params":{"limit":"7"}}': (messages.INVALID_PARAMS, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.list","params":{"limit":1e99}}': (messages.INVALID_PARAMS, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.list","params":{"limti":7}}': (messages.INVALID_PARAMS, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.list","params":{"project":"\xff"}}': (messages.INVALID_PARAMS, 3),
    b'{"jsonrpc":"2.0","id":3,"method":"jobs.show"}': (messages.INVALID_PARAMS, 3),
}


@pytest.mark.parametrize(("line", "expected"), ODD_LINES.items(), ids=lambda value: repr(value)[:40])
def test_an_odd_line_is_answered_with_its_error_and_nothing_ends(serve, line, expected):
    pipe = serve(jobs_list=lambda _: messages.Jobs(jobs=[]))
    answer = pipe.ask(line)
    assert (answer["error"]["code"], answer["id"]) == expected
    assert answer["jsonrpc"] == "2.0"
    assert pipe.ask(request(4, "jobs.list")) == {"jsonrpc": "2.0", "id": 4, "result": {"jobs": []}}


@pytest.mark.parametrize("identity", [0, -5, 1 << 80, "", 'a\nb"c\u2028é😀', "x" * 100_000, None])
def test_an_id_comes_back_as_it_was(serve, identity):
    assert serve(jobs_list=lambda _: messages.Jobs(jobs=[])).ask(request(identity, "jobs.list"))["id"] == identity


def test_a_name_that_the_method_does_not_take_is_named(serve):
    said = serve().ask(request(1, "jobs.list", limti=7))["error"]["message"]
    assert "limti" in said
    assert "limit" in said


def test_a_message_without_an_id_is_done_and_not_answered(serve):
    done = []
    pipe = serve(jobs_list=lambda params: done.append(params.project) or messages.Jobs(jobs=[]), jobs_show=refuse)
    unasked = [request(0, method) for method in ("jobs.list", "jobs.show", "jobs.fly")]
    for message in unasked:
        del message["id"]
    pipe.send(*unasked, b"   ", b"", b"\r")
    assert pipe.ask(request(1, "hello", version=messages.VERSION))["id"] == 1
    pipe.send(request(2, "jobs.list", project="last"))
    assert pipe.next()["id"] == 2
    assert sorted(done) == ["", "last"]


def test_a_users_mistakes_are_all_told(serve):
    error = serve(jobs_list=refuse).ask(request(1, "jobs.list"))["error"]
    assert error["code"] == messages.REFUSED_BY_RULE
    assert error["message"] == "a: expected b\nc: d: found e"
    assert [problem["where"] for problem in error["data"]["problems"]] == ["a", "c"]


def test_a_full_disk_is_the_users_to_mend(serve):
    def full(params):
        raise OSError(28, "No space left on device", "/there/status.json")

    error = serve(jobs_list=full).ask(request(1, "jobs.list"))["error"]
    assert error["code"] == messages.REFUSED_BY_RULE
    assert error["message"].startswith("/there/status.json: ")


def test_a_defect_is_told_in_a_line_and_in_full_to_the_log(serve, capfd):
    def stumble(params):
        return [][0]

    pipe = serve(jobs_list=stumble, jobs_show=lambda _: object())
    error = pipe.ask(request(1, "jobs.list"))["error"]
    assert error["code"] == messages.INTERNAL_ERROR
    assert "IndexError" in error["message"]
    assert "Traceback" not in json.dumps(error)
    assert pipe.ask(request(2, "jobs.show", job="x"))["error"]["code"] == messages.INTERNAL_ERROR
    log = capfd.readouterr().err
    assert "in stumble" in log


def test_what_json_can_not_say_is_said_otherwise(serve):
    figures = messages.DeviceFigures(t=math.inf, cpu=math.nan, memory_used=0, memory_total=0, disk_free=0)
    odd = os.fsdecode(b"/pictures/\xff.png")
    pipe = serve(
        devices_list=lambda _: figures,
        images_list=lambda _: messages.Images(total=1, images=[browse.ImageEntry(path=odd, bytes=1)]),
    )
    assert pipe.ask(request(1, "devices.list"))["result"]["cpu"] is None
    assert pipe.ask(request(2, "images.list", path="/"))["result"]["images"][0]["path"] == r"/pictures/\udcff.png"


def test_a_slow_request_keeps_no_other_waiting(serve):
    go = threading.Event()

    def slow(params):
        assert go.wait(20)
        return messages.Jobs(jobs=[])

    pipe = serve(jobs_list=slow, queue_list=lambda _: messages.Queue(jobs=[], runner=False))
    pipe.send(request("slow", "jobs.list"), request("quick", "queue.list"))
    assert pipe.next()["id"] == "quick"
    go.set()
    assert pipe.next()["id"] == "slow"


def test_requests_in_work_are_bounded(serve):
    go, working, most = threading.Semaphore(0), Counter(), []

    def slow(params):
        working["now"] += 1
        most.append(working["now"])
        go.acquire()
        working["now"] -= 1
        return messages.Jobs(jobs=[])

    pipe = serve(jobs_list=slow)
    count = 3 * Server.AT_ONCE
    pipe.send(*(request(number, "jobs.list") for number in range(count)))
    answered = set()
    for _ in range(count):
        go.release()
        answered.add(pipe.next()["id"])
    assert answered == set(range(count))
    assert max(most) <= Server.AT_ONCE


def test_notifications_about_a_request_come_behind_its_reply(serve):
    told = messages.DeviceFigures(t=1.0, cpu=0.0, memory_used=0, memory_total=0, disk_free=0)
    pipe = serve(
        devices_watch=lambda _: Then(messages.Nothing(), lambda: pipe.outbox.put(notification("devices", told)))
    )
    assert pipe.ask(request(1, "devices.watch"))["result"] == {}
    assert pipe.next()["method"] == "devices"


def test_requests_in_work_are_finished_when_the_client_has_said_all(serve):
    go = threading.Event()
    pipe = serve(jobs_list=lambda _: go.wait(20) and messages.Jobs(jobs=[]))
    pipe.send(request(1, "jobs.list"))
    ending = threading.Thread(target=pipe.server.finish, args=(0.0,))
    ending.start()
    go.set()
    assert pipe.next()["id"] == 1
    ending.join(20)
    assert not ending.is_alive()


def test_the_methods_are_those_of_the_protocol(tmp_path):
    assert {*Methods(tmp_path, None).table(), "hello"} == set(messages.METHODS)
