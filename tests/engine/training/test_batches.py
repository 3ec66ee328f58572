"""A row of a batch is one image: its latents, its caption and its noise can't drift apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.data.cache import Latents
from engine.data.items import Item, Variant
from engine.data.order import ClassOrder, Order
from engine.models.base import Framing
from engine.training import batches, chance
from engine.training.batches import VALIDATION_IMAGES, VALIDATION_TIMESTEPS, Batches, validation_batches

CPU = torch.device("cpu")
SHAPE = (4, 8, 8)


def item(number: int, bucket=(64, 64), **options) -> Item:
    return Item(
        path=Path(f"/{number}.png"),
        sha256=f"{number:064x}",
        width=80,
        height=64,
        bucket=bucket,
        caption=f"image {number}",
        caption_source=".txt",
        **options,
    )


ITEMS = [
    item(0, flip=True),
    item(1, flip=True, crops=3),
    item(2, repeats=2, caption_dropout=0.5),
    item(3, bucket=(128, 32)),
    item(4, bucket=(128, 32), flip=True),
]
CLASS_ITEMS = [item(number, is_reg=True) for number in range(10, 14)]


class CaptionsAsStates:
    """In place of an encoder: the captions themselves, once as many cuts are told."""

    def __call__(self, captions, framings):
        assert len(captions) == len(framings)
        return list(captions)


def latents_of(variants) -> Latents:
    """Latents that name their variant: all numbers of its mean are its place in `variants`."""
    mean, rows = {}, {}
    for place, variant in enumerate(variants):
        tensors = mean.setdefault(variant.bucket, [])
        rows[variant] = len(tensors)
        tensors.append(torch.full(SHAPE, float(place)))
    mean = {bucket: torch.stack(tensors) for bucket, tensors in mean.items()}
    return Latents(mean, {bucket: tensor + 0.5 for bucket, tensor in mean.items()}, rows)


@pytest.fixture
def made():
    def make(seed=1, batch=3, accumulate=1, classes=True, offset=0.0):
        order = Order(ITEMS, batch, seed)
        class_order = ClassOrder(CLASS_ITEMS, batch, seed) if classes else None
        variants = batches.variants(order, class_order, [])
        maker = Batches(
            order, class_order, latents_of(variants), CaptionsAsStates(), 1000, seed, accumulate, offset, CPU
        )
        return maker, variants

    return make


def test_every_row_has_the_latents_and_the_caption_of_its_image(made):
    maker, variants = made()
    flips, crops, dropped, buckets = set(), set(), 0, set()
    for step in range(1, 41):
        batch = maker(step, 0)
        captions = batch.conditioning()
        picks = maker.order[step - 1]
        picks += maker.class_order.at(step - 1, picks[0].bucket)
        assert batch.instances == 3 and len(batch.mean) == len(captions) == len(batch.noise.noise) == 6
        for row, pick in enumerate(picks):
            variant = variants[int(batch.mean[row, 0, 0, 0])]
            assert variant == pick.variant and variant.sha256 == pick.item.sha256 and variant.flip == pick.flip
            assert torch.equal(batch.mean[row].unique() + 0.5, batch.std[row].unique())
            assert captions[row] in ((pick.item.caption, "") if pick.item.caption_dropout else (pick.item.caption,))
            assert captions[row] == pick.caption
            assert pick.item.is_reg == (row >= batch.instances)
            flips.add((pick.item.sha256, pick.flip))
            crops.add(variant.crop)
            dropped += captions[row] == ""
        buckets.add(picks[0].bucket)
        assert len({variants[int(mean[0, 0, 0])].bucket for mean in batch.mean}) == 1
    assert len(flips) > 9 and len(crops) >= 3 and dropped > 5 and len(buckets) == 2


@pytest.mark.parametrize(
    ("size", "bucket", "crop", "flip", "corner"),
    [
        ((64, 64), (64, 64), (0.5, 0.5), False, (0, 0)),
        ((80, 64), (64, 64), (0.5, 0.5), False, (8, 0)),
        ((80, 64), (64, 64), (0.25, 0.5), False, (4, 0)),
        ((80, 64), (64, 64), (0.25, 0.5), True, (12, 0)),
        ((640, 1280), (64, 64), (0.5, 1.0), True, (0, 64)),
        ((32, 48), (64, 64), (0.5, 0.0), False, (0, 0)),
    ],
)
def test_a_cut_is_told_in_pixels_of_the_scaled_picture_as_it_is_seen(size, bucket, crop, flip, corner):
    image = replace(item(0), width=size[0], height=size[1])
    seen = Variant(image.path, image.sha256, bucket, crop, flip)
    assert batches.framing(image, seen) == Framing(size, corner, bucket)


def test_the_noise_of_a_row_is_that_of_its_place_in_the_step(made):
    maker, _ = made(accumulate=2, offset=0.05)
    for step, micro in ((1, 0), (1, 1), (4, 1)):
        noise = maker(step, micro).noise
        for stage, rows in (("train", slice(0, 3)), ("prior", slice(3, 6))):
            places = range(3 * micro, 3 * micro + 3)
            exact = chance.draw(1, stage, step, places, SHAPE, 1000, 0.05)
            assert torch.equal(noise.noise[rows], exact.noise)
            assert torch.equal(noise.posterior[rows], exact.posterior)
            assert torch.equal(noise.timesteps[rows], exact.timesteps)


def test_batches_are_the_same_in_any_order_of_asking(made):
    maker, _ = made()
    there = [(step, maker(step, 0)) for step in range(1, 9)]
    other, _ = made()
    for step, batch in reversed(there):
        again = other(step, 0)
        assert torch.equal(batch.mean, again.mean) and torch.equal(batch.noise.noise, again.noise.noise)
        assert batch.conditioning() == again.conditioning()


def test_micro_batches_of_steps_run_through_the_order_without_a_gap(made):
    maker, variants = made(accumulate=2, classes=False)
    seen = []
    for step in range(1, 4):
        for micro in range(2):
            seen.append([variants[int(mean[0, 0, 0])] for mean in maker(step, micro).mean])
    assert seen == [[pick.variant for pick in maker.order[k]] for k in range(6)]


def test_another_seed_gives_other_pictures_and_other_noise(made):
    one, two = made(seed=1)[0], made(seed=2)[0]
    assert [one(step, 0).conditioning() for step in range(1, 9)] != [
        two(step, 0).conditioning() for step in range(1, 9)
    ]
    assert not torch.equal(one(1, 0).noise.noise, two(1, 0).noise.noise)


def test_all_pictures_that_a_run_can_ask_for_are_announced_once(made):
    maker, variants = made()
    assert len(variants) == len(set(variants))
    asked = {variant for step in range(1, 200) for variant in (pick.variant for pick in maker.order[step])}
    assert asked <= set(variants)
    held_out = [item(20), item(0)]
    with_validation = batches.variants(maker.order, maker.class_order, held_out)
    assert {batches.centre(one) for one in held_out} <= set(with_validation)
    assert len(with_validation) == len(variants) + 1


def test_a_validation_looks_at_each_image_at_fixed_timesteps_under_fixed_noise():
    images = ITEMS[:VALIDATION_IMAGES]
    latents = latents_of(dict.fromkeys(batches.centre(one) for one in images))
    one, two = (validation_batches(images, latents, CaptionsAsStates(), 1000, CPU) for _ in range(2))
    assert [batch.noise.timesteps.tolist() for batch in one] == [[125, 375, 625, 875]] * len(images)
    for index, (batch, again) in enumerate(zip(one, two, strict=True)):
        assert torch.equal(batch.noise.noise, again.noise.noise)
        assert batch.conditioning() == [f"image {index}"] * VALIDATION_TIMESTEPS
        assert torch.equal(batch.mean, latents.lookup([batches.centre(images[index])] * VALIDATION_TIMESTEPS)[0])
    assert not torch.equal(one[0].noise.noise, one[1].noise.noise)
