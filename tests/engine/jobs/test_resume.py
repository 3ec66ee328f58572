"""A run that was killed and resumed ends in the bits of one that was not: the adapter, and every checkpoint on the way.

Kills are real (SIGKILL, in a process of its own), at places drawn from a seed among all function calls of a stage, and
at every moment of the writing of a checkpoint.
"""

from __future__ import annotations

import random
import signal

import pytest

from engine import protocol
from engine.training import state

STAGES = ("check", "load", "class-images", "cache", "draw", "train")
EARLY = STAGES[:4]
"""Stages before the first step, which later runs of a workspace find done."""


def drawn(calls: int, *seed: object, share: float = 0.9) -> int:
    """One of the first calls of a stage, of which every run makes about the same number."""
    return 1 + int(random.Random(repr(seed)).random() * share * calls)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_anywhere_in_a_stage_ends_in_the_same_bits(stage, attempt, submit, undisturbed, tmp_path):
    run = submit(tmp_path / "job")
    workspace = tmp_path if stage in EARLY else undisturbed.workspace
    code, _ = attempt(run, workspace, place="calls", name=stage, nth=drawn(undisturbed.calls[stage], stage))
    assert (code, run.stage) == (-signal.SIGKILL, stage)
    assert attempt(run, workspace)[0] == protocol.DONE
    assert run.equals(undisturbed.run)
    assert not run.leftovers()


def test_a_run_killed_twice_ends_in_the_same_bits(attempt, submit, undisturbed, tmp_path):
    run, calls = submit(tmp_path / "job"), undisturbed.calls["train"]
    first = calls // 2 + drawn(calls, "first", share=0.3)
    second = drawn(calls, "second", share=0.2)
    for nth in (first, second):
        code, _ = attempt(run, undisturbed.workspace, place="calls", name="train", nth=nth)
        assert code == -signal.SIGKILL
    assert attempt(run, undisturbed.workspace)[0] == protocol.DONE
    assert run.resumed == [2, 2]
    assert run.equals(undisturbed.run)


@pytest.mark.parametrize(
    ("fault", "resumed"),
    [
        pytest.param({"place": "create", "name": ".oct-step000002.*.safetensors", "act": "tear"}, [], id="in-adapter"),
        pytest.param({"place": "create", "name": ".oct-step000002.state.tmp"}, [], id="between-adapter-and-state"),
        pytest.param({"place": "create", "name": ".oct-step000002.state.tmp", "act": "tear"}, [], id="in-state"),
        pytest.param({"place": "rename", "name": "oct-step000004.state"}, [2], id="before-state-is-named"),
        pytest.param({"place": "remove", "name": "facts.json"}, [4], id="while-old-state-is-removed"),
        pytest.param({"place": "rename", "name": "oct.safetensors"}, [4], id="before-finished-adapter-is-named"),
    ],
)
def test_a_run_killed_while_a_checkpoint_is_written_ends_in_the_same_bits(
    fault, resumed, attempt, submit, undisturbed, tmp_path
):
    run = submit(tmp_path / "job", {"saving": {"states": 1}})
    code, _ = attempt(run, undisturbed.workspace, **fault)
    assert code == -(signal.SIGXFSZ if "act" in fault else signal.SIGKILL)
    assert attempt(run, undisturbed.workspace)[0] == protocol.DONE
    assert run.resumed == resumed
    assert run.equals(undisturbed.run)
    assert run.states == [4]
    assert not run.leftovers()


def test_the_same_request_ends_in_the_same_bits_in_another_process(submit, undisturbed, workspace, tmp_path):
    run = submit(tmp_path / "job")
    assert run.start() == protocol.DONE
    assert run.equals(undisturbed.run)


def test_another_seed_ends_in_other_bits(submit, undisturbed, workspace, tmp_path):
    run = submit(tmp_path / "job", {"training": {"seed": 43}, "prior": {"weight": 0.0}})
    assert run.start() == protocol.DONE
    assert run.adapter()[0] != undisturbed.run.adapter()[0]


def test_all_adapters_and_the_last_states_are_kept(undisturbed):
    names = sorted(path.name for path in undisturbed.run.checkpoints.iterdir())
    assert names == [
        "oct-step000002.safetensors",
        "oct-step000002.state",
        "oct-step000004.safetensors",
        "oct-step000004.state",
    ]
    told = [(event.step, event.adapter, event.state) for event in undisturbed.run.events(protocol.Checkpoint)]
    assert told == [
        (n, f"checkpoints/oct-step{n:06d}.safetensors", f"checkpoints/oct-step{n:06d}.state") for n in (2, 4)
    ]


@pytest.fixture
def unfinished(undisturbed, copied):
    """The undisturbed run, without its finished adapter."""
    run = copied(undisturbed.run)
    (run.directory / "oct.safetensors").unlink()
    return run


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_a_bit_changed(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("damage", [truncated, with_a_bit_changed])
def test_a_damaged_state_is_told_and_the_one_before_is_taken(damage, unfinished, undisturbed, workspace):
    tensors = unfinished.checkpoints / "oct-step000004.state" / "tensors.safetensors"
    tensors.write_bytes(damage(tensors.read_bytes()))
    assert unfinished.start() == protocol.DONE
    assert unfinished.resumed == [2]
    assert any("oct-step000004.state is damaged" in event.text for event in unfinished.events(protocol.Notice))
    assert unfinished.equals(undisturbed.run)
    assert unfinished.states == [2, 4]


def test_without_a_whole_state_a_run_begins_anew_and_says_so(unfinished, undisturbed, workspace):
    for facts in unfinished.checkpoints.glob("*.state/facts.json"):
        facts.write_bytes(b"{}")
    assert unfinished.start() == protocol.DONE
    assert unfinished.resumed == []
    assert any("begins anew" in event.text for event in unfinished.events(protocol.Notice))
    assert unfinished.equals(undisturbed.run)


def test_a_state_that_replaces_a_damaged_one_is_not_dropped_for_it(unfinished, workspace):
    """With one state kept, the newest by its number is a damaged one of a later step until it is written over."""
    facts, tensors = state.load(unfinished.checkpoints / "oct-step000002.state")
    (unfinished.checkpoints / "oct-step000004.state" / "facts.json").unlink()
    state.save(unfinished.checkpoints, "oct", 3, facts.conditions, tensors, keep=1)
    assert [path.name for path in state.find(unfinished.checkpoints)] == ["oct-step000003.state"]


def test_what_changed_since_the_state_is_told(unfinished, images, workspace):
    (unfinished.checkpoints / "oct-step000004.state").rename(unfinished.directory / "away")
    config = unfinished.directory / protocol.CONFIG
    config.write_text(config.read_text().replace("ohwx cat", "ohwx dog"))
    assert unfinished.start() == protocol.DONE
    assert any("changed since step 2: images" in event.text for event in unfinished.events(protocol.Notice))


def test_a_state_of_other_layers_is_refused(unfinished, workspace):
    config = unfinished.directory / protocol.CONFIG
    config.write_text(config.read_text().replace("rank = 2", "rank = 3"))
    assert unfinished.start() == protocol.REFUSED
    (refused,) = unfinished.events(protocol.Refused)
    assert refused.where.endswith("oct-step000004.state")


def test_a_torn_line_of_the_journal_is_cut_by_the_next_attempt(unfinished, workspace):
    with (unfinished.directory / protocol.JOURNAL).open("ab") as file:
        file.write(b'{"event":"step","st')
    assert unfinished.start() == protocol.DONE
    assert [event.number for event in unfinished.events(protocol.Attempt)] == [1, 2]
