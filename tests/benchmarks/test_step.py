"""The benchmark of a step: its two sides compute the same thing on the base as it is."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import step, step_sides


def test_both_sides_of_a_step_train_the_same_adapter_on_the_base():
    case = replace(step.CASES["tiny"], batch=2, rank=2)
    facts = {name: step_sides.prepare(name, case)[1] for name in step.SIDES}
    step.compare(case, facts)
    assert len(set(facts["ours"]["losses"])) == step_sides.CHECKED_STEPS
