from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.items import Item
from engine.data.order import Order
from engine.data.plan import make


def items(count, repeats=1, bucket=(64, 64)):
    return [Item(Path(f"{i}"), f"{bucket}{i}", 64, 64, bucket, "", "none", repeats=repeats) for i in range(count)]


def test_the_arithmetic_is_shown_in_one_line():
    plan = make(items(24, 10), batch=4, epochs=25)
    assert plan.describe() == "24 images × 10 repeats = 240 per epoch ÷ batch 4 = 60 steps · 25 epochs = 1,500 steps"
    assert plan.views_per_image == 250


def test_a_length_in_steps_gives_the_epochs():
    plan = make(items(24, 10), batch=4, steps=1000, class_images=200)
    assert plan.epochs == pytest.approx(16.667, abs=1e-3)
    assert plan.describe().endswith("= 60 steps · 16.67 epochs = 1,000 steps, beside 200 class images")


def test_accumulation_and_devices_stand_in_the_line():
    plan = make(items(24, 10), batch=2, accumulate=4, world=2, epochs=2)
    assert plan.describe() == (
        "24 images × 10 repeats = 240 per epoch ÷ batch 2 × 2 devices × 4 accumulated = 15 steps · 2 epochs = 30 steps"
    )


def test_one_of_everything_is_singular():
    plan = make(items(1), batch=1, steps=1)
    assert plan.describe() == "1 image × 1 repeat = 1 per epoch ÷ batch 1 = 1 step · 1 epoch = 1 step"


def test_filled_up_batches_are_counted_and_shown_by_bucket():
    plan = make([*items(5, 2), *items(3, 1, (72, 56))], batch=4, epochs=10)
    assert plan.describe() == (
        "8 images with their repeats = 13 per epoch (3 seen again to fill batches) ÷ batch 4 = 4 steps"
        " · 10 epochs = 40 steps"
    )
    assert plan.bucket_table() == [
        "64×64: 5 images, 3 batches per epoch, 2 places filled up",
        "72×56: 3 images, 1 batch per epoch, 1 place filled up",
    ]


@given(
    st.integers(1, 40), st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9)
)
def test_the_plan_counts_what_the_order_runs(count, repeats, batch, accumulate, world, epochs):
    dataset = [*items(count, repeats), *items(count // 2, 1, (72, 56))]
    plan = make(dataset, batch=batch, accumulate=accumulate, world=world, epochs=epochs)
    order = Order(dataset, batch * world, seed=0)
    assert plan.batches_per_epoch == order.batches_per_epoch == sum(row.batches for row in plan.buckets)
    assert plan.steps == ceil(epochs * order.batches_per_epoch / accumulate)
    assert plan.per_epoch + plan.filled == order.batches_per_epoch * batch * world
    assert plan.views_per_image * len(dataset) == pytest.approx(plan.steps * accumulate * batch * world)
    assert make(dataset, batch=batch, accumulate=accumulate, world=world, steps=plan.steps).epochs >= epochs


@pytest.mark.parametrize("length", [{}, {"steps": 1, "epochs": 1}])
def test_a_plan_needs_one_length(length):
    with pytest.raises(ValueError):
        make(items(1), batch=1, **length)
