"""The app's link: several listeners to one job, none of whom misses anything or hears it twice."""

from __future__ import annotations

import pytest

from engine import protocol
from engine.protocol import messages
from loratui.link import Link

STEPS = [protocol.Step(step=number, loss=0.5) for number in range(1, 9)]


class Listener:
    """Keeps what it was told, as a panel would."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.told = 0

    def __call__(self, told: messages.JobEvents) -> None:
        self.told += 1
        if told.restarted:
            self.steps = []
        self.steps += [event.step for event in told.events]


@pytest.fixture
def link(monkeypatch) -> Link:
    """A link whose host takes every call, and tells nothing by itself."""
    made = Link(lambda told: None, lambda trouble: None)
    made.calls = []

    async def call(method: str, params: messages.Message) -> None:
        made.calls.append(method)

    monkeypatch.setattr(made, "call", call)
    return made


def tell(link: Link, start: int, stop: int) -> None:
    """The host tells the steps between two offsets; a byte a step."""
    link._take(messages.JobEvents(id="a", offset=stop, events=STEPS[start:stop], state="running", start=start))


async def test_a_second_listener_hears_all_and_the_first_hears_it_anew(link):
    first, second = Listener(), Listener()
    await link.watch("a", first)
    tell(link, 0, 4)
    await link.watch("a", second)
    tell(link, 0, 3)
    tell(link, 3, 6)
    assert first.steps == second.steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("late", [(4, 5), (0, 4)], ids=["middle", "beginning"])
async def test_what_was_on_its_way_when_another_joined_is_not_told_twice(link, late):
    first, second = Listener(), Listener()
    await link.watch("a", first)
    if late[0]:
        tell(link, 0, late[0])
    await link.watch("a", second)
    tell(link, *late)
    tell(link, 0, 6)
    tell(link, 6, 8)
    assert first.steps == second.steps == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_who_leaves_hears_nothing_more_and_the_last_ends_the_watch(link):
    first, second = Listener(), Listener()
    await link.watch("a", first)
    await link.watch("a", second)
    await link.unwatch("a", first)
    assert "jobs.unwatch" not in link.calls
    tell(link, 0, 2)
    assert (first.told, second.steps) == (0, [1, 2])
    await link.unwatch("a", second)
    assert link.calls[-1] == "jobs.unwatch"
    tell(link, 2, 4)
    assert second.steps == [1, 2]


async def test_the_state_of_a_job_that_has_said_nothing_is_told(link):
    listener = Listener()
    await link.watch("a", listener)
    tell(link, 0, 0)
    assert listener.told == 1
