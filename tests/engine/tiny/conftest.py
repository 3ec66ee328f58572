"""A few drawings of our own in place of the emoji packages, which do not come with the project."""

from __future__ import annotations

import numpy as np
import pytest

from engine.tiny.drawings import Emoji


@pytest.fixture(scope="session")
def emoji() -> Emoji:
    """Ten blobs that differ in colour and outline."""
    chance = np.random.default_rng(5)
    rows, columns = np.mgrid[:64, :64] - 31.5
    drawings = np.zeros((10, 64, 64, 4), np.uint8)
    for number, drawing in enumerate(drawings):
        inside = np.abs(rows) ** (1 + number / 3) + np.abs(columns) ** 2 < (14 + number) ** (1 + number / 5)
        drawing[inside] = (*chance.integers(0, 256, 3), 255)
    names = tuple(f"blob {letter}" for letter in "abcdefghij")
    return Emoji(names, ("Objects",) * 10, drawings)
