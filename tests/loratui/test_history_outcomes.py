"""What becomes of commands, as the journal tells it."""

from __future__ import annotations

import pytest

from engine import protocol
from loratui.outcomes import Outcomes


def told(*events: protocol.AnyEvent) -> Outcomes:
    outcomes = Outcomes()
    for event in events:
        outcomes.take(event)
    return outcomes


def read(name: str, identity: str = "a1", taken: bool = True, text: str = "soon") -> protocol.Acknowledged:
    return protocol.Acknowledged(command=identity, name=name, taken=taken, text=text)


@pytest.mark.parametrize(
    ("name", "event", "words"),
    [
        ("pause", protocol.Paused(step=421), "paused after step 421"),
        ("resume", protocol.Continued(step=421), "going on after step 421"),
        ("checkpoint", protocol.Checkpoint(step=40, adapter="a"), "saved step 40"),
        ("sample", protocol.Sample(step=40, path="p", prompt="[/foo]", seed=1), "drew step 40"),
        ("set", protocol.Changed(step=40, field="optimizer.lr_unet", value=3e-5), "lr_unet = 3.0e-5 after step 40"),
        ("stop", protocol.End(state="stopped", code=130, step=41), "the run ended: stopped after step 41"),
        ("pause", protocol.End(state="released", code=130, step=41), "the run ended: released after step 41"),
        ("checkpoint", protocol.Notice(text="step 40 is saved already"), "step 40 is saved already"),
        ("checkpoint", protocol.Attempt(number=2, pid=1, host="h", boot_id="b"), "the run ended before"),
    ],
)  # fmt: skip
def test_a_command_is_settled_by_what_was_done_about_it(name, event, words):
    assert not told(read(name)).of("a1").settled
    assert told(read(name), event).of("a1").result == words


def test_what_was_done_before_a_command_was_read_does_not_count_for_it():
    assert not told(protocol.Paused(step=1), read("pause")).of("a1").settled


def test_a_refused_command_is_settled_at_once():
    outcome = told(read("sample", taken=False, text="no prompt was given")).of("a1")
    assert outcome.settled and outcome.text == "no prompt was given"


def test_a_notice_answers_the_first_of_two_commands():
    outcomes = told(read("checkpoint", "a1"), read("checkpoint", "a2"), protocol.Notice(text="not saved: disk full"))
    assert outcomes.of("a1").settled and not outcomes.of("a2").settled


def test_a_command_that_was_not_read_is_unknown():
    assert told(read("stop")).of("b2") is None
