"""Caption, flip and crop belong to their image, through the whole path from files to what a step looks up."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.config.structs import Dataset, Subset
from engine.data.cache import LatentCache
from engine.data.dataset import build
from engine.data.order import ClassOrder, Order

RED = 25
"""Distance of two images' red."""


def telltale(number: int, width: int, height: int) -> Image.Image:
    """A picture that says who it is and which way it lies: red is its number, green grows rightward, blue downward."""
    y, x = np.mgrid[:height, :width]
    planes = (np.full((height, width), number * RED), x * 255 / (width - 1), y * 255 / (height - 1))
    return Image.fromarray(np.stack(planes, axis=-1).round().astype(np.uint8))


def identity(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return pixels, torch.zeros_like(pixels)


def assert_belongs(latent: np.ndarray, pick) -> None:
    """The picture that a step looks up is the one that the pick's caption speaks of, flipped and cropped as it says."""
    red, green, blue = (latent + 1) * 127.5
    number = round(red.mean() / RED)
    assert pick.item.path.stem == str(number)
    assert pick.caption in (f"number {number}", "")
    assert latent.shape == (3, pick.bucket[1], pick.bucket[0])
    assert (green[:, 0] > green[:, -1]).all() == pick.flip
    assert (blue[0] < blue[-1]).all()
    item, (width, height), (u, v) = pick.item, pick.bucket, pick.item.crop(pick.crop_index, pick.bucket, seed=5)
    scale = max(width / item.width, height / item.height)
    room_x, room_y = 1 - width / scale / item.width, 1 - height / scale / item.height
    assert green.mean() / 255 == pytest.approx(u * room_x + (1 - room_x) / 2, abs=0.02)
    assert blue.mean() / 255 == pytest.approx(v * room_y + (1 - room_y) / 2, abs=0.02)


subsets = st.fixed_dictionaries(
    {
        "flip": st.booleans(),
        "crops": st.integers(1, 3),
        "repeats": st.integers(1, 3),
        "caption_dropout": st.sampled_from([0.0, 0.3]),
    }
)
sizes = st.tuples(st.integers(64, 130), st.integers(64, 130))


@settings(max_examples=20, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=9), st.permutations(range(9)), subsets, subsets, st.integers(1, 4))
def test_caption_flip_and_crop_belong_to_their_image(sizes, numbers, instance, classes, batch):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number, (width, height) in zip(numbers, sizes, strict=False):
            folder = root / ("class" if number % 4 == 3 else "cats")
            folder.mkdir(exist_ok=True)
            telltale(number, width, height).save(folder / f"{number}.png")
            (folder / f"{number}.txt").write_text(f"number {number}")
        if not (root / "cats").exists():
            (root / "class").rename(root / "cats")
        wanted = [Subset(path="cats", **instance)]
        if (root / "class").exists():
            wanted.append(Subset(path="class", is_reg=True, **classes))
        dataset = build(Dataset(subsets=wanted), root=root, resolution=64, step=8, seed=5)
        order = Order(dataset.items, batch, seed=5)
        beside = ClassOrder(dataset.class_items, batch, seed=5) if dataset.class_items else None
        variants = order.variants() + (beside.variants(order.buckets) if beside else [])
        latents = LatentCache(root / "cache", "identity", (0, 0, 0)).ensure(variants, identity)
        for k in range(6):
            picks = order[k]
            picks = picks + beside.at(k, picks[0].bucket) if beside else picks
            mean, _ = latents.lookup([pick.variant for pick in picks])
            for latent, pick in zip(mean.numpy(), picks, strict=True):
                assert_belongs(latent, pick)


def test_a_run_before_its_first_step_needs_no_torch():
    code = (
        "import sys; import engine.data.dataset, engine.data.order, engine.data.plan, engine.data.check;"
        "print('torch' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert printed == "False\n"
