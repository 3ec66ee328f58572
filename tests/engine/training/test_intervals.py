"""What is told of a run beforehand happens as often in it."""

from __future__ import annotations

import pytest

from engine.config import Request, Train
from engine.training import schedule
from engine.training.intervals import due, intervals, times


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 100])
@pytest.mark.parametrize("every", [0, 1, 2, 3, 10, 1000])
def test_something_is_due_as_often_as_is_told(every, steps):
    assert times(every, steps) == sum(due(step, every, steps) for step in range(1, steps + 1))


def config(**tables) -> Train:
    request = Request()
    request.lay({"model": {"base": "tiny"}, "dataset": {"subsets": [{"path": "/a"}]}, "prior": {"weight": 0.0}}, "test")
    request.lay(tables, "test")
    return request.checked(Train)


def test_intervals_that_nobody_set_part_a_run_into_pieces():
    found = intervals(config(), 200, 10)
    assert (found.sample, found.validate, found.save) == (50, 10, 20)
    assert [times(every, 200) for every in (found.sample, found.validate, found.save)] == [4, 20, 10]
    assert intervals(config(), 3, 10).save == 1


def test_pictures_may_come_by_epochs():
    assert intervals(config(sampling={"epochs": 2}, training={"accumulate": 4}), 200, 10).sample == 4


def test_a_warm_up_longer_than_a_run_given_in_epochs_is_told_with_its_field():
    asked = config(schedule={"warmup": 30}, training={"steps": 0, "epochs": 1})
    assert schedule.problems(asked, 30) == []
    [problem] = schedule.problems(asked, 29)
    assert (problem.field, problem.found) == ("schedule.warmup", "30")
