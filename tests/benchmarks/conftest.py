"""A small emoji package with drawings made up for the tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.tiny.drawings import Emoji

CATEGORIES = {
    "octopus": "Animals & Nature",
    "squid": "Animals & Nature",
    "cat": "Animals & Nature",
    "hot_dog": "Food & Drink",
    "cupcake": "Food & Drink",
    "hammer": "Objects",
    "flag-x": "Flags",
    "flag-y": "Flags",
}
"""From dark to light: the further apart, the less alike."""


@pytest.fixture
def package(tmp_path) -> Path:
    """The package's folder: emoji of random blocks, each lighter than the last; one has no drawing."""
    folder = tmp_path / "package"
    (folder / "img" / "twitter" / "64").mkdir(parents=True)
    random = np.random.default_rng(0)
    entries = [{"short_name": "lost", "category": "Symbols", "image": "lost.png", "has_img_twitter": False}]
    for place, (name, category) in enumerate(CATEGORIES.items()):
        blocks = random.integers(0, 20, (5, 5, 4)) + 30 * place
        blocks[..., 3] = random.integers(180, 256, (5, 5))
        drawing = Image.new("RGBA", (64, 64))
        drawing.paste(Image.fromarray(blocks.astype(np.uint8)).resize((48, 48)), (8, 8))
        drawing.save(folder / "img" / "twitter" / "64" / f"{name}.png")
        entries.append({"short_name": name, "category": category, "image": f"{name}.png", "has_img_twitter": True})
    (folder / "emoji.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def emoji(package) -> Emoji:
    return Emoji.read(package)
