"""Commands of the settings: when they run, what they are told, and that nothing depends on how they end."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import msgspec
import pytest

from engine import protocol
from engine.config.settings import read_settings
from engine.hooks import checkpoints, handled
from engine.host import jobs, launch
from engine.protocol import messages

FACTS = ("HOOK", "RUN", "PROJECT", "PATH", "STATE", "STEP", "STEPS", "ADAPTER", "CAUSE", "WORKSPACE")


@pytest.fixture
def book(workspace):
    """A file that hooks write their facts to, and the command that does it."""
    path = workspace / "book.jsonl"
    line = ",".join(f'\\"{name}\\":\\"$LORATUI_{name}\\"' for name in FACTS)
    return path, f'echo "{{{line}}}" >> {shlex.quote(str(path))}'


def settle(workspace, timeout=60.0, **hooks):
    lines = [f"{name} = {json.dumps(commands)}" for name, commands in hooks.items()]
    (workspace / "settings.toml").write_text("\n".join(["[hooks]", f"timeout = {timeout}", *lines]) + "\n")


def written(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lines(directory: Path) -> list[protocol.HookLine]:
    content = (directory / protocol.HOOKS).read_bytes().splitlines()
    return [msgspec.json.decode(line, type=protocol.HookLine) for line in content]


def test_commands_are_told_what_happened_to_which_run_in_the_order_of_the_events(workspace, submit, tell, hand, book):
    path, write = book
    settle(workspace, on_checkpoint=[write], on_done=[write], on_failed=[write], on_queue_empty=[write])
    good, bad = submit("good", tell(4)), submit("bad", tell(3, end="failed"))
    hand().finish()
    told = written(path)
    assert [(one["HOOK"], one["RUN"], one["STEP"]) for one in told if one["RUN"] == good.name] == [
        ("on_checkpoint", good.name, "2"), ("on_checkpoint", good.name, "4"), ("on_done", good.name, "4"),
    ]  # fmt: skip
    assert [one["HOOK"] for one in told if one["RUN"] == bad.name] == ["on_checkpoint", "on_failed"]
    assert [one["HOOK"] for one in told][-1:] == ["on_queue_empty"] and len(told) == 6
    assert told[0]["ADAPTER"] == str(good / "checkpoints" / "a-step000002.safetensors")
    done = next(one for one in told if one["HOOK"] == "on_done")
    assert done["ADAPTER"] == str(good / "a.safetensors") and done["STEPS"] == "4" and done["STATE"] == "done"
    failed = next(one for one in told if one["HOOK"] == "on_failed")
    assert (failed["STATE"], failed["CAUSE"], failed["PATH"]) == ("failed", "it went wrong", str(bad))
    assert failed["PROJECT"] == "default" and failed["WORKSPACE"] == str(workspace)


def test_a_command_that_fails_is_told_of_and_changes_nothing(workspace, submit, hand):
    settle(workspace, on_done=["echo some words; exit 3", "no-such-program", "true"])
    first, second = submit("a"), submit("b")
    one = hand()
    one.finish()
    assert [jobs.state_of(directory) for directory in (first, second)] == ["done", "done"]
    assert [(line.on, line.code) for line in lines(first)] == [("on_done", 3), ("on_done", 127), ("on_done", 0)]
    assert lines(first)[0].text == "some words" and lines(first)[0].step == 4
    assert sum("failed with code 3" in line and "some words" in line for line in one.said) == 2


def test_a_command_that_hangs_holds_up_no_run_and_is_killed_with_its_children(workspace, submit, hand, wait):
    settle(workspace, timeout=0.5, on_done=["echo begun; sleep 1000 & wait"])
    first, second = submit("a"), submit("b")
    one = hand()
    one.turn_until(lambda: jobs.state_of(second) == "running" or jobs.state_of(second) == "done")
    one.finish()
    assert [line.code for line in lines(first)] == [-9] and "killed after 0.5 s" in lines(first)[0].text
    assert "begun" in lines(first)[0].text


def test_a_slow_command_does_not_keep_the_next_run_from_starting(workspace, submit, hand):
    gate = workspace / "gate"
    settle(workspace, on_done=[f"while [ ! -e {gate} ]; do sleep 0.05; done"])
    first, second = submit("a"), submit("b")
    one = hand()
    one.turn_until(lambda: jobs.state_of(first) == jobs.state_of(second) == "done")
    assert not (first / protocol.HOOKS).exists()
    gate.touch()
    one.finish()
    assert lines(first)[0].code == lines(second)[0].code == 0


def test_commands_of_others_do_not_see_our_own_way_of_finding_python_files(workspace, submit, hand, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", f"{launch.CHECKOUT}:/theirs")
    settle(workspace, on_done=['echo "<$PYTHONSAFEPATH><$PYTHONPATH>"'])
    directory = submit()
    hand().finish()
    assert lines(directory)[0].text == "<></theirs>"


def test_a_run_that_was_stopped_or_given_back_calls_nothing_but_an_empty_queue(workspace, submit, tell, hand, book):
    path, write = book
    settle(workspace, on_done=[write], on_failed=[write], on_queue_empty=[write])
    directory = submit(story=tell(1000), speed=10.0)
    one = hand()
    one.turn_until(lambda: jobs.summary(directory).step > 0)
    jobs.control(directory, messages.Control(job="", name="pause", release=True))
    one.finish()
    assert [one["HOOK"] for one in written(path)] == ["on_queue_empty"] and jobs.state_of(directory) == "released"


def test_a_runner_that_finds_nothing_to_do_says_nothing_of_an_empty_queue(workspace, hand, book):
    path, write = book
    settle(workspace, on_queue_empty=[write])
    hand().finish()
    assert written(path) == []


def test_a_crash_calls_for_help_once_its_retries_are_used_up(workspace, submit, tell, hand, book):
    path, write = book
    settle(workspace, on_failed=[write])
    (workspace / "settings.toml").write_text("retries = 1\n" + (workspace / "settings.toml").read_text())
    submit(story=tell(3, end=""))
    hand().finish()
    (told,) = written(path)
    assert told["STATE"] == "crashed" and "died" in told["CAUSE"]


def test_the_next_runner_runs_what_the_killed_one_has_not_and_nothing_twice(workspace, submit, tell, hand, book):
    path, write = book
    gate = workspace / "gate"
    wait = f"{write}; [ $LORATUI_STEP = 2 ] || while [ ! -e {gate} ]; do sleep 0.05; done"
    settle(workspace, on_checkpoint=[wait], on_done=[write])
    directory = submit(story=tell(6))
    first = hand()
    first.turn_until(lambda: jobs.state_of(directory) == "done" and len(written(path)) == 2)
    first.turn_until(lambda: not first.runner.live)
    first.runner.hooks._running.process.kill()
    first.runner.hooks._running.process.wait()
    gate.touch()
    hand().finish()
    assert [one["HOOK"] for one in written(path)] == ["on_checkpoint"] * 4 + ["on_done"]
    assert [one["STEP"] for one in written(path)] == ["2", "4", "4", "6", "6"]
    assert {(on, step) for on, step, _ in handled(directory)} == {
        ("on_checkpoint", 2), ("on_checkpoint", 4), ("on_checkpoint", 6), ("on_done", 6),
    }  # fmt: skip


def test_checkpoints_are_read_on_whatever_is_torn_damaged_or_cut_away(tmp_path):
    journal = tmp_path / protocol.JOURNAL
    assert checkpoints(tmp_path, 0) == ([], 0)
    first, second = (protocol.encode(protocol.Checkpoint(step=step, adapter="a")) for step in (1, 2))
    journal.write_bytes(first + b'{"event": "checkpoint", \xff\n' + second[:-5])
    found, offset = checkpoints(tmp_path, 0)
    assert [event.step for event in found] == [1]
    assert checkpoints(tmp_path, offset) == ([], offset)
    journal.write_bytes(first)
    found, offset = checkpoints(tmp_path, offset)
    assert found == [] and offset == len(first)
    journal.write_bytes(first + second)
    assert [event.step for event in checkpoints(tmp_path, offset)[0]] == [2]
    shutil.rmtree(tmp_path)
    assert checkpoints(tmp_path, offset) == ([], offset)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[hooks]\non_dnoe = ['true']\n", ["settings.toml", "hooks.on_dnoe", "did you mean `on_done`"]),
        ("[hooks]\non_done = 'true'\n", ["hooks.on_done", "a list"]),
        ("[hooks]\non_done = ['']\ntimeout = 0\n", ["hooks.on_done[0]", "hooks.timeout", "above 0"]),
        ("retries = -1\n", ["retries", "from 0"]),
        ("[hooks\n", ["settings.toml", "well-formed TOML"]),
    ],
)
def test_wrong_settings_are_told_with_file_and_field_and_stop_no_run(workspace, submit, hand, text, words):
    (workspace / "settings.toml").write_text(text)
    directory = submit()
    one = hand()
    one.finish()
    assert jobs.state_of(directory) == "done"
    said = "\n".join(one.said)
    assert all(word in said for word in words), said
    assert said.count("settings.toml is left aside") == 1


def test_settings_that_go_wrong_later_leave_the_former_ones_in_force(workspace, submit, hand, book):
    path, write = book
    settle(workspace, on_done=[write])
    submit()
    one = hand()
    (workspace / "settings.toml").write_text("nonsense = 1\n")
    one.finish()
    assert [told["HOOK"] for told in written(path)] == ["on_done"]


def test_a_workspace_without_settings_has_the_defaults(workspace):
    settings, problems = read_settings(workspace)
    assert problems == [] and settings.retries == 0 and settings.hooks.on_done == []
