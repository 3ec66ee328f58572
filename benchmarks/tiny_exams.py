"""What a base of the `tiny` kind is asked to draw, and when a picture counts as right.

Every exam is a list of questions: a prompt, the composition that it asks for, and the compositions that it could be
taken for. The ruler is the one of all benchmarks on `tiny`. A drawing that does not fill the frame is cut out where it
should be, enlarged, and ranked like any other. No prompt comes from chance beyond a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from benchmarks.ruler import Ruler, background, pixels, pooled, rms
from benchmarks.shots import SEEDS, Shot
from engine import tiny
from engine.tiny import scenes
from engine.tiny.scenes import Figure

KNOWN, FIRST, PLACES, SIZES, PAIRS, FREE = "known", "first 446", "places", "sizes", "two", "free wording"
CAPTIONS_KNOWN = 200
FREE_FORMS = (
    "there is a {name}, and behind it everything is {colour}",
    "{colour} wall, one {name}",
    "we look at a {name} in front of a {colour} wall",
    "a {name} printed on {colour} paper",
)
"""Wordings that no training has used."""
PAIR_FORMS = ("{0} and a {1}", "{0} left of a {1}", "{1} right of a {0}", "{0} above a {1}", "{1} below a {0}")
FRAMED = scenes.FRAME


@dataclass(frozen=True)
class Question(Shot):
    """A prompt, and what its picture should show. `name` is the first emoji's."""

    figures: tuple[Figure, ...] = ()
    others: tuple[tuple[Figure, ...], ...] = ()
    """What the composition could be taken for."""


@dataclass(frozen=True)
class Marks:
    """How one picture did."""

    ranks: tuple[int, ...]
    """Of each emoji, among all of them or, of two, among the learned; none where it is not to be seen whole."""
    colour: bool | None
    """None where what was asked for hides the background, as a flag does."""
    composed: bool
    """Nearer to its own composition than to any other that it could be taken for."""


def exams(learned: Sequence[str], first: Sequence[str], share: float = 1.0) -> dict[str, list[Question]]:
    """Exam → its questions. share: of the usual number, evenly taken."""
    count = round(CAPTIONS_KNOWN * share)
    few = round(96 * share)
    return {
        KNOWN: [ask for seed in SEEDS for ask in _plain(learned, count, "known", seed)],
        FIRST: [ask for seed in SEEDS for ask in _plain(first, count, "first", seed)],
        PLACES: _placed(learned, few),
        SIZES: _sized(learned, few),
        PAIRS: _paired(learned, few),
        FREE: _plain(learned, few, "free", SEEDS[0], FREE_FORMS),
    }


def pick(names: Sequence[str], count: int, what: str) -> list[tuple[str, str]]:
    """Names spread over all that there are, each with a colour; all colours are equally frequent."""
    chance = Random(f"exam {what}")
    start, step = chance.random(), len(names) / count
    spread = [names[int((start + place) * step) % len(names)] for place in range(count)]
    colours = [list(tiny.COLOURS)[place % len(tiny.COLOURS)] for place in range(count)]
    chance.shuffle(colours)
    return list(zip(spread, colours, strict=True))


def _plain(
    names: Sequence[str], count: int, what: str, seed: int, forms: Sequence[str] = tiny.CAPTIONS[:1]
) -> list[Question]:
    return [
        Question(name, colour, forms[place % len(forms)].format(name=name, colour=colour), seed, (Figure(name),))
        for place, (name, colour) in enumerate(pick(names, count, what))
    ]


def _placed(names: Sequence[str], count: int) -> list[Question]:
    questions = []
    for number, (name, colour) in enumerate(pick(names, count, "places")):
        place, small = list(scenes.PLACES)[number % len(scenes.PLACES)], number // len(scenes.PLACES) % 2
        side = scenes.SMALL_PLACED if small else scenes.PLACED
        prompt = scenes.caption(scenes.located(f"small {name}" if small else name, place), colour)
        others = tuple((scenes.at(name, other, side),) for other in scenes.PLACES if other != place)
        questions.append(Question(name, colour, prompt, SEEDS[0], (scenes.at(name, place, side),), others))
    return questions


def _sized(names: Sequence[str], count: int) -> list[Question]:
    questions = []
    for number, (name, colour) in enumerate(pick(names, count, "sizes")):
        sizes = {"": FRAMED, **scenes.SIZES}
        word = list(sizes)[number % len(sizes)]
        prompt = scenes.caption(f"{word} {name}".strip(), colour)
        others = tuple((scenes.centred(name, side),) for other, side in sizes.items() if other != word)
        questions.append(Question(name, colour, prompt, SEEDS[0], (scenes.centred(name, sizes[word]),), others))
    return questions


def _paired(names: Sequence[str], count: int) -> list[Question]:
    questions = []
    pairs = zip(pick(names, count, "first of two"), pick(names, count, "second of two")[::-1], strict=True)
    for number, ((first, colour), (second, _)) in enumerate(pairs):
        form = PAIR_FORMS[number % len(PAIR_FORMS)]
        lay = scenes.above if "above" in form or "below" in form else scenes.beside
        prompt = scenes.caption(form.format(first, second), colour)
        questions.append(Question(first, colour, prompt, SEEDS[0], lay(first, second), (lay(second, first),)))
    return questions


class Judge:
    """Holds pictures against what was asked for."""

    def __init__(self, ruler: Ruler, painter: scenes.Painter, learned: Sequence[str]):
        self._ruler, self._painter = ruler, painter
        known = set(learned)
        self._learned = np.array([name in known for name in ruler.names])

    def truth(self, question: Question) -> Image.Image:
        """The picture that was asked for."""
        return Image.fromarray(self._painter.over(question.figures, tiny.COLOURS[question.colour]))

    def mark(self, question: Question, image: Image.Image) -> Marks:
        """How a picture answers a question."""
        among = self._learned if len(question.figures) > 1 else np.ones_like(self._learned)
        whole = [figure for figure in question.figures if figure.side <= FRAMED]
        return Marks(
            ranks=tuple(self._rank(figure, question.colour, image, among) for figure in whole),
            colour=background(image) == question.colour if self._shows_colour(question) else None,
            composed=self._composed(question, image),
        )

    def _shows_colour(self, question: Question) -> bool:
        return background(self.truth(question)) == question.colour

    def _rank(self, figure: Figure, colour: str, image: Image.Image, among: np.ndarray) -> int:
        if figure.side < FRAMED:
            box = (figure.left, figure.top, figure.left + figure.side, figure.top + figure.side)
            image = image.resize((FRAMED, FRAMED), Image.Resampling.BICUBIC, box=box)
        distances = self._ruler.distances(image, colour)
        own = distances[self._ruler.names.index(figure.name)]
        return int((distances[among] < own).sum()) + 1

    def _composed(self, question: Question, image: Image.Image) -> bool:
        rgb = tiny.COLOURS[question.colour]
        laid = [self._painter.over(figures, rgb) for figures in (question.figures, *question.others)]
        references = np.stack([pooled(picture.astype(np.float32)) for picture in laid])
        return int(rms(references - pooled(pixels(image))).argmin()) == 0
