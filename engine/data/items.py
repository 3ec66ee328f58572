"""What belongs to one image of a run, in one record, and which images are held out. Light: neither numpy nor torch.

An `Item` keeps what belongs together, and nothing downstream ever pairs two lists up by position: that is how captions
part from their images. A host plans runs with these records too, so pixels are read in the one place that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine import draws
from engine.data.buckets import Size

if TYPE_CHECKING:
    import numpy as np

    from engine.data.images import Colour

FEWEST_TO_HOLD_OUT = 20
"""Of fewer images none is held back: each is missed more in training than a loss on one or two would tell."""


@dataclass(frozen=True)
class Item:
    """One image of the dataset and how to use it. Width and height are the picture's own, upright, in pixels."""

    path: Path
    sha256: str
    width: int
    height: int
    bucket: Size
    caption: str
    caption_source: str
    repeats: int = 1
    is_reg: bool = False
    flip: bool = False
    crops: int = 1
    caption_dropout: float = 0.0
    subset: int = 0
    """Place in the request's list of subsets."""

    def crop(self, index: int, bucket: Size, seed: int) -> tuple[float, float]:
        """Where the crop with this index lies, as `images.fit` has it: the centre if there is but one, else drawn.

        It is drawn from the content, so that an image keeps its crops when others come or go. A picture scaled to cover
        has room along one side at most; along the other any place is the same, and is called the centre.
        """
        slack = self.width * bucket[1] - self.height * bucket[0]
        if self.crops == 1 or slack == 0:
            return 0.5, 0.5
        place = draws.uniform(seed, "crop", self.sha256, index)
        return (place, 0.5) if slack > 0 else (0.5, place)


@dataclass(frozen=True)
class Variant:
    """One picture exactly as the model sees it: file content, shape, crop and mirroring. The unit of the latent cache.

    Two are equal when their pixels are, wherever the file lies.
    """

    path: Path = field(compare=False)
    sha256: str
    bucket: Size
    crop: tuple[float, float] = (0.5, 0.5)
    flip: bool = False

    def pixels(self, background: Colour) -> np.ndarray:
        """float32 [3, height, width] in -1..1. UserError if the file has changed since it was checked."""
        from engine.data import images

        image = images.load_rgb(self.path, background, self.sha256)
        return images.fit(image, *self.bucket, crop=self.crop, flip=self.flip)


def hold_out(items: Sequence[Item], fraction: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Part the items into those to train on and those to measure the loss on, drawn from the seed.

    Contents are drawn, not files: a copy of a held-out image does not stay behind in training. Both keep their order.
    """
    contents = list(dict.fromkeys(item.sha256 for item in items))
    count = round(len(contents) * fraction)
    if len(items) < FEWEST_TO_HOLD_OUT or count == 0:
        return tuple(items), ()
    drawn = {contents[i] for i in draws.shuffled(len(contents), seed, "hold out")[:count]}
    return (
        tuple(item for item in items if item.sha256 not in drawn),
        tuple(item for item in items if item.sha256 in drawn),
    )
