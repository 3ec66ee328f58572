"""The clipboard over SSH, the session on disk, the driver's decoder, and what is said after a crash."""

from __future__ import annotations

import base64
import os

import pytest

from loratui import clipboard, crash, mending, session


def test_copying_tells_the_terminal_by_osc_52():
    written = []
    assert clipboard.copy("käse [/b]", {}, written.append) == "OSC 52"
    assert written == [f"\x1b]52;c;{base64.b64encode('käse [/b]'.encode()).decode()}\a"]


def test_inside_tmux_its_own_buffer_is_loaded(tmp_path):
    program = tmp_path / "tmux"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat > {tmp_path}/text\n')
    program.chmod(0o755)
    before, os.environ["PATH"] = os.environ["PATH"], f"{tmp_path}:{os.environ['PATH']}"
    try:
        assert (
            clipboard.copy("a path", {"TMUX": "/tmp/tmux-0/default,1,0"}, lambda _: pytest.fail("not to be written"))
            == "tmux"
        )
    finally:
        os.environ["PATH"] = before
    assert (tmp_path / "arguments").read_text() == "load-buffer -w -\n"
    assert (tmp_path / "text").read_text() == "a path"


def test_where_tmux_fails_the_terminal_is_told_itself(tmp_path, monkeypatch):
    program = tmp_path / "tmux"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    written = []
    assert clipboard.copy("a", {"TMUX": "x"}, written.append) == "OSC 52"
    assert written


def test_what_is_too_long_for_a_terminal_is_refused_whole():
    with pytest.raises(ValueError, match="too long"):
        clipboard.copy("x" * 80_000, {}, lambda _: pytest.fail("a piece was written"))


def test_a_session_is_found_again(tmp_path):
    kept = session.Session(panel="train", project="[/foo]", theme="darkroom", panels={"train": {"row": 3}})
    session.save(tmp_path, kept)
    assert session.load(tmp_path) == kept
    assert [path.name for path in (tmp_path / "app").iterdir()] == ["session.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"version": 99}', b'{"panel": 7}'])
def test_a_session_that_can_not_be_read_is_as_good_as_none(tmp_path, content):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "session.json").write_bytes(content)
    assert session.load(tmp_path) == session.Session()


def test_a_workspace_that_can_not_be_written_to_stops_no_session(tmp_path):
    (tmp_path / "app").write_text("a file is in the way")
    session.save(tmp_path, session.Session())


def test_a_mouse_report_in_the_old_encoding_does_not_end_the_input(monkeypatch):
    from textual.drivers import linux_driver

    strict = linux_driver.getincrementaldecoder("utf-8")()
    report = b"\x1b[M\x20\x85\xff"  # column 101, row 223: no UTF-8
    with pytest.raises(UnicodeDecodeError):
        strict.decode(report, final=True)
    monkeypatch.setattr(linux_driver, "getincrementaldecoder", linux_driver.getincrementaldecoder)
    mending.forgiving_decoder()
    decoder = linux_driver.getincrementaldecoder("utf-8")()
    assert decoder.decode(report, final=True).startswith("\x1b[M ")
    assert decoder.decode("ü".encode()) == "ü"


def test_after_a_crash_a_person_reads_words_and_the_log_has_the_rest(tmp_path):
    try:
        raise KeyError("[/foo]")
    except KeyError as error:
        told = crash.report(error, tmp_path)
    assert "KeyError: '[/foo]'" in told.plain and str(tmp_path / "app.log") in told.plain
    assert "Traceback" not in told.plain
    assert "Traceback" in (tmp_path / "app.log").read_text()
