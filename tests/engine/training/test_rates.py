"""The course of the learning rates against diffusers' schedules.

One difference is meant: diffusers' warm-up begins with a rate of 0, so its first step changes nothing; ours begins with
1/warm-up. After the warm-up both are the same.
"""

from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_scheduler

from engine.config import Model, Subset, Train
from engine.config.structs import Dataset, Schedule
from engine.training.schedule import factor, warmup_steps


def theirs(kind: str, steps: int, warmup: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0), (20, 5), (20, 1), (20, 20), (1, 0), (7, 6)])
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_after_the_warm_up_the_rates_are_those_of_diffusers(kind, steps, warmup):
    mine = [factor(kind, step, steps, warmup) for step in range(1, steps + 1)]
    assert mine[warmup:] == pytest.approx(theirs(kind, steps, warmup)[warmup:], abs=1e-12)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_warm_up_is_that_of_diffusers_one_step_earlier(kind):
    mine = [factor(kind, step, 30, 10) for step in range(1, 11)]
    assert mine[:-1] == pytest.approx(theirs(kind, 30, 10)[1:10], abs=1e-12)
    assert mine[0] == pytest.approx(0.1) and mine[-1] == 1.0


def test_every_step_learns_something_and_none_more_than_the_full_rate():
    for kind in ("constant", "linear", "cosine"):
        for steps, warmup in ((1, 0), (1, 1), (10, 0), (10, 3), (10, 10), (10, 50)):
            assert all(0 < factor(kind, step, steps, warmup) <= 1 for step in range(1, steps + 1))


def test_the_warm_up_is_as_asked_for_or_a_twentieth_of_the_run_and_at_most_100_steps():
    def config(warmup):
        subsets = [Subset(path="a")]
        return Train(model=Model(base="b"), dataset=Dataset(subsets=subsets), schedule=Schedule(warmup=warmup))

    assert [warmup_steps(config("auto"), steps) for steps in (19, 20, 1200, 100_000)] == [0, 1, 60, 100]
    assert warmup_steps(config(7), 1200) == 7
