"""`loratui doctor`: what it finds out here, and what it makes of the facts of machines that are not here."""

from __future__ import annotations

import copy
import io
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from loratui import disks, doctor, machine, terminal
from loratui.cli import app
from loratui.cli.doctor import table

GIB = 1024**3
H100 = {
    "device": "cuda:0",
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-1234",
    "capability": "9.0",
    "memory_bytes": 80 * GIB,
    "free_bytes": 79 * GIB,
    "dtype": "bfloat16",
    "attention": {"sdpa": None, "xformers": "not installed", "plain": None},
}
DISK = {
    "path": "/data/loratui",
    "exists": True,
    "mount": "/data",
    "filesystem": "ext4",
    "lasts": True,
    "lasting_reason": "ext4 on a disk",
    "writable": True,
    "locks": True,
    "lock_reason": "",
    "free_bytes": 500 * GIB,
    "total_bytes": 1000 * GIB,
}
HEALTHY = {
    "loratui": "0.1.0",
    "python": {"version": "3.12.4", "executable": "/opt/env/bin/python", "system": "Linux"},
    "packages": {"diffusers": "0.42.1"},
    "engine": {
        "stage": "done",
        "trouble": None,
        "driver": {
            "version": "570.1",
            "cuda": "12.8",
            "cards": [{"name": "NVIDIA H100", "uuid": "GPU-1234", "memory_bytes": 80 * GIB}],
        },
        "torch": {"error": None, "version": "2.13.0", "path": "/opt/torch", "cuda": "12.8", "hip": None, "threads": 8},
        "devices": [H100],
    },
    "machine": {
        "cores": 16,
        "usable_cores": 16,
        "memory_bytes": 128 * GIB,
        "available_bytes": 120 * GIB,
        "memory_limit_bytes": None,
    },
    "environment": {},
    "terminal": {
        "interactive": True,
        "columns": 120,
        "rows": 40,
        "term": "xterm-256color",
        "program": "",
        "colours": "truecolor",
        "encoding": "utf-8",
        "locale": "C.UTF-8",
        "unicode": True,
        "multiplexer": "",
        "remote": False,
        "pictures_guess": "half-blocks",
    },
    "paths": {"package": "/opt/env/loratui"},
    "disks": {"workspace": DISK, "model_cache": DISK},
}


def judged(**changes):
    """The findings that are not fine when `changes` (dotted with `__`) are made to a healthy machine."""
    facts = copy.deepcopy(HEALTHY)
    for dotted, value in changes.items():
        *folders, last = dotted.split("__")
        place = facts
        for name in folders:
            place = place[name]
        place[last] = value
    return [finding for finding in doctor.findings(facts) if finding.level in ("note", "broken")]


def test_a_healthy_machine_has_nothing_to_note():
    assert judged() == []


def test_a_torch_that_cannot_be_imported_is_broken_and_its_error_is_shown():
    (finding,) = judged(engine__torch={"error": "OSError: libcudart.so.12 is missing"}, engine__driver=None)
    assert finding.level == "broken"
    assert "libcudart" in finding.value


def test_an_engine_that_died_before_torch_is_broken_and_says_how_it_died():
    (finding,) = judged(engine__torch=None, engine__devices=[], engine__trouble="the engine was killed by signal 9")
    assert (finding.level, finding.value) == ("broken", "the engine was killed by signal 9")


def test_an_engine_that_died_later_is_noted_and_what_it_found_is_kept():
    (finding,) = judged(engine__trouble="the engine was killed by signal 11 at the stage “attention on cuda:0”")
    assert finding.level == "note"
    assert "attention on cuda:0" in finding.value


def test_a_card_that_a_torch_without_cuda_cannot_use_is_explained():
    torch = HEALTHY["engine"]["torch"] | {"cuda": None}
    cpu = {"device": "cpu", "name": "AVX2", "dtype": "float32", "attention": {"plain": None}}
    (finding,) = judged(engine__torch=torch, engine__devices=[cpu])
    assert "built without CUDA" in finding.advice


def test_a_card_hidden_by_the_environment_is_explained():
    cpu = {"device": "cpu", "name": "AVX2", "dtype": "float32", "attention": {"plain": None}}
    (finding,) = judged(engine__devices=[cpu], environment={"CUDA_VISIBLE_DEVICES": ""})
    assert "CUDA_VISIBLE_DEVICES" in finding.advice


def test_a_back_end_that_raised_is_noted_but_one_that_is_not_installed_is_not():
    attention = {"sdpa": None, "xformers": "no kernel for this device", "plain": None}
    (finding,) = judged(engine__devices=[H100 | {"attention": attention}])
    assert "no kernel for this device" in finding.value


def test_a_device_on_which_no_attention_ran_is_broken():
    findings = judged(engine__devices=[H100 | {"attention": {"sdpa": "off by 3", "plain": "out of memory"}}])
    assert [finding.level for finding in findings] == ["note", "note", "broken"]


@pytest.mark.parametrize(
    ("free", "level"), [(400 * 1024**2, "broken"), (5 * GIB, "note"), (11 * GIB, None)], ids=["full", "tight", "enough"]
)
def test_free_space_in_the_workspace_is_judged(free, level):
    found = judged(disks__workspace=DISK | {"free_bytes": free})
    assert [finding.level for finding in found] == ([level] if level else [])


def test_a_workspace_in_memory_is_noted_with_the_variable_that_moves_it():
    (finding,) = judged(disks__workspace=DISK | {"lasts": False, "lasting_reason": "tmpfs lives in memory"})
    assert "LORATUI_WORKSPACE" in finding.advice


def test_a_workspace_that_cannot_be_written_to_is_broken_but_such_a_cache_is_only_noted():
    (finding,) = judged(disks__workspace=DISK | {"writable": False})
    assert finding.level == "broken"
    (finding,) = judged(disks__model_cache=DISK | {"writable": False})
    assert finding.level == "note"


def test_locks_that_do_not_hold_are_noted():
    (finding,) = judged(disks__workspace=DISK | {"locks": False, "lock_reason": "a second process was given it"})
    assert "a second process was given it" in finding.value


def test_a_small_terminal_without_colours_or_unicode_is_noted_thrice():
    poor = HEALTHY["terminal"] | {"columns": 60, "colours": "16", "unicode": False, "encoding": "ascii"}
    assert [finding.name for finding in judged(terminal=poor)] == ["terminal", "colours", "characters"]


def test_the_report_shows_brackets_as_they_are_and_never_needs_colour():
    console = Console(file=io.StringIO(), width=80, color_system=None)
    facts = HEALTHY | {"loratui": "[bold]1[/bold]"}
    console.print(table(list(doctor.findings(facts)), unicode=False))
    printed = console.file.getvalue()
    assert "[bold]1[/bold]" in printed
    assert "ok" in printed and "loratui works here." in printed


def test_json_goes_to_stdout_and_everything_else_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "space"))
    monkeypatch.setattr(doctor, "ask_engine", lambda: HEALTHY["engine"])
    result = CliRunner().invoke(app, ["doctor", "--json"])
    facts = json.loads(result.stdout)
    assert facts["disks"]["workspace"]["path"] == str(tmp_path / "space")
    assert facts["python"]["executable"] == sys.executable
    assert {finding["group"] for finding in facts["findings"]} >= {"torch", "devices", "disks"}
    assert result.exit_code == 0
    assert not (tmp_path / "space").exists()


def test_a_broken_installation_ends_with_1(monkeypatch):
    monkeypatch.setattr(doctor, "gather", lambda: HEALTHY | {"packages": {"diffusers": None}})
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "missing: diffusers" in result.stdout


def test_the_engine_reports_torch_and_an_attention_that_ran():
    report = doctor.ask_engine()
    assert (report["trouble"], report["stage"]) == (None, "done")
    assert report["torch"]["error"] is None
    assert report["devices"][-1]["device"] == "cpu"
    assert report["devices"][-1]["attention"]["plain"] is None


def test_an_engine_killed_halfway_leaves_what_it_had_found(monkeypatch):
    script = (
        "import os, signal\n"
        """print('{"stage": "torch", "torch": {"version": "2.0"}}', flush=True)\n"""
        """print('{"stage": "to', end="", flush=True)\n"""
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    monkeypatch.setattr(doctor, "engine_command", lambda module: [sys.executable, "-c", script])
    report = doctor.ask_engine()
    assert report["torch"] == {"version": "2.0"}
    assert report["trouble"] == f"the engine was killed by signal {signal.SIGKILL.value} at the stage “torch”"


def test_the_deepest_and_latest_mount_holds_a_path(tmp_path):
    folder = tmp_path / "with blank" / "deep"
    folder.mkdir(parents=True)
    blank = str(tmp_path / "with blank").replace(" ", "\\040")
    mounts = disks.parse_mounts(f"/dev/a / ext4 rw 0 0\n/dev/b {blank} xfs rw 0 0\ntmpfs {blank} tmpfs rw 0 0\n")
    assert disks.mount_of(folder, mounts) == disks.Mount(str(tmp_path / "with blank"), "tmpfs")
    assert disks.mount_of(tmp_path, mounts).filesystem == "ext4"
    assert disks.mount_of(tmp_path, []).filesystem == "unknown"


@pytest.mark.parametrize(
    ("path", "mount", "container", "lasts"),
    [
        ("/dev/shm/x", disks.Mount("/dev/shm", "tmpfs"), False, False),
        ("/srv", disks.Mount("/", "overlay"), True, False),
        ("/srv", disks.Mount("/", "ext4"), True, None),
        ("/srv", disks.Mount("/srv", "ext4"), True, True),
        ("/srv", disks.Mount("/", "ext4"), False, True),
        ("/tmp/x", disks.Mount("/", "ext4"), False, None),
        ("/srv", disks.Mount("", "unknown"), False, None),
    ],
)
def test_what_lasts_is_told_by_file_system_and_place(path, mount, container, lasts):
    assert disks.lasting(Path(path), mount, container)[0] is lasts


def test_a_missing_folder_is_judged_by_the_nearest_one_above(tmp_path):
    disk = disks.look(tmp_path / "not" / "there")
    assert not disk.exists
    assert disk.writable and disk.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_a_held_lock_is_refused_to_a_second_process(tmp_path):
    assert disks.lock_trouble(tmp_path) == ""


def test_a_file_system_that_gives_a_held_lock_away_is_found_out(tmp_path, monkeypatch):
    given = subprocess.CompletedProcess([], 0, stdout="taken\n", stderr="")
    monkeypatch.setattr(disks.subprocess, "run", lambda *arguments, **options: given)
    assert disks.lock_trouble(tmp_path) == "a second process was given a lock that was held"


def write(file: Path, text: str):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_tightest_group_limits_cores_and_memory(tmp_path):
    write(tmp_path / "jobs/cpu.max", "250000 100000\n")
    write(tmp_path / "jobs/one/cpu.max", "max 100000\n")
    write(tmp_path / "jobs/memory.max", f"{8 * GIB}\n")
    write(tmp_path / "jobs/one/memory.max", "max\n")
    assert machine.core_quota(tmp_path, {"": "/jobs/one"}) == 2.5
    assert machine.memory_limit(tmp_path, {"": "/jobs/one"}) == 8 * GIB


def test_older_groups_seen_from_inside_a_container_limit_too(tmp_path):
    write(tmp_path / "cpu/cpu.cfs_quota_us", "400000\n")
    write(tmp_path / "cpu/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "memory/memory.limit_in_bytes", f"{4 * GIB}\n")
    groups = {"cpu": "/docker/0123", "memory": "/docker/0123"}
    assert machine.core_quota(tmp_path, groups) == 4
    assert machine.memory_limit(tmp_path, groups) == 4 * GIB


def test_groups_without_a_quota_do_not_limit(tmp_path):
    write(tmp_path / "cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "cpu/cpu.cfs_period_us", "100000\n")
    assert machine.core_quota(tmp_path, {}) == math.inf
    assert machine.memory_limit(tmp_path, {}) is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, ("truecolor", "", False, "half-blocks")),
        ({"TERM": "xterm-kitty"}, ("256", "", False, "kitty")),
        ({"TERM": "foot", "TMUX": "/run/tmux,1,0"}, ("16", "tmux", False, "half-blocks")),
        ({"TERM": "xterm-256color", "SSH_TTY": "/dev/pts/1", "STY": "1.x"}, ("256", "screen", True, "half-blocks")),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, ("none", "", False, "half-blocks")),
        ({"TERM": "dumb"}, ("none", "", False, "half-blocks")),
    ],
)
def test_a_terminal_is_described_by_its_environment(environ, expected):
    found = terminal.look(environ, io.StringIO())
    assert (found.colours, found.multiplexer, found.remote, found.pictures_guess) == expected
    assert not found.interactive
