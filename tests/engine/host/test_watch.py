"""Journals are followed without loss, whatever happens to their files, and in bounded memory."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine import journal, protocol
from engine.host import watch
from engine.host.pipe import HIGH, Outbox
from engine.protocol import messages


def step(number: int) -> protocol.Step:
    return protocol.Step(step=number, loss=1 / number, lr={"unet": 1e-4}, seconds=0.5)


def lines(*numbers: int) -> bytes:
    return b"".join(protocol.encode(step(number)) for number in numbers)


def everything(tail: watch.Tail) -> list[int]:
    """Steps of all bites until there is nothing more to read."""
    found = []
    while True:
        before = tail.offset
        found += [event.step for event in tail.read() if isinstance(event, protocol.Step)]
        if tail.offset == before and not tail.behind:
            return found


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / protocol.JOURNAL


@pytest.fixture
def tail(path) -> watch.Tail:
    return watch.Tail(path)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_journal_that_grows_at_any_byte_is_read_without_loss_or_repetition(path, tail):
    content = lines(*range(1, 2001))
    drawn = random.Random(1)
    found, at = [], 0
    while at < len(content):
        size = drawn.choice((1, 7, 300, 5000))
        append(path, content[at : at + size])
        at += size
        found += everything(tail)
    assert found == list(range(1, 2001))
    assert tail.offset == len(content)


def test_a_bite_is_bounded_and_ends_at_a_line(path, tail):
    path.write_bytes(lines(*range(1, 5001)))
    events = tail.read()
    assert tail.behind
    assert tail.offset <= watch.BITE
    assert path.read_bytes()[tail.offset - 1 : tail.offset] == b"\n"
    assert len(events) < 5000


def test_the_beginning_of_a_line_waits_for_its_end_and_is_not_read_again_meanwhile(path, tail, monkeypatch):
    content = lines(1, 2)
    path.write_bytes(content[:-5])
    assert everything(tail) == [1]
    monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("nothing has changed"))
    assert tail.read() == []
    monkeypatch.undo()
    append(path, content[-5:])
    assert everything(tail) == [2]


def test_a_torn_line_that_a_resuming_worker_cuts_away_takes_nothing_with_it(path, tail):
    path.write_bytes(lines(1) + lines(2)[:20])
    assert everything(tail) == [1]
    journal.cut_torn_line(path)
    append(path, lines(2, 3))
    assert everything(tail) == [2, 3]


@pytest.mark.parametrize(
    "damage",
    [b"nonsense\n", b'{"event":"step","step":"x"}\n', b'{"event":"of a later version"}\n', b"\xff\xfe\n", b"\n\n",
     b'{"event":"notice","text":"\xff"}\n', b"[" * 50_000 + b"\n", b'{"event":"step","step":1,"loss":NaN}\n'],
    ids=["text", "types", "unknown", "bytes", "blank", "not UTF-8", "nested", "NaN"],
)  # fmt: skip
def test_a_damaged_line_is_passed_over(path, tail, damage):
    path.write_bytes(lines(1) + damage + lines(2))
    assert everything(tail) == [1, 2]


@pytest.mark.parametrize("length", [watch.BITE - 1, watch.BITE, watch.BITE + 1, watch.LONGEST - 1])
def test_a_long_line_is_read_however_it_lies(path, tail, length):
    notice = protocol.encode(protocol.Notice(text=""))
    long = protocol.encode(protocol.Notice(text="x" * (length - len(notice))))
    path.write_bytes(lines(1) + long + lines(2))
    seen = [event for _ in range(6) for event in tail.read()]
    assert [type(event).__name__ for event in seen] == ["Step", "Notice", "Step"]


@pytest.mark.parametrize("length", [watch.LONGEST + 1, 3 * watch.LONGEST, 3 * watch.LONGEST + 12345])
def test_a_line_longer_than_any_event_is_passed_over_in_pieces(path, tail, length):
    path.write_bytes(lines(1) + b"x" * length + b"\n" + lines(2))
    assert everything(tail) == [1, 2]


def test_an_endless_line_is_not_gathered(path, tail, monkeypatch):
    path.write_bytes(b"x" * (3 * watch.LONGEST))
    asked = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, most, at: asked.append(most) or pread(file, most, at))
    assert everything(tail) == []
    assert max(asked) <= watch.LONGEST
    append(path, b"\n" + lines(1))
    assert everything(tail) == [1]


def test_a_journal_that_was_cut_is_told_again_and_said_to_be(path, tail):
    path.write_bytes(lines(1, 2, 3))
    assert everything(tail) == [1, 2, 3]
    path.write_bytes(lines(7))
    assert [event.step for event in tail.read()] == [7]
    assert tail.restarted


def test_a_journal_that_was_replaced_by_a_longer_one_is_told_again(path, tail, tmp_path):
    path.write_bytes(lines(1))
    assert everything(tail) == [1]
    (tmp_path / "other").write_bytes(lines(5, 6, 7))
    os.replace(tmp_path / "other", path)
    assert [event.step for event in tail.read()] == [5, 6, 7]
    assert tail.restarted
    assert not (tail.read() or tail.restarted)


def test_an_offset_behind_the_end_begins_again(path):
    path.write_bytes(lines(1))
    tail = watch.Tail(path, offset=10_000)
    assert everything(tail) == [1]


def test_an_offset_within_a_line_begins_with_the_next(path):
    path.write_bytes(lines(1, 2, 3))
    assert everything(watch.Tail(path, offset=5)) == [2, 3]


def test_of_a_stages_progress_only_the_last_is_told_and_everything_else_in_its_order():
    def progress(stage: str, done: int) -> protocol.Progress:
        return protocol.Progress(stage=stage, done=done, total=9)

    cache, draw = protocol.Stage(name="cache"), protocol.Stage(name="draw")
    told = watch.thinned(
        [progress("cache", 1), step(1), cache, progress("cache", 2), progress("draw", 1), progress("cache", 3), step(2),
         draw, progress("cache", 4), step(3), progress("cache", 5)]
    )  # fmt: skip
    assert told == [
        progress("cache", 1), step(1), cache, progress("draw", 1), progress("cache", 3), step(2),
        draw, step(3), progress("cache", 5),
    ]  # fmt: skip


def test_whole_lines_are_counted_to_the_last_newline(path):
    assert watch.whole_lines(path) == 0
    path.write_bytes(lines(1) + b"x" * (3 * watch.BITE))
    assert watch.whole_lines(path) == len(lines(1))
    path.write_bytes(b"x" * 10)
    assert watch.whole_lines(path) == 0


class Told:
    """A watcher, and what comes out at the other end of its pipe."""

    def __init__(self, state: str = "running"):
        self.states: dict[str, str] = {}
        self.state = state
        self.source, self.sink = os.pipe()
        self.outbox = Outbox(self.sink)
        self.watcher = watch.Watcher(self.outbox, lambda directory: self.states.get(directory.name, self.state))
        self.pipe = os.fdopen(self.source, "rb")

    def next(self) -> messages.JobEvents:
        line = msgspec.json.decode(self.pipe.readline())
        assert line["method"] == "job.events"
        return msgspec.convert(line["params"], messages.JobEvents)

    def steps(self, count: int) -> list[int]:
        found = []
        while len(found) < count:
            found += [event.step for event in self.next().events]
        return found


@pytest.fixture
def told(monkeypatch) -> Iterator[Told]:
    monkeypatch.setattr(watch, "INTERVAL", 0.001)
    told = Told()
    yield told
    for directory in list(told.watcher._watches):
        told.watcher.unwatch(directory)


def job(tmp_path: Path, name: str, content: bytes = b"") -> Path:
    directory = tmp_path / name
    directory.mkdir()
    (directory / protocol.JOURNAL).write_bytes(content)
    return directory


def test_a_job_is_told_from_its_offset_on_and_what_comes_later(told, tmp_path):
    directory = job(tmp_path, "one", lines(1, 2))
    told.watcher.watch("one", directory, len(lines(1)))
    first = told.next()
    assert ([event.step for event in first.events], first.state, first.offset) == ([2], "running", len(lines(1, 2)))
    append(directory / protocol.JOURNAL, lines(3))
    assert told.next().events == [step(3)]


def test_a_change_of_state_is_told_where_no_event_comes(told, tmp_path):
    told.watcher.watch("one", job(tmp_path, "one", lines(1)), 0)
    assert told.next().state == "running"
    told.state = "crashed"
    after = told.next()
    assert (after.state, after.events) == ("crashed", [])


def test_the_end_of_a_job_is_told_behind_its_last_event(told, tmp_path):
    directory = job(tmp_path, "one")
    told.watcher.watch("one", directory, 0)
    assert told.next().state == "running"
    many = range(1, 20_001)
    append(directory / protocol.JOURNAL, lines(*many))
    told.state = "done"
    found, state = [], "running"
    while state == "running":
        one = told.next()
        found += [event.step for event in one.events]
        state = one.state
    assert found == list(many)


def test_a_job_without_a_journal_is_followed_until_it_has_one(told, tmp_path):
    directory = tmp_path / "one"
    directory.mkdir()
    told.state = "queued"
    told.watcher.watch("one", directory, 0)
    assert told.next().state == "queued"
    append(directory / protocol.JOURNAL, lines(1))
    assert told.steps(1) == [1]


def test_a_job_whose_folder_goes_is_said_to_be_gone_and_others_go_on(told, tmp_path):
    one, two = job(tmp_path, "one", lines(1)), job(tmp_path, "two", lines(1))
    for directory in (one, two):
        told.watcher.watch(directory.name, directory, 0)
    told.steps(2)
    told.states["one"] = "running"
    one.rename(tmp_path / "trash")
    gone = told.next()
    assert (gone.id, gone.gone, gone.state) == ("one", True, "running")
    append(two / protocol.JOURNAL, lines(2))
    assert told.next().id == "two"


def test_a_job_that_can_not_be_judged_leaves_the_others_followed(told, tmp_path, capfd):
    def state_of(directory: Path) -> str:
        if directory.name == "one":
            raise AssertionError("a defect")
        return "running"

    told.watcher._state_of = state_of
    for name in ("one", "two"):
        told.watcher.watch(name, job(tmp_path, name, lines(1)), 0)
    assert told.next().id == "two"
    append(tmp_path / "two" / protocol.JOURNAL, lines(2))
    assert told.steps(1) == [2]
    assert "a defect" in capfd.readouterr().err


def test_nothing_is_told_of_a_job_after_it_is_no_longer_followed(told, tmp_path):
    one, two = job(tmp_path, "20260101-0000-one"), job(tmp_path, "two")
    for directory in (one, two):
        told.watcher.watch(directory.name, directory, 0)
    assert {told.next().id, told.next().id} == {one.name, "two"}
    told.watcher.unwatch("one")
    append(one / protocol.JOURNAL, lines(1))
    append(two / protocol.JOURNAL, lines(2))
    assert told.next().events == [step(2)]


def test_a_reader_who_does_not_read_stops_the_reading_of_journals_and_then_gets_all_of_them(told, tmp_path):
    numbers = list(range(1, 30_001))
    one, two = job(tmp_path, "one", lines(*numbers)), job(tmp_path, "two", lines(*numbers))
    told.watcher.watch("one", one, 0)
    told.watcher.watch("two", two, 0)
    with told.outbox._changed:
        assert told.outbox._changed.wait_for(lambda: told.outbox._waiting >= HIGH, 20)
    assert told.outbox._waiting < HIGH + 3 * watch.BITE
    found: dict[str, list[int]] = {"one": [], "two": []}
    while len(found["one"]) + len(found["two"]) < 2 * len(numbers):
        one_told = told.next()
        found[one_told.id] += [event.step for event in one_told.events]
        assert told.outbox._waiting < HIGH + 3 * watch.BITE
    assert found == {"one": numbers, "two": numbers}
