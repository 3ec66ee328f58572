"""What a picture shows, in the words that `tiny` knows: the captions that the small scorer finds nearest.

Thousands of names times ten colours times places are too many captions to try, so one word is found after the other:
names by themselves, colour, size and place of the nearest name, and then the likeliest names again with all of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine import tiny
from engine.tiny import scenes
from engine.tiny.scorer import Scorer

LIKELY = 32
"""Names that are tried again with all other words."""
WAYS: dict[str, Callable[[str], str]] = {
    "": str,
    **{size: f"{size} {{}}".format for size in scenes.SIZES},
    **{place: partial(scenes.located, place=place) for place in scenes.PLACES},
    **{f"small, {place}": lambda name, place=place: scenes.located(f"small {name}", place) for place in scenes.PLACES},
}
"""Sizes and places → how each is said of a name; first neither."""


@dataclass(frozen=True)
class Tag:
    """A word and the cosine of the picture and a caption that has it."""

    text: str
    score: float


@dataclass(frozen=True)
class Tags:
    """What one picture shows. `place` is of size and place, and empty where neither is worth saying."""

    caption: str
    names: tuple[Tag, ...]
    colour: Tag
    place: Tag


class Tagger:
    """Finds tags for pictures, and remembers the captions that it has tried."""

    def __init__(self, scorer: Scorer):
        self._scorer = scorer
        self._vectors: dict[str, Tensor] = {}
        self._names = scorer.text(scorer.names)

    def tags(self, pixels: Tensor, top: int = 5) -> list[Tags]:
        """The `top` nearest names of each picture, and the words around them. pixels: [n, 3, 64, 64] in -1..1."""
        return [self._tags(vector, top) for vector in self._scorer.images(pixels)]

    def _tags(self, picture: Tensor, top: int) -> Tags:
        count = min(max(top, LIKELY), len(self._names))
        likely = [self._scorer.names[place] for place in (self._names @ picture).topk(count).indices]
        first = likely[0]
        colour = self._scored(picture, {colour: scenes.caption(first, colour) for colour in tiny.COLOURS})[0]
        ways = {words: scenes.caption(said(first), colour.text) for words, said in WAYS.items()}
        place = self._scored(picture, ways)[0]
        captions = {name: scenes.caption(WAYS[place.text](name), colour.text) for name in likely}
        names = self._scored(picture, captions)
        return Tags(captions[names[0].text], tuple(names[:top]), colour, place)

    def _scored(self, picture: Tensor, captions: dict[str, str]) -> list[Tag]:
        """What each of the captions stands for, best first."""
        scores = self._embedded(list(captions.values())) @ picture
        tags = [Tag(text, round(float(score), 4)) for text, score in zip(captions, scores, strict=True)]
        return sorted(tags, key=lambda tag: -tag.score)

    def _embedded(self, captions: Sequence[str]) -> Tensor:
        missing = [caption for caption in captions if caption not in self._vectors]
        if missing:
            self._vectors |= zip(missing, self._scorer.text(missing), strict=True)
        return torch.stack([self._vectors[caption] for caption in captions])
