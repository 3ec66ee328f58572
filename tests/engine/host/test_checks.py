"""A host has one check at a time, passes on what it says, and takes it along when it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from engine.host import checks
from engine.host.checks import Checks
from engine.protocol import messages
from engine.protocol.browse import CheckImages


class Heard:
    """An outbox that keeps what is put in."""

    def __init__(self):
        self.told: list[dict] = []

    def put(self, line: bytes) -> None:
        message = json.loads(line)
        assert message["method"] == "images.checked"
        self.told.append(message["params"])

    def wait_for_room(self) -> bool:
        return True


@pytest.fixture
def images(tmp_path):
    """A folder of so many pictures, each of which takes a while."""

    def images(count: int) -> Path:
        folder = tmp_path / f"images-{count}"
        folder.mkdir()
        Image.effect_noise((700, 700), 50).save(folder / "0.png")
        for number in range(1, count):
            os.link(folder / "0.png", folder / f"{number}.png")
        return folder

    return images


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def check(heard):
    running = Checks(heard)

    def check(folder: Path, identity: str) -> subprocess.Popen:
        table = {"model": {"base": "tiny"}, "dataset": {"subsets": [{"path": str(folder)}]}}
        running.start(CheckImages(config=table, id=identity))
        return running._process

    yield check
    if running._process is not None:
        running._process.kill()
        running._process.wait()


def finished(heard, identity):
    return lambda: any(one["id"] == identity and one.get("finished") for one in heard.told)


def test_a_check_is_told_to_its_end(heard, check, images, wait):
    process = check(images(8), "one")
    wait(finished(heard, "one"), lambda: heard.told)
    assert heard.told[0]["total"] == 8
    assert "findings" not in heard.told[0]
    last = heard.told[-1]
    assert (last["done"], last["total"], last.get("failed", "")) == (8, 8, "")
    assert sum("the same file twice" in one["text"] for one in last["findings"]) == 7
    wait(lambda: process.poll() is not None)


def test_a_new_check_gives_up_the_old_one(heard, check, images, wait):
    old = check(images(500), "old")
    wait(lambda: heard.told, lambda: heard.told)
    check(images(2), "new")
    count = sum(one["id"] == "old" for one in heard.told)
    wait(finished(heard, "new"), lambda: heard.told)
    wait(lambda: old.returncode is not None)
    assert old.returncode == -signal.SIGKILL
    assert sum(one["id"] == "old" for one in heard.told) == count
    assert not finished(heard, "old")()


def test_a_check_that_dies_says_so(heard, check, images, wait):
    process = check(images(500), "one")
    wait(lambda: heard.told, lambda: heard.told)
    process.kill()
    wait(finished(heard, "one"), lambda: heard.told)
    assert "killed" in heard.told[-1]["failed"]
    assert heard.told[-1]["total"] == 500
    check(images(2), "two")
    wait(finished(heard, "two"), lambda: heard.told)
    assert "failed" not in heard.told[-1]


@pytest.mark.parametrize(
    ("program", "words"),
    [("exit 3", "code 3"), ("kill -TERM $$", "SIGTERM"), ("echo nonsense; sleep 60", "SIGTERM")],
)
def test_a_child_that_goes_wrong_ends_the_check(heard, check, images, wait, tmp_path, monkeypatch, program, words):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    check(images(1), "one")
    wait(finished(heard, "one"), lambda: heard.told)
    assert words in heard.told[-1]["failed"]


def test_a_child_that_can_not_be_started_is_told(heard, check, images, monkeypatch):
    monkeypatch.setattr(checks.sys, "executable", "/nowhere/python")
    check(images(1), "one")
    assert "could not be started: no such file" in heard.told[-1]["failed"]


@pytest.mark.skipif(shutil.which("ps") is None and not Path("/proc").is_dir(), reason="no list of processes here")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_check_ends_with_its_host(tmp_path, images, wait, number):
    environment = os.environ | {"LORATUI_WORKSPACE": str(tmp_path / "ws")}
    host = subprocess.Popen(
        [sys.executable, "-m", "engine"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    table = {"model": {"base": "tiny"}, "dataset": {"subsets": [{"path": str(images(2000))}]}}
    for method, params in (("hello", {"version": messages.VERSION}), ("images.check", {"config": table, "id": "x"})):
        host.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
    host.stdin.flush()
    while json.loads(host.stdout.readline()).get("method") != "images.checked":
        pass
    (child,) = psutil.Process(host.pid).children()
    host.send_signal(number)
    host.wait(20)
    host.stdin.close()
    host.stdout.close()
    wait(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
