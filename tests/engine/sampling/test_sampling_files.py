"""A picture's file says how it was made, in both texts, and nothing is lost on the way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from engine.config import AdapterUse, Model
from engine.formats.pictures import UsedAdapter
from engine.sampling.files import save_picture
from engine.sampling.sampler import Request

REQUEST = Request("a cat, 'sitting'\nin rain", "blurry", 2**63 - 1, 64, 96, 5, 7.5)


@pytest.fixture
def saved(tmp_path, family):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8))
    path = tmp_path / "new" / "folder" / "a.png"
    used = [UsedAdapter("cat", 0.6, "ab" * 32)]
    save_picture(
        path, image, REQUEST, family, Model(base="tiny", clip_skip=2), [AdapterUse("/cat.safetensors", 0.6)], used
    )
    return image, Image.open(path)


def test_the_pixels_are_kept(saved):
    image, read = saved
    assert read.format == "PNG" and np.array_equal(np.asarray(read), np.asarray(image))


def test_the_request_is_kept_whole(saved):
    whole = json.loads(saved[1].text["loratui"])
    assert Request(**whole["picture"]) == REQUEST
    assert whole["model"]["clip_skip"] == 2 and whole["adapters"] == [{"path": "/cat.safetensors", "weight": 0.6}]


def test_the_parameters_are_those_that_web_uis_read(saved):
    text = saved[1].text["parameters"]
    assert text.startswith("a cat, 'sitting'\nin rain")
    for said in (
        "Negative prompt: blurry",
        "Steps: 5",
        "Sampler: DDIM",
        "CFG scale: 7.5",
        "Size: 64x96",
        "Clip skip: 2",
    ):
        assert said in text
    assert f"Seed: {REQUEST.seed}" in text and "<lora:cat:0.6>" in text
