"""A log is read in pieces of whole lines, from any place, whatever was printed into it."""

from __future__ import annotations

import os

import pytest

from engine import locks, protocol
from engine.host import logs
from engine.host.methods import Methods
from engine.protocol import messages


@pytest.fixture
def log(tmp_path):
    """Write a job's log."""

    def log(content: bytes):
        (tmp_path / protocol.LOG).write_bytes(content)
        return tmp_path

    return log


def pieces(directory, offset: int = 0) -> list[messages.LogPiece]:
    """All pieces from an offset on."""
    found = [logs.piece(directory, offset)]
    while found[-1].end < found[-1].size and found[-1].text:
        found.append(logs.piece(directory, found[-1].end))
    return found


def test_a_log_is_read_once_in_whole_lines(log):
    lines = [f"line {number} é\n" for number in range(20_000)]
    found = pieces(log("".join(lines).encode()))
    assert "".join(one.text for one in found) == "".join(lines)
    assert len(found) > 3
    for one in found:
        assert one.text.endswith("\n") and one.end - one.start <= logs.PIECE
        assert one.text.encode() and len(one.text.encode()) == one.end - one.start


def test_the_end_of_a_log_begins_with_a_line(log):
    directory = log(b"first\nsecond\nthird\n")
    for back, text in (
        (6, "third\n"),
        (7, "third\n"),
        (12, "third\n"),
        (13, "second\nthird\n"),
        (100, "first\nsecond\nthird\n"),
    ):
        found = logs.piece(directory, -back)
        assert (found.text, found.end, found.size) == (text, 19, 19), back
    assert logs.piece(directory, -3).text == ""


@pytest.mark.parametrize("offset", [19, 20, 1 << 40])
def test_behind_its_end_a_log_says_nothing(log, offset):
    assert logs.piece(log(b"first\nsecond\nthird\n"), offset) == messages.LogPiece(text="", start=19, end=19, size=19)


def test_a_job_without_a_log_says_nothing(tmp_path):
    assert logs.piece(tmp_path, 0) == messages.LogPiece(text="", start=0, end=0, size=0)
    os.mkfifo(tmp_path / protocol.LOG)
    assert logs.piece(tmp_path, 0).text == ""


def test_a_line_that_is_being_written_waits_for_its_end_while_the_job_lives(log):
    directory = log(b"one\ntw")
    with locks.hold(directory):
        found = logs.piece(directory, 0)
        assert (found.text, found.end, found.size) == ("one\n", 4, 6)
        assert logs.piece(directory, 4).text == ""
    assert logs.piece(directory, 0).text == "one\ntw"
    assert logs.piece(directory, 4).text == "tw"


def test_a_line_longer_than_a_piece_comes_in_several_that_cut_no_character(log):
    line = "x" + "é" * logs.PIECE + "😀" * logs.PIECE
    with locks.hold(directory := log(line.encode() + b"\nnext\n")):
        found = pieces(directory)
    assert "".join(one.text for one in found) == line + "\nnext\n"
    assert all(one.end - one.start <= logs.PIECE for one in found)


@pytest.mark.parametrize("junk", [bytes(range(256)) * 600, b"\xff" * 200_000, b"\x80" * 200_000, b"\xf0\x9f" * 90_000])
def test_junk_is_replaced_and_read_through(log, junk):
    found = pieces(log(junk))
    assert found[-1].end == len(junk)
    for one in found:
        assert all(mark.isprintable() or mark in "\n\t\r" or mark == "\xad" for mark in one.text.replace("\xa0", " "))


def test_colours_are_dropped_and_markup_is_kept(log):
    text = "\x1b[1;31mred\x1b[0m [/foo] [best quality] 50%|██  |\r\x1b]0;title\x07\n"
    assert logs.piece(log(text.encode()), 0).text == "red [/foo] [best quality] 50%|██  |\r�]0;title�\n"


def test_the_host_reads_the_log_of_a_job(workspace, make):
    directory = make(state="done")
    (directory / protocol.LOG).write_bytes(b"a\nb\n")
    read = Methods(workspace, None).table()["jobs.log"]
    assert read(messages.LogRef(job=directory.name, offset=2)) == messages.LogPiece(text="b\n", start=2, end=4, size=4)
