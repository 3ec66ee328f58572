"""The process of one operation: what it says for an answer, for mistakes, for failures and for an interrupt."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import types

import pytest

from engine import locks, operate, protocol
from engine.config.operations import OPERATIONS, Compose
from engine.errors import Problem, UserError
from engine.host import placement
from engine.protocol.operations import ANSWERS, Answer, Interpolated, decode_operation

REQUEST = {"adapters": [{"path": "a"}], "out": "b"}


@pytest.fixture
def does(monkeypatch):
    """Let the operation `compose` be this function, run it, and return its exit code and what it said."""

    def call(function, request=REQUEST):
        module = types.ModuleType("engine.operations.pretended")
        module.run = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(operate.OPERATIONS, "compose", f"{module.__name__}:run")
        sink = io.BytesIO()
        code = operate.main(["compose"], io.BytesIO(json.dumps(request).encode()), sink)
        return code, [decode_operation(line) for line in sink.getvalue().splitlines()]

    return call


def fails(error: BaseException):
    def function(request, reporter):
        raise error

    return function


def test_every_operation_has_a_request_a_function_and_an_answer():
    assert OPERATIONS.keys() == operate.OPERATIONS.keys() == ANSWERS.keys()


def test_an_operation_gets_its_request_tells_its_way_and_answers(does):
    def function(request, reporter):
        assert isinstance(request, Compose) and request.adapters[0].weight == 1.0
        reporter.stage("compose", 2, "layers")
        reporter.progress(1)
        reporter.progress(2)
        reporter.notice("so be it", "a")
        return Interpolated(files={"b": 0.5})

    code, (stage, *middle, notice, answer, end) = does(function)
    assert (code, end.state, end.code) == (0, "done", 0)
    assert stage == protocol.Stage(name="compose", total=2, unit="layers")
    assert middle[-1] == protocol.Progress(stage="compose", done=2, total=2)
    assert notice == protocol.Notice(text="so be it", where="a")
    assert isinstance(answer, Answer) and json.loads(bytes(answer.result)) == {"files": {"b": 0.5}}


def test_progress_is_not_told_more_often_than_anybody_can_look(does):
    def function(request, reporter):
        reporter.stage("compose", 100_000)
        for done in range(1, 100_001):
            reporter.progress(done)
        return Interpolated(files={})

    _, events = does(function)
    told = [event.done for event in events if isinstance(event, protocol.Progress)]
    assert told[-1] == 100_000 and len(told) < 1000


def test_all_mistakes_of_a_request_are_told_at_once(does):
    code, events = does(fails(AssertionError()), {"adapters": [], "out": "", "rnak": 3})
    assert code == 2 and events[-1].state == "refused"
    assert {event.field for event in events[:-1]} == {"adapters", "out", "rnak"}


def test_measures_that_exclude_each_other_are_refused(does):
    code, (refused, _) = does(fails(AssertionError()), REQUEST | {"rank": 4, "energy": 0.9})
    assert code == 2 and refused.found == "rank = 4 and energy = 0.9"


def test_what_a_user_can_mend_ends_with_2_and_no_traceback(does, capfd):
    code, events = does(fails(UserError([Problem(where="a"), Problem(where="b")])))
    assert code == 2 and [event.where for event in events[:-1]] == ["a", "b"]
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_named_with_its_file(does, capfd):
    code, (end,) = does(fails(OSError(errno.ENOSPC, "No space left on device", "/x/out.safetensors")))
    assert (code, end.state, end.cause) == (1, "failed", "No space left on device: /x/out.safetensors")
    assert capfd.readouterr().err == ""


def test_a_defect_of_ours_leaves_its_traceback_in_stderr(does, capfd):
    code, (end,) = does(fails(ZeroDivisionError("by zero")))
    assert code == 1 and end.cause == "ZeroDivisionError: by zero"
    assert "Traceback" in capfd.readouterr().err


def test_an_interrupt_ends_with_130(does):
    code, (end,) = does(fails(KeyboardInterrupt()))
    assert (code, end.state) == (130, "stopped")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 100_000])
def test_a_request_that_is_no_object_is_refused(text):
    sink = io.BytesIO()
    assert operate.main(["compose"], io.BytesIO(text), sink) == 2
    assert decode_operation(sink.getvalue().splitlines()[0]).expected == "a JSON object"


def test_the_process_says_nothing_but_events_on_stdout():
    command = [sys.executable, "-m", "engine.operate", "diff"]
    found = subprocess.run(command, input=b'{"first": 1}', capture_output=True, check=False)
    assert found.returncode == 2
    assert [decode_operation(line).__class__.__name__ for line in found.stdout.splitlines()] == ["Refused"] * 2 + [
        "End"
    ]


@pytest.fixture
def computes(monkeypatch, tmp_path, does):
    """As `does`, of an operation that needs a device, on a machine that has these."""
    monkeypatch.setenv(locks.RUNTIME, str(tmp_path / "runtime"))
    monkeypatch.setattr(operate, "ON_DEVICE", ("compose",))
    monkeypatch.setattr(Compose, "device", "auto", raising=False)
    monkeypatch.delenv(locks.DEVICE, raising=False)
    monkeypatch.delenv(placement.VISIBLE, raising=False)

    def call(function, *devices):
        monkeypatch.setattr(placement, "list_devices", lambda: list(devices))
        return does(function)

    return call


def looks(seen: list):
    """An operation that notes what it is given."""

    def function(request, reporter):
        device = os.environ[locks.DEVICE]
        seen.append((device, os.environ.get(placement.VISIBLE), locks.held(locks.device(device))))
        return Interpolated(files={})

    return function


@pytest.mark.parametrize(("devices", "given"), [((), ("cpu", None)), (("GPU-a", "GPU-b"), ("GPU-a", "GPU-a"))])
def test_a_device_is_held_for_as_long_as_an_operation_computes_on_it(computes, devices, given):
    seen = []
    assert computes(looks(seen), *devices)[0] == 0
    assert seen == [(*given, True)]
    assert not locks.held(locks.device(given[0])) and locks.DEVICE not in os.environ


def test_a_device_that_a_job_has_is_passed_over(computes):
    seen = []
    with locks.hold(locks.device("GPU-a")):
        assert computes(looks(seen), "GPU-a", "GPU-b")[0] == 0
    assert seen == [("GPU-b", "GPU-b", True)]


def test_where_jobs_have_every_device_it_is_said_and_waited(computes, monkeypatch):
    seen, job = [], locks.take(locks.device("GPU-a"))
    monkeypatch.setattr(placement.time, "sleep", lambda seconds: job.release())
    code, (notice, *_) = computes(looks(seen), "GPU-a")
    assert (code, seen) == (0, [("GPU-a", "GPU-a", True)])
    assert notice.text == "a job has every device that will do: waiting until it is free"


def test_a_worker_s_device_is_its_own(computes, monkeypatch):
    monkeypatch.setenv(locks.DEVICE, "GPU-b")
    seen = []
    with locks.hold(locks.device("GPU-b")):
        assert computes(looks(seen), "GPU-a")[0] == 0
    assert [device for device, *_ in seen] == ["GPU-b"]
