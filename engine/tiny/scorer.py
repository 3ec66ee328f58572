"""The small image-text scorer: how well captions go with pictures, by cosine of two embeddings of 128 dimensions.

It is the contrastive pair that the text encoder of `tiny` was learned with, kept: `scorer/text_encoder`,
`scorer/image_encoder.safetensors` and `scorer/image_encoder.json`, its shape. Captions are tokenised as the base's;
`scorer/names.txt` has the names that both towers have learned.
The tower is fed coordinates beside colours: its end is a mean over places, and captions speak of places.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from engine import tiny
from engine.errors import Problem, UserError
from engine.formats.weights import open_weights
from engine.models.base import freeze
from engine.models.build import build
from engine.models.folder import open_component
from engine.models.tokenizer import folder_tokenizer

FOLDER = tiny.FOLDER.with_name("scorer")
DIMENSIONS = 128
BATCH = 256
"""Captions, or pictures, that go through a tower together."""


class Block(nn.Module):
    """Two convolutions beside a pooled shortcut; halves the sides."""

    def __init__(self, given: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, width)
        self.shortcut = nn.Conv2d(given, width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.silu(self.norm1(self.conv1(hidden)))))
        return F.silu(residual + self.shortcut(F.avg_pool2d(hidden, 2)))


class Tower(nn.Module):
    """Pictures to embeddings: a strided stem, a residual block a width, a mean over places, a projection.

    Half a million parameters; 25 million operations for a picture of 64×64.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128), dimensions: int = DIMENSIONS):
        super().__init__()
        self.stem = nn.Conv2d(5, widths[0], 3, stride=2, padding=1)
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nn.Sequential(*(Block(given, width) for given, width in pairs))
        self.projection = nn.Linear(widths[-1], dimensions)

    def encode(self, pixels: Tensor) -> Tensor:
        """[n, 3, h, w] in -1..1, h and w multiples of 32 → [n, dimensions], not normalised."""
        count, _, height, width = pixels.shape
        down, across = (
            torch.linspace(-1, 1, side, device=pixels.device, dtype=pixels.dtype) for side in (height, width)
        )
        places = torch.stack([down[:, None].expand(height, width), across[None].expand(height, width)])
        hidden = F.silu(self.stem(torch.cat([pixels, places.expand(count, -1, -1, -1)], 1)))
        return self.projection(self.blocks(hidden).mean((2, 3)))

    forward = encode


class Scorer:
    """Both towers, on the CPU: what they make of captions and pictures are unit vectors, to be multiplied."""

    def __init__(self, tokenizer: Any, text_encoder: nn.Module, tower: Tower, scale: float, names: Sequence[str]):
        self.scale = scale
        """By which cosines become the logits that the pair was trained with."""
        self.names = tuple(names)
        self._tokenizer, self._text_encoder, self._tower = tokenizer, text_encoder, tower

    @classmethod
    def load(cls, folder: Path = FOLDER, tokenizer: Path = tiny.FOLDER / "tokenizer") -> Scorer:
        """Read the scorer in `folder`. Raises UserError where something is missing or does not fit."""
        shape = _shape(folder / "image_encoder.json")
        component = open_component(folder / "text_encoder", "text_encoder_2", "scorer")
        text_encoder = build("text_encoder_2", component, "scorer", torch.float32, "cpu")
        reader = folder_tokenizer(
            tokenizer, component.config["max_position_embeddings"], component.config["vocab_size"]
        )
        tower = _tower(folder / "image_encoder.safetensors", shape)
        return cls(reader, text_encoder, tower, shape["scale"], _names(folder / "names.txt"))

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> Tensor:
        """Captions → unit vectors, [n, dimensions]."""
        # by length: a batch is as wide as its longest, and what follows a caption's end changes nothing
        order = sorted(range(len(captions)), key=lambda place: len(captions[place]))
        vectors = torch.empty(len(captions), self._text_encoder.text_projection.out_features)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            padded = self._tokenizer([captions[place] for place in places], padding="longest", truncation=True)
            hidden = self._text_encoder(torch.tensor(padded.input_ids)).pooler_output
            vectors[places] = F.normalize(self._text_encoder.text_projection(hidden), dim=-1)
        return vectors

    @torch.no_grad()
    def images(self, pictures: Tensor | Sequence[Image.Image]) -> Tensor:
        """Pictures, [n, 3, 64, 64] in -1..1 or Pillow's, which are scaled to that → unit vectors, [n, dimensions]."""
        pixels = pictures if isinstance(pictures, Tensor) else torch.stack([_pixels(one) for one in pictures])
        return torch.cat([F.normalize(self._tower.encode(batch), dim=-1) for batch in pixels.split(BATCH)])


def _pixels(picture: Image.Image) -> Tensor:
    side = tiny.RESOLUTION
    scaled = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(scaled, np.float32) / 127.5 - 1).permute(2, 0, 1)


def _tower(file: Path, shape: dict[str, Any]) -> Tower:
    tower = Tower(tuple(shape["widths"]), shape["dimensions"])
    try:
        tower.load_state_dict({name: tensor.float() for name, tensor in open_weights(file).load()})
    except RuntimeError as error:
        raise _unlike(file, " ".join(str(error).split())[:200]) from None
    return freeze(tower)


def _shape(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_bytes())
        numbers = [said["scale"], said["dimensions"], *said["widths"]]
        if not all(isinstance(number, (int, float)) and 0 < number < 1e4 for number in numbers):
            raise ValueError(f"{said}")
    except FileNotFoundError:
        raise _unlike(file, "no such file") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unlike(file, f"{type(error).__name__}: {error}") from None
    return said


def _names(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise _unlike(file, f"{type(error).__name__}: {error}") from None


def _unlike(file: Path, found: str) -> UserError:
    return UserError(
        Problem(
            where=str(file),
            expected="a part of the image-text scorer",
            found=found,
            advice="install loratui again, or make the scorer with `python -m engine.tiny`",
        )
    )
