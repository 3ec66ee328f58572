"""Pictures for the tests of the data package."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config.structs import Dataset, Subset


@pytest.fixture
def noise():
    """A picture of noise, [height, width, 3], different for each seed."""

    def make(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))

    return make


@pytest.fixture
def png16():
    """A PNG with 16 bits a sample and any number of channels, which Pillow itself can't write: samples → bytes."""
    colour_types = {1: 0, 2: 4, 3: 2, 4: 6}

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def make(samples: np.ndarray) -> bytes:
        height, width, channels = samples.shape
        header = struct.pack(">IIBBBBB", width, height, 16, colour_types[channels], 0, 0, 0)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + body

    return make


@pytest.fixture
def folder_of(tmp_path, noise):
    """Make a folder with these pictures of noise in it; each name gives another picture."""

    def make(name: str, *names: str, size: tuple[int, int] = (64, 64), **captions: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in names:
            noise(*size, seed=zlib.crc32(f"{name}/{file}".encode())).save(folder / file)
        for stem, caption in captions.items():
            (folder / f"{stem}.txt").write_text(caption)
        return folder

    return make


@pytest.fixture
def request_of():
    """The dataset section of a request, of subsets given as dictionaries."""

    def make(*subsets: dict, **settings) -> Dataset:
        made = [Subset(**{**subset, "path": str(subset["path"])}) for subset in subsets]
        return Dataset(subsets=made, **{"hold_out": 0.0, **settings})

    return make
