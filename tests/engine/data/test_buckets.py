from __future__ import annotations

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.buckets import bucket_for, enlargement, shapes, square

settings = st.sampled_from([(64, 8), (512, 64), (768, 64), (1024, 64), (100, 8), (520, 64)])
sides = st.integers(1, 5000)


@given(sides, sides, settings)
def test_a_bucket_is_made_of_steps_within_the_area_and_never_narrow(width, height, setting):
    resolution, step = setting
    w, h = bucket_for(width, height, resolution, step)
    assert w % step == h % step == 0
    assert w * h <= resolution**2
    assert min(w, h) >= resolution / 2


@given(sides, sides, settings)
def test_no_other_shape_of_full_area_is_nearer_in_aspect(width, height, setting):
    """Against a search of all multiples, without the rule that lists the shapes."""
    resolution, step = setting
    sides = range(-(-resolution // (2 * step)) * step, 2 * resolution + 1, step)
    full = [(w, h) for w in sides for h in sides if w * h <= resolution**2 < w * h + step * min(w, h)] + [
        square(resolution, step)
    ]
    aspect = log(width / height)
    nearest = min(abs(log(w / h) - aspect) for w, h in full)
    w, h = bucket_for(width, height, resolution, step)
    assert abs(log(w / h) - aspect) == pytest.approx(nearest)


@given(sides, sides, settings)
def test_a_turned_picture_has_the_turned_bucket(width, height, setting):
    assert bucket_for(height, width, *setting) == bucket_for(width, height, *setting)[::-1] or width == height


def test_the_buckets_of_512_in_steps_of_64_are_the_familiar_ones():
    assert {(512, 512), (448, 576), (384, 640), (320, 768), (256, 1024)} <= set(shapes(512, 64))
    assert bucket_for(3000, 2000, 512, 64) == (640, 384)
    assert bucket_for(1920, 1080, 1024, 64) == (1344, 768)
    assert bucket_for(1, 1, 512, 64) == (512, 512)
    assert bucket_for(5000, 10, 512, 64) == (1024, 256)


def test_without_buckets_everything_is_square():
    assert bucket_for(1920, 1080, 512, 64, buckets=False) == (512, 512)
    assert bucket_for(9, 16, 520, 64, buckets=False) == (512, 512)


def test_a_resolution_below_one_step_is_refused():
    with pytest.raises(ValueError):
        square(32, 64)


def test_enlargement_is_by_the_side_that_lacks_most():
    assert enlargement(256, 512, (512, 512)) == 2
    assert enlargement(1024, 2048, (512, 512)) == 0.5
