"""The ruler of the benchmarks on `tiny`: which of all emoji a picture shows, and on which background.

A picture is compared with every emoji composited on the *requested* colour, all pooled to 16×16 RGB, by L2 distance.
Nothing in it is learned or tuned, and nothing may be: results are only comparable while it stays as it is. The drawings
are those that `tiny` was trained on, the npm package emoji-datasource-twitter 16.0.0, and do not come with the project.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from engine import tiny
from engine.tiny.drawings import Emoji, pooled


class Ruler:
    """Distances between pictures and emoji."""

    def __init__(self, emoji: Emoji):
        self.names = emoji.names
        self._places = {name: place for place, name in enumerate(emoji.names)}
        self._on = lru_cache(maxsize=None)(emoji.pooled_on)

    def distances(self, image: Image.Image, colour: str) -> np.ndarray:
        """Root mean square differences, in levels of 0..255, between `image` and every emoji on `colour`: [n]."""
        return rms(self._on(colour) - pooled(pixels(image)))

    def rank(self, image: Image.Image, name: str, colour: str) -> int:
        """1 if no emoji is nearer to `image` than the named one, 2 if one is, and so on."""
        distances = self.distances(image, colour)
        return int((distances < distances[self._places[name]]).sum()) + 1


def background(image: Image.Image) -> str:
    """The colour of tiny.COLOURS nearest to the median of the outermost ring of pixels."""
    levels = pixels(image)
    ring = np.concatenate([levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1]])
    colours = np.array(list(tiny.COLOURS.values()), np.float32)
    return list(tiny.COLOURS)[int(rms(colours - np.median(ring, axis=0)).argmin())]


def moved(before: Image.Image, after: Image.Image) -> float:
    """How far apart two pictures are for the ruler: root mean square of the pooled difference, in levels of 0..255."""
    return float(rms(pooled(pixels(before)) - pooled(pixels(after))[None])[0])


def pixels(image: Image.Image) -> np.ndarray:
    """RGB levels of 0..255, [h, w, 3] float32."""
    return np.asarray(image.convert("RGB"), np.float32)


def rms(differences: np.ndarray) -> np.ndarray:
    """Root mean square over all axes but the first."""
    return np.sqrt(np.square(differences).reshape(len(differences), -1).mean(1))
