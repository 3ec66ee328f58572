"""The small image-text scorer: how well captions go with pictures, by cosine of two embeddings of 128 dimensions.

It is the contrastive pair that the text encoder of `tiny` was learned with, kept: `scorer/text_encoder`,
`scorer/image_encoder.safetensors` and `scorer/image_encoder.json`, its shape. Captions are tokenised as the base's.
The tower is fed coordinates beside colours: its end is a mean over places, and captions speak of places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIMENSIONS = 128


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
