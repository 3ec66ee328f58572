"""Lines in and out in bounded memory, and the standard streams of a host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.host.pipe import CHUNK, HIGH, Outbox, Splitter

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("size", [1, 3, 10, 1000])
def test_lines_are_cut_alike_whatever_the_pieces(size):
    stream = b"one\n\ntwo\n" + b"x" * 11 + b"\n" + b"y" * 10 + b"\n" + b"z" * 50 + b"\nend"
    splitter = Splitter(longest=10)
    found = [line for at in range(0, len(stream), size) for line in splitter.feed(stream[at : at + size])]
    assert [*found, *splitter.end()] == [b"one", b"", b"two", None, b"y" * 10, None, b"end"]


def test_a_line_that_is_too_long_is_never_gathered():
    splitter = Splitter(longest=1000)
    for _ in range(100):
        assert list(splitter.feed(b"x" * CHUNK)) == []
        assert sum(map(len, splitter._parts)) == 0
    assert list(splitter.feed(b"\nnext\n")) == [None, b"next"]


def test_an_outbox_drops_what_nobody_reads_any_more():
    source, sink = os.pipe()
    outbox = Outbox(sink)
    assert outbox.listened()
    os.close(source)
    assert not outbox.listened()
    outbox.put(b"x\n")
    assert outbox.drain(20)
    for _ in range(10):
        outbox.put(b"x" * HIGH)
    assert not outbox.wait_for_room()
    assert outbox._waiting == 0


def test_what_prints_in_a_host_goes_to_its_log():
    code = (
        "import os; from engine.host import pipe; source, sink = pipe.take_standard_streams()\n"
        "os.write(1, b'printed'); os.write(sink, os.read(source, 9))\n"
        "assert os.read(0, 9) == b''; os.system('cat; echo child')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input=b"asked", capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"asked", b"printedchild\n")


@pytest.mark.parametrize("mode", ["a+b", "ab"])
def test_a_log_keeps_its_end_when_it_grows_too_long_and_no_other_file_is_shortened(tmp_path, mode):
    path = tmp_path / "host.log"
    path.write_bytes(b"an old line\n" * 200_000)
    code = "import os; from engine.host.pipe import bound_log; bound_log(); os.write(2, b'new')"
    with path.open(mode) as file:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=file, check=True)
    lines = path.read_bytes().split(b"\n")
    assert lines[-1] == b"new"
    assert set(lines[:-1]) == {b"an old line"}
    assert len(lines[:-1]) == ((1 << 16) // len(b"an old line\n") if mode == "a+b" else 200_000)
