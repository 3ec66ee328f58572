from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.items import Item
from engine.data.order import ClassOrder, Order, batches_per_epoch, for_rank

BUCKETS = [(64, 64), (72, 56), (56, 72)]


def item(number, bucket=(64, 64), **settings):
    return Item(Path(f"{number}.png"), f"sha{number}", 90, 60, bucket, f"caption {number}", ".txt", **settings)


@st.composite
def datasets(draw):
    shapes = st.tuples(st.sampled_from(BUCKETS), st.integers(1, 4), st.booleans(), st.integers(1, 3))
    return [
        item(i, bucket, repeats=repeats, flip=flip, crops=crops, caption_dropout=0.3)
        for i, (bucket, repeats, flip, crops) in enumerate(draw(st.lists(shapes, min_size=1, max_size=12)))
    ]


def epoch(order, number):
    per_epoch = order.batches_per_epoch
    return [order[k] for k in range(number * per_epoch, (number + 1) * per_epoch)]


@given(datasets(), st.integers(1, 5), st.integers(0, 99), st.integers(0, 3))
def test_an_epoch_shows_every_image_as_often_as_it_repeats_and_fills_up_within_its_bucket(items, batch, seed, number):
    order = Order(items, batch, seed)
    batches = epoch(order, number)
    for picks in batches:
        assert len(picks) == batch
        assert len({pick.bucket for pick in picks}) == 1
    seen = Counter(pick.item for picks in batches for pick in picks)
    for one in items:
        assert seen[one] >= one.repeats
    for bucket in {one.bucket for one in items}:
        wanted = sum(one.repeats for one in items if one.bucket == bucket)
        shown = sum(count for one, count in seen.items() if one.bucket == bucket)
        assert wanted <= shown < wanted + batch
        if wanted >= batch:  # the order is begun anew at most once, so no image comes more than twice its repeats
            assert all(seen[one] <= 2 * one.repeats for one in items if one.bucket == bucket)
    assert len(batches) == batches_per_epoch(items, batch)


@given(datasets(), st.integers(1, 5), st.lists(st.integers(0, 200), max_size=6))
def test_a_micro_batch_does_not_depend_on_what_was_asked_before(items, batch, asked):
    walked, jumped = Order(items, batch, 7), Order(items, batch, 7)
    stream = [walked[k] for k in range(max(asked, default=0) + 1)]
    assert [jumped[k] for k in asked] == [stream[k] for k in asked]


@given(datasets(), st.integers(1, 4), st.integers(0, 50))
def test_every_pick_carries_what_belongs_to_its_own_image(items, batch, k):
    for pick in Order(items, batch, 3)[k]:
        one = pick.item
        assert pick.caption in (one.caption, "")
        assert (pick.variant.path, pick.variant.sha256) == (one.path, one.sha256)
        assert pick.variant.flip == pick.flip and pick.flip <= one.flip
        assert pick.variant.crop == one.crop(pick.crop_index, pick.bucket, 3)
        assert pick.variant.bucket == pick.bucket == one.bucket
        assert 0 <= pick.crop_index < one.crops


def test_epochs_and_seeds_have_orders_of_their_own():
    items = [item(i) for i in range(12)]
    order = Order(items, 3, 1)
    sequences = [[pick.item for picks in epoch(order, number) for pick in picks] for number in range(3)]
    sequences.append([pick.item for picks in epoch(Order(items, 3, 2), 0) for pick in picks])
    assert len({tuple(one.path for one in sequence) for sequence in sequences}) == 4


def test_batches_of_different_buckets_are_mixed():
    order = Order([item(i, BUCKETS[i % 3]) for i in range(60)], 2, 1)
    buckets = [picks[0].bucket for picks in epoch(order, 0)]
    changes = sum(a != b for a, b in pairwise(buckets))
    assert changes > 10  # 2 if they came one bucket after another, 20 on average


def test_flips_crops_and_dropped_captions_come_as_often_as_asked():
    order = Order([item(i, flip=True, crops=4, caption_dropout=0.2) for i in range(10)], 10, 5)
    picks = [pick for k in range(400) for pick in order[k]]
    assert abs(sum(pick.flip for pick in picks) - 2000) < 130
    assert abs(sum(pick.caption == "" for pick in picks) - 800) < 105
    crops = Counter(pick.crop_index for pick in picks)
    assert all(abs(crops[i] - 1000) < 115 for i in range(4))


def test_nothing_is_flipped_cropped_or_dropped_unasked():
    order = Order([item(i) for i in range(10)], 5, 5)
    for k in range(50):
        for pick in order[k]:
            assert (pick.flip, pick.crop_index, pick.variant.crop) == (False, 0, (0.5, 0.5))
            assert pick.caption == pick.item.caption


@given(datasets(), st.integers(1, 4))
def test_the_variants_are_all_that_the_stream_asks_for(items, batch):
    order = Order(items, batch, 9)
    variants = order.variants()
    assert len(set(variants)) == len(variants)
    assert {pick.variant for k in range(60) for pick in order[k]} <= set(variants)


def test_a_long_stream_asks_for_every_variant():
    items = [item(0, flip=True, crops=2), item(1)]
    order = Order(items, 2, 9)
    assert {pick.variant for k in range(100) for pick in order[k]} == set(order.variants())
    assert len(order.variants()) == 5


@given(datasets(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 30))
def test_ranks_together_train_on_what_one_process_would(items, share, world, k):
    whole = Order(items, share * world, 1)[k]
    parts = [for_rank(Order(items, share * world, 1)[k], rank, world) for rank in range(world)]
    assert [pick for part in parts for pick in part] == whole
    assert {len(part) for part in parts} == {share}


def test_a_global_batch_that_cannot_be_parted_is_refused():
    with pytest.raises(ValueError):
        for_rank([1, 2, 3], 0, 2)


def test_class_images_take_the_bucket_they_are_asked_for_and_come_equally_often():
    items = [item(i, flip=True) for i in range(6)] + [item(6, repeats=2)]
    order = ClassOrder(items, 4, 3)
    picks = [pick for k in range(20) for pick in order.at(k, BUCKETS[k % 3])]
    assert Counter(pick.item.path.stem for pick in picks) == {**{str(i): 10 for i in range(6)}, "6": 20}
    for i, pick in enumerate(picks):
        assert pick.bucket == pick.variant.bucket == BUCKETS[i // 4 % 3]
        assert pick.caption == pick.item.caption
    assert {pick.variant for pick in picks} <= set(order.variants(BUCKETS))
    assert len(order.variants(BUCKETS)) == 6 * 3 * 2 + 3


@given(st.lists(st.integers(0, 200), min_size=1, max_size=6))
def test_class_images_too_do_not_depend_on_what_was_asked_before(asked):
    items = [item(i) for i in range(5)]
    fresh = [ClassOrder(items, 3, 1).at(k, (64, 64)) for k in asked]
    order = ClassOrder(items, 3, 1)
    assert [order.at(k, (64, 64)) for k in asked] == fresh


def test_instance_and_class_draws_are_independent():
    items = [item(i, flip=True) for i in range(8)]
    order, classes = Order(items, 8, 1), ClassOrder(items, 8, 1)
    flips = [(a.flip, b.flip) for k in range(40) for a, b in zip(order[k], classes.at(k, (64, 64)), strict=True)]
    assert abs(sum(a == b for a, b in flips) - 160) < 36


def test_the_stream_is_the_recorded_one():
    """Fails when a change would make killed runs resume with other images than they would have seen."""
    items = [item(i, BUCKETS[i % 2], flip=True, crops=2, caption_dropout=0.3) for i in range(5)]
    order = Order(items, 2, 42)
    seen = [
        [(pick.item.path.stem, pick.flip, pick.crop_index, pick.caption != "") for pick in order[k]] for k in range(4)
    ]
    assert seen == [
        [("2", True, 0, True), ("0", True, 0, True)],
        [("4", False, 1, False), ("2", False, 1, True)],
        [("1", False, 1, True), ("3", True, 0, False)],
        [("4", True, 1, False), ("0", True, 0, True)],
    ]
    assert items[0].crop(1, (64, 64), 42) == (0.47482715023548616, 0.5)


@pytest.mark.parametrize("kind", [Order, ClassOrder])
def test_an_order_of_nothing_is_refused(kind):
    with pytest.raises(ValueError):
        kind([], 1, 0)
