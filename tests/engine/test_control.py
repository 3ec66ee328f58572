"""Commands are answered whatever the job does, only its own attempt's are obeyed, and no file or disk stops the job."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from engine import control, protocol
from engine.config import Request
from engine.context import Context, Released, Stopped
from engine.control import Control
from engine.journal import Journal
from engine.training.changes import Changes, told

DEADLINE = 30.0


def until(condition: Callable[[], object]) -> object:
    """What the condition comes to, when it is something."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.002)
    return value


def job_of(kind: str = "train", **sections):
    request = Request()
    request.lay({"kind": kind, "model": {"base": "tiny"}}, "test")
    if kind == "train":
        request.lay({"dataset": {"subsets": [{"path": "/images"}]}, "prior": {"weight": 0.0}}, "test")
    request.lay(sections, "test")
    return request.checked()


class Desk:
    """A control over a folder, and what is said through it."""

    def __init__(self, folder, **options):
        self.path = folder / protocol.CONTROL
        self.journal = Journal(folder)
        self.stop = threading.Event()
        self.control = Control(self.journal, self.stop, **options)
        self.context = Context(folder, self.journal, self.control)

    def write(self, content: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(content)

    def events(self, *kinds: type[protocol.Event]) -> list[protocol.AnyEvent]:
        found = protocol.JournalReader(self.journal.directory / protocol.JOURNAL).read()
        return [event for event in found if not kinds or isinstance(event, kinds)]

    def answer(self, identity: str) -> protocol.Acknowledged:
        """The answer to a command, when it has come."""

        def find():
            return [event for event in self.events(protocol.Acknowledged) if event.command == identity]

        (event,) = until(find)
        return event

    def say(self, name: str, **fields) -> protocol.Acknowledged:
        """Give a command and wait for its answer."""
        identity = f"{name}-{random.getrandbits(40):x}"
        self.write(line(identity, name, **fields))
        return self.answer(identity)


def line(identity: str, name: str, **fields) -> bytes:
    return json.dumps({"id": identity, "t": 1.0, "name": name, **fields}).encode() + b"\n"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """`desk(job)`: a control that reads; all are closed at the end."""
    monkeypatch.setattr(Control, "LOOK_SECONDS", 0.01)
    made = []

    def open_(job=None, **options) -> Desk:
        made.append(Desk(tmp_path, **options))
        made[-1].control.start(job or job_of(sampling={"prompts": ["a cat"]}))
        return made[-1]

    yield open_
    for each in made:
        each.control.close()
        each.journal.close()


def test_every_command_is_answered_under_its_id_and_waits_in_order_for_a_moment_between_steps(desk):
    at = desk()
    at.control.training = True
    at.write(line("a", "checkpoint") + line("b", "sample", prompt="a dog") + line("c", "sample"))
    at.write(line("d", "set", field="optimizer.lr_unet", value=2e-4))
    answers = [at.answer(identity) for identity in "abcd"]
    assert all(answer.taken for answer in answers)
    assert [answer.name for answer in answers] == ["checkpoint", "sample", "sample", "set"]
    assert at.control.wanted
    assert [at.control.take().id for _ in "abcd"] == list("abcd")
    assert at.control.take() is None
    assert not at.control.wanted


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("dance", {}, "no such command"),
        ("checkpoint", {}, "nothing to save yet"),
        ("sample", {"prompt": "a cat --z 3"}, "unknown option --z"),
        ("sample", {"prompt": "a cat --s 0"}, "a whole number from 1 to 1000"),
        ("set", {"field": "training.batch", "value": 2}, "optimizer.lr_unet or optimizer.lr_text, found 'training"),
        ("set", {"field": "optimizer.lr_unet", "value": 11}, "a number from 0 to 10, found 11"),
        ("set", {"field": "optimizer.lr_unet", "value": -1e-9}, "a number from 0 to 10"),
        ("set", {"field": "optimizer.lr_unet"}, "a rate above 0"),
        ("set", {"field": "optimizer.lr_text", "value": 1e-4}, "the text encoder is not adapted"),
    ],
)
def test_what_cannot_be_done_is_not_taken_and_the_reason_is_said(name, fields, reason, desk):
    at = desk(job_of(optimizer={"lr_text": 0.0}, sampling={"prompts": ["a cat"]}))
    answer = at.say(name, **fields)
    assert not answer.taken
    assert reason in answer.text
    assert not at.control.wanted


def test_a_picture_without_a_prompt_needs_prompts_of_the_run(desk):
    at = desk(job_of())
    assert "none of its own" in at.say("sample").text
    assert at.say("sample", prompt="a cat").taken


def test_a_job_that_does_not_train_is_paused_and_stopped_and_nothing_else(desk):
    at = desk(job_of("generate", picture={"prompt": "a cat", "out": "cat.png"}))
    for name in ("checkpoint", "sample", "set"):
        answer = at.say(name, prompt="a cat", field="optimizer.lr_unet", value=1e-4)
        assert (answer.taken, answer.text) == (False, "a job that does not train takes stop, pause, resume")
    assert all(at.say(name).taken for name in ("pause", "resume", "stop"))


def test_a_wish_can_be_taken_back_until_it_is_honoured_and_a_stop_cannot(desk):
    at = desk()
    assert "not paused" in at.say("resume").text
    at.say("pause", release=True)
    assert "released" in at.say("sample", prompt="a cat").text
    assert at.control.wanted
    at.say("resume")
    assert not at.control.wanted
    at.say("pause")
    assert "already" in at.say("pause").text
    at.say("stop")
    assert at.say("stop").taken
    for name in ("pause", "resume", "sample"):
        assert not at.say(name, prompt="a cat").taken
    with pytest.raises(Stopped):
        at.context.tick()


def test_once_a_job_ends_to_give_its_device_back_it_cannot_be_resumed_any_more(desk):
    at = desk()
    at.say("pause", release=True)
    with pytest.raises(Released):
        at.context.tick()
    assert not at.say("resume").taken
    assert not at.say("stop").taken


def test_what_was_said_to_an_earlier_attempt_is_neither_obeyed_nor_answered(desk, tmp_path):
    (tmp_path / protocol.CONTROL).write_bytes(line("old", "stop"))
    at = desk()
    assert at.say("pause").taken
    assert not at.stop.is_set()
    assert len(at.events(protocol.Acknowledged)) == 1


def test_what_was_said_while_the_worker_was_starting_is_obeyed(desk, tmp_path):
    old = line("old", "stop")
    (tmp_path / protocol.CONTROL).write_bytes(old + line("new", "pause"))
    at = desk(offset=len(old))
    assert at.answer("new").taken
    assert at.control.paused
    assert not at.stop.is_set()


def test_a_line_is_obeyed_when_it_is_whole(desk):
    at = desk()
    command = line("torn", "pause")
    at.write(line("first", "checkpoint") + command[:20])
    at.answer("first")
    at.write(command[20:])
    assert at.answer("torn").taken


def test_a_damaged_line_is_answered_where_it_has_an_id_and_else_told(desk):
    at = desk()
    at.write(b'{"id":"a","t":1,"name":7}\n{"id":"b","name":"stop"}\n{"id":3,"t":1,"name":"stop"}\nstop\n\xff\xfe\n\n')
    assert "name" in at.answer("a").text
    assert "`t`" in at.answer("b").text
    at.say("pause")
    assert [event.taken for event in at.events(protocol.Acknowledged)] == [False, False, True]
    notices = until(lambda: at.events(protocol.Notice))
    assert [event.text for event in notices] == ["3 lines of control.jsonl could not be read as a command"]
    assert not at.stop.is_set()


def test_no_bytes_keep_the_next_command_from_being_heard(desk):
    at, drawn = desk(), random.Random(7)
    whole = line("x", "sample", prompt="a cat \ud800 \x00 é", value=1e308)
    pieces = [b"[" * 100_000, b'{"id":' * 10_000, b"9" * control.LONGEST + b"9" * 77]
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(drawn.randrange(1, 8)):
            content[drawn.randrange(len(content))] = drawn.randrange(256)
        pieces.append(bytes(content))
    at.write(b"\n".join(pieces) + b"\n")
    at.write(line("end", "pause"))
    assert at.answer("end").taken
    for event in at.events():
        assert protocol.decode(protocol.encode(event)) == event


def test_of_a_file_that_was_cut_only_what_follows_counts_and_a_new_one_counts_whole(desk, tmp_path):
    at = desk()
    at.write(line("filler", "nothing") * 100)
    until(lambda: len(at.events(protocol.Acknowledged)) == 100)
    other = tmp_path / "other"
    other.write_bytes(line("cut", "stop"))
    os.replace(other, at.path)
    until(lambda: at.control._offset == at.path.stat().st_size)
    assert at.say("pause").taken
    at.path.unlink()
    until(lambda: at.control._offset == 0)
    assert at.say("resume").taken
    assert not at.stop.is_set()


def test_a_disk_that_fails_for_a_while_delays_the_answer_alone(desk, tmp_path, monkeypatch):
    (tmp_path / protocol.CONTROL).write_bytes(line("old", "stop"))
    failing, looks = threading.Event(), []
    stat = os.stat

    def refusing(path):
        looks.append(path)
        if failing.is_set():
            raise OSError(5, "input/output error", str(path))
        return stat(path)

    monkeypatch.setattr(control, "os", SimpleNamespace(stat=refusing))
    failing.set()
    at = desk()
    until(lambda: len(looks) > 3)
    failing.clear()
    until(lambda: at.control._offset == len(line("old", "stop")))
    failing.set()
    at.write(line("late", "pause"))
    seen = len(looks)
    until(lambda: len(looks) > seen + 2)
    at.context.tick()
    failing.clear()
    assert at.answer("late").taken
    assert not at.stop.is_set()


def test_a_disk_that_does_not_answer_does_not_keep_the_job_from_ending(desk, monkeypatch):
    at, hanging, freed = desk(), threading.Event(), threading.Event()

    def hang(path):
        hanging.set()
        assert freed.wait(DEADLINE)
        return SimpleNamespace(st_size=0)

    monkeypatch.setattr(Control, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(control, "os", SimpleNamespace(stat=hang))
    assert hanging.wait(DEADLINE)
    at.context.tick()
    at.control.close()
    at.journal.emit(protocol.End(state="done", code=0))
    freed.set()
    at.control._thread.join(DEADLINE)
    assert isinstance(at.events()[-1], protocol.End)


def test_what_is_said_last_is_answered_and_promises_that_are_not_kept_are_told(desk):
    at = desk()
    assert at.say("sample", prompt="a cat").taken
    at.control.finish()
    assert not at.say("sample", prompt="a dog").taken
    at.write(line("last", "stop"))
    at.control.close()
    assert not at.answer("last").taken
    assert [event.text for event in at.events(protocol.Notice)] == ["sample: not done, the job has ended before"]
    at.write(line("late", "stop"))
    at.control.close()
    assert len(at.events(protocol.Acknowledged)) == 3


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list]:
    """Let the job's side run; what it returned or raised is in the list."""
    outcome = []

    def run() -> None:
        try:
            outcome.append(work())
        except Stopped as stopped:
            outcome.append(type(stopped))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def test_a_paused_job_holds_where_it_can_and_goes_on_when_told(desk):
    at = desk()
    at.context.tick()
    at.say("pause")
    thread, outcome = in_thread(at.context.tick)
    until(lambda: protocol.read_status(at.journal.directory).state == "paused")
    assert thread.is_alive()
    at.say("resume")
    thread.join(DEADLINE)
    assert outcome == [None]
    kinds = [type(event).__name__ for event in at.events()]
    assert kinds == ["Acknowledged", "Paused", "Acknowledged", "Continued"]
    assert protocol.read_status(at.journal.directory).state == "running"


@pytest.mark.parametrize("how", ["stop", "signal", "release"])
def test_a_paused_job_can_be_ended(how, desk):
    at = desk()
    at.say("pause")
    thread, outcome = in_thread(at.context.tick)
    until(lambda: at.events(protocol.Paused))
    if how == "signal":
        at.stop.set()
    else:
        at.say("pause", release=True) if how == "release" else at.say("stop")
    thread.join(DEADLINE)
    assert outcome == [Released if how == "release" else Stopped]
    assert not at.events(protocol.Continued)


def test_commands_are_carried_out_between_steps_while_paused_too_and_a_command_is_not_held_up(desk):
    at, served = desk(), []
    at.control.training = True

    def serve(command: protocol.ControlLine) -> None:
        at.context.tick()
        served.append(command.name)

    at.say("checkpoint")
    at.say("pause")
    thread, outcome = in_thread(lambda: at.context.attend(serve))
    until(lambda: served == ["checkpoint"])
    assert at.say("sample", prompt="a cat").text == "drawn now"
    until(lambda: served == ["checkpoint", "sample"])
    assert thread.is_alive()
    at.say("resume")
    thread.join(DEADLINE)
    assert outcome == [None]
    assert len(at.events(protocol.Paused)) == 1


def test_held_inside_a_picture_a_command_waits_until_the_run_goes_on_and_is_told_so(desk):
    at = desk()
    at.control.training = True
    at.say("pause")
    thread, _ = in_thread(at.context.tick)
    until(lambda: at.events(protocol.Paused))
    assert at.say("checkpoint").text == "saved when the run goes on"
    at.say("resume")
    thread.join(DEADLINE)
    assert at.control.take().name == "checkpoint"


def changed(step: int, field: str, value: float) -> protocol.Changed:
    return protocol.Changed(step=step, field=field, value=value)


def test_changes_behind_the_state_are_made_again_at_their_steps():
    changes = Changes({"a": 1.0})
    changes.go_on([changed(3, "a", 1.0), changed(5, "a", 2.0), changed(5, "b", 3.0), changed(7, "a", 4.0)], 5)
    assert changes.values == {"a": 1.0}
    changes.reach(5)
    assert changes.values == {"a": 2.0, "b": 3.0}
    assert changes.words() == [
        "a = 2, as it was set in the live run",
        "b = 3, as it was set in the live run",
        "a = 4 from step 8 on, as it was set in the live run",
    ]
    changes.reach(6)
    assert changes.values["a"] == 2.0
    changes.reach(7)
    assert (changes.values, changes.ahead) == ({"a": 4.0, "b": 3.0}, [])


def test_a_change_by_an_attempt_that_had_gone_back_replaces_those_ahead_of_it():
    journal = [changed(8, "a", 1.0), changed(9, "b", 2.0), changed(6, "a", 3.0)]
    changes = Changes()
    changes.go_on(journal[:2], 4)
    changes.make("a", 3.0)
    assert changes.ahead == [changed(9, "b", 2.0)]
    again = Changes()
    again.go_on(journal, 4)
    assert again.ahead == [changed(6, "a", 3.0), changed(9, "b", 2.0)]


def test_changes_are_found_among_the_other_lines_of_a_journal(tmp_path):
    with Journal(tmp_path) as journal:
        journal.emit(protocol.Step(step=1, loss=0.5), changed(1, "a", 2.0), protocol.Notice(text='"changed"'))
        journal.emit(changed(2, "b", 3.0), protocol.Step(step=2, loss=0.5))
    assert [(event.step, event.field) for event in told(tmp_path / protocol.JOURNAL)] == [(1, "a"), (2, "b")]
