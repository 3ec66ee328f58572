"""What is remembered holds for as long as its stamp does, and is made once for all who ask at the same time."""

from __future__ import annotations

import threading
import time

import pytest

from engine.host.kept import Kept, settled


def test_a_value_holds_for_as_long_as_its_stamp():
    kept, made = Kept(2), []

    def make():
        made.append(len(made))
        return made[-1]

    assert [kept.get("a", stamp, make) for stamp in (1, 1, 2, 2, 1)] == [0, 0, 1, 1, 2]


def test_of_too_many_values_the_one_unused_for_longest_is_dropped():
    kept = Kept(2)
    for key in ("a", "b", "a", "c"):
        kept.get(key, 0, lambda key=key: key)
    assert kept.get("a", 0, lambda: "made anew") == "a"
    assert kept.get("b", 0, lambda: "made anew") == "made anew"


def test_what_does_not_last_is_not_kept():
    kept = Kept(2)
    assert [kept.get("a", 0, lambda value=value: value, lasting=False) for value in (1, 2)] == [1, 2]


def test_those_who_ask_meanwhile_wait_for_the_value(wait):
    kept, asking, made, got = Kept(2), [], [], []

    def make():
        made.append(1)
        wait(lambda: len(asking) == 8)
        return "value"

    def ask():
        asking.append(1)
        got.append(kept.get("a", 0, make))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (got, made) == (["value"] * 8, [1])


def test_a_value_that_could_not_be_made_is_made_by_the_next_who_asks():
    kept = Kept(2)
    with pytest.raises(OSError):
        kept.get("a", 0, lambda: (_ for _ in ()).throw(OSError()))
    assert kept.get("a", 0, lambda: 1) == 1


def test_a_value_can_be_made_of_others_kept_beside_it():
    kept = Kept(4)
    assert kept.get("a", 0, lambda: kept.get("b", 0, lambda: 1) + 1) == 2


def test_a_time_is_trusted_once_another_change_would_show_in_it():
    now = time.time_ns()
    fine = now - now % 1_000_000_000 + 123
    assert settled(fine - 1_000_000_000)
    assert not settled(now | 1)
    coarse = now - now % 1_000_000_000
    assert not settled(coarse)
    assert settled(coarse - 5_000_000_000)
