"""The app in real terminals: started, dropped, opened again; signals, crashes, odd bytes and storms of resizes."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest
from e2e_tools import ROOT, alive, ended, only_run, queued, steps, until

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux, which is not installed")

APP = f"{sys.executable} -m loratui"


def screen(terminal) -> str:
    return terminal("capture-pane", "-p", "-t", "it")


def sees(terminal, *texts: str) -> None:
    until(lambda: all(text in screen(terminal) for text in texts), lambda: f"no {texts} in\n{screen(terminal)}")


def gone(terminal, text: str) -> None:
    until(lambda: text not in screen(terminal))


def press(terminal, *keys: str) -> None:
    terminal("send-keys", "-t", "it", *keys)


def pids(workspace, module: str) -> list[int]:
    return [pid for pid, running in alive(workspace) if running == module]


def test_a_run_started_in_the_app_outlives_the_terminal_and_is_whole_in_the_next_app(box, story, images, terminal):
    story(600, 100)
    terminal.open(APP)
    sees(terminal, "1 Projects")
    press(terminal, "n")
    sees(terminal, "New project")
    terminal("send-keys", "-t", "it", "-l", "my-cat")
    press(terminal, "Enter")
    sees(terminal, "my-cat")
    press(terminal, "2")
    sees(terminal, "2 Dataset")
    press(terminal, "a")
    sees(terminal, "Add a folder", os.getcwd())
    press(terminal, "C-u")
    gone(terminal, os.getcwd())
    terminal("send-keys", "-t", "it", "-l", str(images))
    press(terminal, "Enter")
    sees(terminal, "0.png")
    press(terminal, "3")
    sees(terminal, "3 Train", "rank")
    for field, value in (("model.base", "tiny"), ("prior.weight", "0")):
        press(terminal, "/")
        sees(terminal, "Find a field")
        terminal("send-keys", "-t", "it", "-l", field)
        sees(terminal, field)
        press(terminal, "Enter")
        gone(terminal, "Find a field")
        press(terminal, "Enter")
        sees(terminal, "⏎ takes it")
        terminal("send-keys", "-t", "it", "-l", value)
        press(terminal, "Enter")
        gone(terminal, "⏎ takes it")
    press(terminal, "S")
    until(lambda: list(box.glob("projects/my-cat/runs/*")), lambda: screen(terminal))
    sees(terminal, "4 Monitor", "● running")
    run = only_run(box)
    until(lambda: steps(box, run))
    terminal("kill-server")  # the terminal is gone; the app and its host with it
    until(lambda: not pids(box, "loratui") and not pids(box, "engine"))
    until(lambda: ended(box, run) == "done")
    terminal.open(APP)
    sees(terminal, "4 Monitor", "✓ done", "600/600")
    assert steps(box, run) == list(range(1, 601))


def test_a_hung_up_terminal_ends_the_app_and_its_host_and_nothing_else(box, story, images, terminal):
    story(400, 20)
    run = queued(images)
    terminal.open(APP)
    sees(terminal, "1 Projects")
    (app,) = pids(box, "loratui")
    os.kill(app, signal.SIGHUP)
    until(lambda: not pids(box, "loratui") and not pids(box, "engine"))
    assert pids(box, "engine.runner") and ended(box, run) == ""


def test_a_stopped_app_comes_back_whole(box, terminal):
    terminal.open("bash --norc -i")
    press(terminal, f"PS1='ready> '; {APP}", "Enter")
    sees(terminal, "1 Projects")
    press(terminal, "C-z")
    sees(terminal, "ready>", "Stopped")
    assert "1 Projects" not in screen(terminal)
    press(terminal, "fg", "Enter")
    sees(terminal, "1 Projects")
    press(terminal, "?")
    sees(terminal, "Keys: ")


def test_a_crash_gives_the_terminal_back_and_says_where_the_log_is(box, terminal):
    crash = (
        "from loratui.screens import everywhere\n"
        "async def broken(app): raise RuntimeError('a defect [/foo]')\n"
        "everywhere.find = broken\n"
        "from loratui.start import main\nimport sys\nsys.argv[1:] = []\nmain()"
    )
    (box.parent / "crash.py").write_text(crash)
    terminal.open("bash --norc -i")
    press(terminal, f"PS1='ready> '; {sys.executable} {box.parent}/crash.py; echo code $?", "Enter")
    sees(terminal, "1 Projects")
    press(terminal, "f")
    sees(terminal, "loratui has crashed: RuntimeError: a defect [/foo]", "app.log", "code 1", "ready>")
    assert "Traceback" not in screen(terminal)
    assert "Traceback" in (box / "app.log").read_text()
    press(terminal, "echo it types", "Enter")
    sees(terminal, "it types")


def test_a_terminated_app_gives_the_terminal_back(box, terminal):
    terminal.open("bash --norc -i")
    press(terminal, f"PS1='ready> '; {APP}; echo code $?", "Enter")
    sees(terminal, "1 Projects")
    (app,) = pids(box, "loratui")
    os.kill(app, signal.SIGTERM)
    sees(terminal, "ready>", "code 143")
    until(lambda: not pids(box, "engine"))
    assert "1 Projects" not in screen(terminal)


def test_mouse_reports_in_the_old_encoding_and_broken_bytes_end_nothing(box):
    sys.path.insert(0, str(ROOT))
    from benchmarks.pty_terminal import Pty

    environ = os.environ | {"TERM": "xterm-256color"}
    with Pty([sys.executable, "-m", "loratui"], environ, columns=140) as terminal:
        terminal.until("1 Projects")
        for column in range(90, 140):
            terminal.press(b"\x1b[M\x20" + bytes([32 + column, 33 + 20]))
        terminal.press(b"\xff\xfe\x80\xc3")
        moment = terminal.press(b"?")
        terminal.until("Keys: ", moment)


def test_a_storm_of_resizes_ends_with_the_right_screen(box, terminal):
    terminal.open(APP)
    sees(terminal, "1 Projects")
    for number in range(60):
        terminal("resize-window", "-t", "it", "-x", str(60 + number * 37 % 190), "-y", str(20 + number * 13 % 60))
    terminal("resize-window", "-t", "it", "-x", "100", "-y", "30")
    press(terminal, "?")
    sees(terminal, "Keys: ", "make a project")
    assert all(len(line) <= 100 for line in screen(terminal).splitlines())
