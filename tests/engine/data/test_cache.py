from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.cache import LatentCache
from engine.data.items import Variant
from engine.errors import UserError

WHITE = (255, 255, 255)


class Encoder:
    """Four channels at a quarter of the size, and a note of what it was called with."""

    def __init__(self):
        self.shapes = []

    def __call__(self, pixels):
        self.shapes.append(tuple(pixels.shape))
        mean = torch.nn.functional.avg_pool2d(pixels, 4)
        mean = torch.cat([mean, mean.mean(1, keepdim=True)], dim=1)
        return mean, mean.abs() / 10 + 0.1


@pytest.fixture
def variants(tmp_path, noise):
    """Five pictures in two buckets, one of them also flipped."""
    made = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        noise(80, 64, seed=i).save(path)
        bucket = (64, 64) if i % 2 else (72, 56)
        made.append(Variant(path, sha256(path.read_bytes()).hexdigest(), bucket))
    return [*made, replace(made[0], flip=True)]


@pytest.fixture
def cache(tmp_path):
    return LatentCache(tmp_path / "cache", "tiny", WHITE)


def test_what_is_missing_is_encoded_one_at_a_time_and_found_by_its_variant(cache, variants):
    encoder = Encoder()
    latents = cache.ensure([*variants, variants[0]], encoder)
    assert encoder.shapes == [(1, 3, 56, 72), (1, 3, 64, 64)] * 2 + [(1, 3, 56, 72)] * 2
    assert len(latents) == 6
    assert latents.mean[72, 56].shape == latents.std[72, 56].shape == (4, 4, 14, 18)
    for variant in variants:
        mean, std = latents.lookup([variant])
        expected_mean, expected_std = Encoder()(torch.from_numpy(variant.pixels(WHITE))[None])
        assert torch.equal(mean, expected_mean) and torch.equal(std, expected_std)


def test_a_lookup_keeps_the_order_asked_and_may_repeat(cache, variants):
    latents = cache.ensure(variants, Encoder())
    asked = [variants[5], variants[0], variants[4], variants[0]]
    mean, std = latents.lookup(asked)
    assert torch.equal(mean, torch.cat([latents.lookup([variant])[0] for variant in asked]))
    assert torch.equal(std, torch.cat([latents.lookup([variant])[1] for variant in asked]))


def test_what_was_never_encoded_or_has_another_bucket_is_not_looked_up(cache, variants):
    latents = cache.ensure(variants[:2], Encoder())
    with pytest.raises(KeyError):
        latents.lookup([variants[2]])
    with pytest.raises(ValueError):
        latents.lookup(variants[:2])


def test_a_second_time_everything_is_read_with_the_same_bits(cache, variants):
    first = cache.ensure(variants, Encoder())
    encoder = Encoder()
    second = LatentCache(cache.folder, "tiny", WHITE).ensure(reversed(variants), encoder)
    assert encoder.shapes == []
    for variant in variants:
        for one, other in zip(first.lookup([variant]), second.lookup([variant]), strict=True):
            assert torch.equal(one, other) and one.dtype == torch.float32


def test_entries_are_one_file_each_in_folders_by_their_first_two_digits(cache, variants):
    cache.ensure(variants, Encoder())
    files = [path for path in cache.folder.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(cache.path(variant) for variant in variants)
    assert all(path.parent.name == path.name[:2] for path in files)


def test_the_key_holds_all_that_the_bits_depend_on_and_no_path(cache):
    variant = Variant(Path("a.png"), "ab" * 32, (64, 64), (0.25, 0.5))
    keys = {
        cache.key(variant),
        cache.key(replace(variant, sha256="cd" * 32)),
        cache.key(replace(variant, bucket=(72, 56))),
        cache.key(replace(variant, crop=(0.25000000000000006, 0.5))),
        cache.key(replace(variant, flip=True)),
        LatentCache(cache.folder, "other", WHITE).key(variant),
        LatentCache(cache.folder, "tiny", (0, 0, 0)).key(variant),
    }
    assert len(keys) == 7
    assert cache.key(variant) == cache.key(replace(variant, path=Path("elsewhere/b.png")))
    assert cache.key(variant) == "2cf6128057116ceae46353aee07973f79e148b7e15cc79170e965060aa5a484f"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def change_a_number(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def take_another_entrys_place(path):
    other = next(file for file in path.parents[1].rglob("*.safetensors") if file != path)
    path.write_bytes(other.read_bytes())


def fill_with_rubbish(path):
    path.write_bytes(b"\xff" * 400)


@pytest.mark.parametrize(
    "damage", [truncate, empty, change_a_number, take_another_entrys_place, fill_with_rubbish], ids=lambda f: f.__name__
)
def test_a_damaged_entry_is_made_again(cache, variants, damage):
    first = cache.ensure(variants, Encoder())
    damage(cache.path(variants[2]))
    encoder = Encoder()
    second = cache.ensure(variants, encoder)
    assert len(encoder.shapes) == 1
    assert torch.equal(first.lookup([variants[2]])[0], second.lookup([variants[2]])[0])
    cache.ensure(variants, encoder)
    assert len(encoder.shapes) == 1


def test_latents_that_are_not_finite_are_refused_and_not_kept(cache, variants):
    def overflow(pixels):
        mean, std = Encoder()(pixels)
        return mean / 0, std

    with pytest.raises(UserError, match="infinity or NaN"):
        cache.ensure(variants, overflow)
    assert not list(cache.folder.rglob("*.safetensors"))


def test_half_precision_from_the_encoder_is_kept_in_float32(cache, variants):
    def half(pixels):
        return tuple(part.half() for part in Encoder()(pixels))

    mean, std = cache.ensure(variants[:1], half).lookup(variants[:1])
    assert mean.dtype == std.dtype == torch.float32


def test_work_that_is_ended_by_its_progress_is_not_lost(cache, variants):
    def stop_after_three(done, total):
        assert total == 6
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.ensure(variants, Encoder(), stop_after_three)
    encoder = Encoder()
    cache.ensure(variants, encoder)
    assert len(encoder.shapes) == 3


def test_a_picture_that_changed_since_it_was_checked_is_not_encoded(cache, variants, noise):
    noise(80, 64, seed=99).save(variants[0].path)
    with pytest.raises(UserError, match="another content"):
        cache.ensure(variants, Encoder())


def test_no_gradient_is_kept_of_the_encoder(cache, variants):
    weight = torch.ones(1, requires_grad=True)

    def encode(pixels):
        mean, std = Encoder()(pixels)
        return mean * weight, std * weight

    assert not cache.ensure(variants, encode).mean[72, 56].requires_grad


def test_latents_move_to_a_device_and_are_looked_up_there(cache, variants):
    latents = cache.ensure(variants, Encoder()).to("meta")
    mean, std = latents.lookup([variants[0], variants[2]])
    assert mean.device.type == std.device.type == "meta" and mean.shape == (2, 4, 14, 18)


def test_the_pixels_of_a_variant_are_those_of_its_file(variants, noise):
    expected = np.asarray(noise(80, 64, seed=1)).transpose(2, 0, 1)[:, :, 8:72] / 127.5 - 1
    assert np.allclose(variants[1].pixels(WHITE), expected, atol=1e-6)
