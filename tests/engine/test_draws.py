from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import draws

parts = st.lists(st.one_of(st.integers(), st.text()), max_size=4).map(tuple)


def test_the_draws_are_the_recorded_ones():
    assert draws.bits(42) == 8132986567694255081
    assert draws.bits(42, "noise", 0, 7) == 6153753106958734581
    assert draws.uniform(-1, "flip", 10**30) == 0.5475450586976036
    assert draws.integer(1000, 42, "crop", "ünïcode\n") == 742
    assert draws.shuffled(8, 42, "order") == [3, 2, 1, 0, 5, 6, 7, 4]


@given(parts, parts)
def test_different_paths_have_different_bits_and_equal_paths_the_same(one, other):
    assert (draws.bits(0, *one) == draws.bits(0, *other)) == (one == other)


def test_a_number_and_its_text_are_different_paths():
    assert len({draws.bits(0, 1, 2), draws.bits(0, 12), draws.bits(0, "1", "2"), draws.bits(0, "12")}) == 4


def test_a_numpy_integer_is_the_integer_it_holds():
    assert draws.bits(np.int64(3), np.int32(7)) == draws.bits(3, 7)


@pytest.mark.parametrize("part", [1.0, None, b"bytes"])
def test_a_part_that_is_neither_integer_nor_string_is_refused(part):
    with pytest.raises(TypeError):
        draws.bits(0, part)


def test_bits_fill_all_63_places_and_no_more():
    seen = 0
    for i in range(500):
        drawn = draws.bits(0, "places", i)
        assert 0 <= drawn < 1 << 63
        seen |= drawn
    assert seen == (1 << 63) - 1


def test_uniform_spreads_evenly_over_zero_to_one():
    drawn = np.array([draws.uniform(7, i) for i in range(20_000)])
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # χ² with 19 degrees of freedom, p = 0.001


def test_integer_takes_every_value_equally_often():
    counts = Counter(draws.integer(7, 3, i) for i in range(14_000))
    assert set(counts) == set(range(7))
    assert sum((c - 2000) ** 2 / 2000 for c in counts.values()) < 22.5  # 6 degrees of freedom, p = 0.001


def test_integer_does_not_favour_small_numbers_for_a_huge_range():
    n = 3 << 61  # a remainder alone would draw the lower third twice as often
    low = sum(draws.integer(n, 1, i) < n // 3 for i in range(3000))
    assert abs(low - 1000) < 4 * (3000 * (1 / 3) * (2 / 3)) ** 0.5


@pytest.mark.parametrize("n", [0, -1, (1 << 63) + 1])
def test_integer_refuses_a_range_it_cannot_draw_from(n):
    with pytest.raises(ValueError):
        draws.integer(n, 0)


@given(st.integers(0, 60), st.integers(), parts)
def test_shuffled_is_a_permutation(n, seed, path):
    assert sorted(draws.shuffled(n, seed, *path)) == list(range(n))


def test_every_permutation_is_equally_likely():
    counts = Counter(tuple(draws.shuffled(4, 5, i)) for i in range(12_000))
    assert set(counts) == set(permutations(range(4)))
    assert sum((c - 500) ** 2 / 500 for c in counts.values()) < 49.8  # 23 degrees of freedom, p = 0.001


def test_another_process_with_another_hash_seed_draws_the_same():
    code = "from engine import draws; print(draws.bits(42, 'noise', 3), draws.shuffled(6, 1, 'x'))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": h, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for h in ("1", "2")
    }
    assert printed == {f"{draws.bits(42, 'noise', 3)} {draws.shuffled(6, 1, 'x')}\n"}
