"""What the pictures of `tiny` show and what their captions say: emoji, sizes, places and flat colours, drawn by chance.

A scene is a pure function of a `random.Random`, and its picture one of the scene; so any training step can be drawn
again. More than half of the scenes name neither size nor place: then one emoji fills the frame. What a caption says of
a colour, a size or a place always holds in its picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image

from engine import tiny
from engine.tiny.drawings import Emoji

FRAME = tiny.RESOLUTION
SIZES = {"small": 32, "large": 84}
"""Size word → side of a drawing alone in the middle, in pixels; a large one is cut off by the frame."""
PLACED, SMALL_PLACED, PAIRED = 40, 28, 30
"""Sides of a drawing at a place, of one called small there, and of each of two."""
MARGIN = 2
PLACES: dict[str, tuple[float, float]] = {
    "left": (0.0, 0.5),
    "right": (1.0, 0.5),
    "top": (0.5, 0.0),
    "bottom": (0.5, 1.0),
    "top left": (0.0, 0.0),
    "top right": (1.0, 0.0),
    "bottom left": (0.0, 1.0),
    "bottom right": (1.0, 1.0),
}
"""Place → the share of the free room left of the drawing, and above it."""

KINDS = {"plain": 0.60, "sized": 0.10, "placed": 0.18, "pair": 0.12}
"""Kind of scene → how often it is drawn."""
FORMS = {
    tiny.CAPTIONS[0]: 0.62,
    tiny.CAPTIONS[1]: 0.10,
    tiny.CAPTIONS[2]: 0.08,
    "a {colour} background with a {name}": 0.05,
    "{colour} background, {name}": 0.04,
    "a picture of a {name} on {colour}": 0.04,
    "{name} on {colour}": 0.04,
    "a {colour} picture with a {name}": 0.03,
}
"""Form of a caption → how often it is used. `{name}` takes what is shown, size and place included."""
COMPOSED = {"plain": 0.56, "sized": 0.06, "placed": 0.18, "pair": 0.20}
"""The same as KINDS where more is to be learned of what is composed."""
FREELY = 0.4
"""How often the words around what a caption says are by chance, where other wordings are learned."""
FILLERS = (  # noqa: SIM905
    "the this that here now is are was we you they have has show shows shown made drawn painted seen with of and by "
    "for from as so just only very quite some any simple plain nice bright soft image photo drawing sketch view kind "
    "colour color area around near under over against before within"
).split()
"""Words that say nothing of what is shown, and are no emoji's name."""
UNKNOWN_WORD = 0.2
"""How often a filler is letters by chance."""


@dataclass(frozen=True)
class Figure:
    """One drawing in a picture: its side and the place of its corner, in pixels."""

    name: str
    side: int = FRAME
    left: int = 0
    top: int = 0


@dataclass(frozen=True)
class Scene:
    """A picture in words: what it shows, over which of tiny.COLOURS."""

    figures: tuple[Figure, ...]
    colour: str
    caption: str
    kind: str


def draw(names: Sequence[str], chance: Random, kinds: Mapping[str, float] | None = None, freely: float = 0.0) -> Scene:
    """A scene of these emoji. kinds: other shares than KINDS. freely: how often the words around it are by chance."""
    kind = pick(kinds or KINDS, chance)
    colour = chance.choice(list(tiny.COLOURS))
    figures, said = _SHOWN[kind](names, chance)
    if chance.random() < freely:
        return Scene(figures, colour, worded(said, colour, chance), kind)
    return Scene(figures, colour, caption(said, colour, pick(FORMS, chance)), kind)


def worded(said: str, colour: str, chance: Random) -> str:
    """A caption of what is shown with other words around it, or none: only `said` and the colour mean something."""

    def fillers(most: int) -> str:
        return " ".join(_filler(chance) for _ in range(chance.randint(0, most)))

    shown = f"{chance.choice(('a', 'a', 'the', 'one', ''))} {said}"
    parts = [shown, f"{chance.choice(('a', 'the', '', ''))} {colour}"]
    chance.shuffle(parts)
    comma = chance.choice((",", "", "", " -"))
    return " ".join(f"{fillers(4)} {parts[0]} {fillers(2)}{comma} {fillers(3)} {parts[1]} {fillers(2)}".split())


def _filler(chance: Random) -> str:
    if chance.random() < UNKNOWN_WORD:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 7)))
    return chance.choice(FILLERS)


def caption(said: str, colour: str, form: str = tiny.CAPTIONS[0]) -> str:
    """A caption of what is shown: `said` begins without an article."""
    return form.format(name=said, colour=colour)


def located(said: str, place: str) -> str:
    """What is shown, and where: "cat at the top left"."""
    return f"{said} {'on' if place in ('left', 'right') else 'at'} the {place}"


def at(name: str, place: str, side: int = PLACED) -> Figure:
    """A drawing at a place."""
    across, down = PLACES[place]
    room = FRAME - 2 * MARGIN - side
    return Figure(name, side, MARGIN + round(across * room), MARGIN + round(down * room))


def centred(name: str, side: int) -> Figure:
    """A drawing in the middle."""
    return Figure(name, side, (FRAME - side) // 2, (FRAME - side) // 2)


def beside(first: str, second: str) -> tuple[Figure, Figure]:
    """Two drawings, the first on the left."""
    return at(first, "left", PAIRED), at(second, "right", PAIRED)


def above(first: str, second: str) -> tuple[Figure, Figure]:
    """Two drawings, the first on top."""
    return at(first, "top", PAIRED), at(second, "bottom", PAIRED)


def pick(weights: Mapping[str, float], chance: Random) -> str:
    """One of the keys, as often as its weight says."""
    return chance.choices(list(weights), list(weights.values()))[0]


Shown = tuple[tuple[Figure, ...], str]


def _plain(names: Sequence[str], chance: Random) -> Shown:
    name = chance.choice(names)
    return (Figure(name),), name


def _sized(names: Sequence[str], chance: Random) -> Shown:
    name, size = chance.choice(names), chance.choice(list(SIZES))
    return (centred(name, SIZES[size]),), f"{size} {name}"


def _placed(names: Sequence[str], chance: Random) -> Shown:
    name, place, small = chance.choice(names), chance.choice(list(PLACES)), chance.random() < 0.35
    what = f"small {name}" if small else name
    said = chance.choices((located(what, place), f"{what}, {place}", f"{what} in the {place}"), (0.7, 0.2, 0.1))[0]
    return (at(name, place, SMALL_PLACED if small else PLACED),), said


def _pair(names: Sequence[str], chance: Random) -> Shown:
    first, second = chance.sample(names, 2)
    if chance.random() < 0.6:
        forms = (f"{first} and a {second}", f"{first} left of a {second}", f"{second} right of a {first}")
        return beside(first, second), chance.choices(forms, (0.6, 0.2, 0.2))[0]
    return above(first, second), chance.choice((f"{first} above a {second}", f"{second} below a {first}"))


_SHOWN = {"plain": _plain, "sized": _sized, "placed": _placed, "pair": _pair}


class Painter:
    """Pictures of scenes from one set of drawings."""

    def __init__(self, emoji: Emoji):
        self.emoji = emoji
        self._numbers = {name: number for number, name in enumerate(emoji.names)}
        self._scaled = lru_cache(maxsize=20_000)(self._scale)

    def paint(self, scene: Scene) -> np.ndarray:
        """The picture: [FRAME, FRAME, 3] uint8."""
        return self.over(scene.figures, tiny.COLOURS[scene.colour])

    def over(self, figures: Sequence[Figure], rgb: tuple[int, int, int]) -> np.ndarray:
        """Drawings over any flat colour: [FRAME, FRAME, 3] uint8."""
        canvas = np.empty((FRAME, FRAME, 3), np.float32)
        canvas[:] = rgb
        for figure in figures:
            paint, glass = self._scaled(figure.name, figure.side)
            left, top = max(figure.left, 0), max(figure.top, 0)
            right, bottom = min(figure.left + figure.side, FRAME), min(figure.top + figure.side, FRAME)
            inside = np.s_[top - figure.top : bottom - figure.top, left - figure.left : right - figure.left]
            canvas[top:bottom, left:right] *= glass[inside]
            canvas[top:bottom, left:right] += paint[inside]
        return (canvas + 0.5).clip(0, 255).astype(np.uint8)

    def mask(self, scene: Scene) -> np.ndarray:
        """How far each pixel is covered by a drawing: [FRAME, FRAME] float32 of 0..1."""
        black = self.over(scene.figures, (0, 0, 0)).astype(np.float32)
        white = self.over(scene.figures, (255, 255, 255)).astype(np.float32)
        return 1 - (white - black).mean(-1) / 255

    def _scale(self, name: str, side: int) -> tuple[np.ndarray, np.ndarray]:
        """A drawing at a size: its colours times their opacity, and its transparency."""
        drawing = self.emoji.drawings[self._numbers[name]].astype(np.float32)
        alpha = drawing[..., 3] / 255
        planes = [drawing[..., channel] * alpha for channel in range(3)] + [alpha]
        if side != FRAME:
            planes = [
                _resized(plane, side).clip(0, high) for plane, high in zip(planes, (255, 255, 255, 1), strict=True)
            ]
        return np.stack(planes[:3], -1), 1 - planes[3][..., None]


def _resized(plane: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC, reducing_gap=None))
