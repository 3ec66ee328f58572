"""The journal takes every event in order, as JSON, and neither a kill nor a full disk breaks what is in it."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest

from engine import files, protocol
from engine.journal import RESERVE, Journal, cut_torn_line


def lines(folder) -> list[dict]:
    """Every line as strict JSON: no NaN, no Infinity."""

    def refuse(name: str):
        raise AssertionError(f"{name} is no JSON")

    content = (folder / protocol.JOURNAL).read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line, parse_constant=refuse) for line in content.splitlines()]


def test_events_are_lines_of_json_in_their_order_whatever_their_numbers(tmp_path):
    with Journal(tmp_path) as journal:
        journal.emit(protocol.Stage(name="train"))
        journal.emit(*(protocol.Step(step=step, loss=value) for step, value in enumerate((0.5, float("nan")), start=1)))
        journal.emit(protocol.Step(step=3, loss=float("inf"), lr={"unet": float("-inf")}))
        journal.emit(protocol.Notice(text="two\nlines, ünicode and \x00"))
    told = lines(tmp_path)
    assert [line["event"] for line in told] == ["stage", "step", "step", "step", "notice"]
    assert [line.get("loss") for line in told[1:4]] == [0.5, None, None]
    assert told[4]["text"] == "two\nlines, ünicode and \x00"
    times = [line["t"] for line in told]
    assert times == sorted(times)


def test_events_of_several_threads_do_not_mix(tmp_path):
    def emit(name: str) -> None:
        for done in range(100):
            journal.emit(protocol.Progress(stage=name, done=done, total=100))

    with Journal(tmp_path) as journal:
        threads = [threading.Thread(target=emit, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name in ("one", "two"):
        assert [line["done"] for line in lines(tmp_path) if line["stage"] == name] == list(range(100))


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b'{"a":1}\n{"b":2', b'{"a":1}\n'),
        (b'{"a":1}\n', b'{"a":1}\n'),
        (b'{"a', b""),
        (b"", b""),
        (b"x\n" + b"y" * 200_000, b"x\n"),
    ],
    ids=["torn", "whole", "nothing-but-torn", "empty", "longer-than-a-block"],
)
def test_a_torn_last_line_is_cut(content, kept, tmp_path):
    path = tmp_path / protocol.JOURNAL
    path.write_bytes(content)
    cut_torn_line(path)
    assert path.read_bytes() == kept


def test_a_new_attempt_goes_on_behind_the_last_whole_line(tmp_path):
    with Journal(tmp_path) as journal:
        journal.emit(protocol.Stage(name="check"))
    with (tmp_path / protocol.JOURNAL).open("ab") as file:
        file.write(b'{"event":"step","step":17,"lo')
    reader = protocol.JournalReader(tmp_path / protocol.JOURNAL)
    assert len(list(reader.read())) == 1
    with Journal(tmp_path) as journal:
        journal.emit(protocol.Stage(name="load"))
    assert [event.name for event in reader.read()] == ["load"]


def test_the_status_sums_up_the_last_attempt(tmp_path):
    with Journal(tmp_path) as journal:
        journal.emit(protocol.Attempt(number=1, pid=7, host="here", boot_id="b"))
        journal.emit(protocol.PlanMade(text="", steps=10, epochs=1.0, images=2))
        journal.emit(protocol.Step(step=3, loss=0.25))
        journal.emit(protocol.End(state="failed", code=1, cause="the disk is full"))
    status = protocol.read_status(tmp_path)
    assert (status.state, status.step, status.steps, status.loss) == ("failed", 3, 10, 0.25)
    assert (status.attempt, status.pid, status.cause) == (1, 7, "the disk is full")
    with Journal(tmp_path) as journal:
        journal.emit(protocol.Attempt(number=2, pid=8, host="here", boot_id="b"))
        assert (journal.status.state, journal.status.cause) == ("running", "")
        assert journal.status.started == status.started


def test_the_status_is_replaced_and_never_written_over(tmp_path, monkeypatch):
    with Journal(tmp_path) as journal:
        journal.emit(protocol.Stage(name="check"))
        former = (tmp_path / protocol.STATUS).read_bytes()
        seen = []
        replace = os.replace

        def watched(source, target) -> None:
            seen.append((tmp_path / protocol.STATUS).read_bytes())
            json.loads(source.read_bytes())
            replace(source, target)

        monkeypatch.setattr(files.os, "replace", watched)
        journal.emit(protocol.Stage(name="load"))
    assert seen[0] == former
    assert protocol.read_status(tmp_path).stage == "load"


def test_a_damaged_status_counts_as_none(tmp_path):
    (tmp_path / protocol.STATUS).write_bytes(b'{"state": "runn')
    assert protocol.read_status(tmp_path) == protocol.Status()


class FillingDisk:
    """Stands for the journal's file on a disk with some bytes left."""

    def __init__(self, file, room: int):
        self.file, self.room = file, room

    def write(self, content: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = content[: self.room]
        self.room -= len(part)
        return self.file.write(part)

    def close(self) -> None:
        self.file.close()


def test_events_wait_for_room_on_the_disk_and_no_line_is_torn(tmp_path, capsys):
    with Journal(tmp_path) as journal:
        disk = journal._file = FillingDisk(journal._file, room=100)
        for step in range(1, 6):
            journal.emit(protocol.Step(step=step, loss=0.5))
        assert (tmp_path / protocol.JOURNAL).stat().st_size == 100
        disk.room = 10_000
        journal.emit(protocol.Step(step=6, loss=0.5))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert capsys.readouterr().err.count("No space left") == 1


def test_a_standard_error_that_is_full_too_ends_nothing(tmp_path, monkeypatch):
    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal(tmp_path) as journal:
        monkeypatch.setattr("sys.stderr", Full())
        file, journal._file = journal._file, FillingDisk(journal._file, room=0)
        journal.emit(protocol.Stage(name="check"))
        journal._file = file


def test_room_is_kept_for_the_end(tmp_path):
    with Journal(tmp_path) as journal:
        (reserve,) = tmp_path.glob(".*")
        assert reserve.stat().st_size == RESERVE
        file, journal._file = journal._file, FillingDisk(journal._file, room=0)
        journal.emit(protocol.End(state="failed", code=1, cause="the disk is full"))
        journal._file = file
    assert [line["cause"] for line in lines(tmp_path)] == ["the disk is full"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [protocol.JOURNAL, protocol.STATUS]
