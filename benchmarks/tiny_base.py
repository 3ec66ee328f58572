"""What a base of the `tiny` kind can draw: names, colours, places, sizes, two at once, other wordings, and how fast.

    python -m benchmarks.tiny_base --emoji emoji-datasource-twitter-16.0.0.tgz
    python -m benchmarks.tiny_base --emoji … --base FOLDER      # other weights, with the same captions

Captions, seeds, sampler and ruler are fixed here and in `tiny_exams`, and the bars with them, so that two sets of
weights are told apart by nothing else.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import mean
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from benchmarks.ruler import Ruler, pixels
from benchmarks.shots import SEEDS, Painter
from benchmarks.tiny_base_report import DECIBEL, RANK, SECONDS, SHARE, Figure, Outcome
from benchmarks.tiny_exams import FIRST, FREE, KNOWN, PAIRS, PLACES, SIZES, Judge, Marks, Question, exams
from engine import protocol
from engine.errors import UserError
from engine.tiny import scenes
from engine.tiny.drawings import Emoji, unreadable
from engine.worker import ALLOCATOR

if TYPE_CHECKING:
    from engine.models.base import Family
    from engine.tiny.scorer import Scorer

QUICK = 0.2
TOP = 5
OTHERS = 64
"""Captions among which the scorer looks for the right one."""
FOLLOWED = (KNOWN, PLACES, PAIRS, FREE)

One = TypeVar("One")
Questions = dict[str, list[Question]]
Pictures = dict[str, list[Image.Image]]
Reading = tuple[str, str, float | None, Callable[[Sequence[Marks]], float], str]


def _share(holds: Callable[[Marks], bool]) -> Callable[[Sequence[Marks]], float]:
    """The share of pictures of which it holds, of those that have an emoji to be ranked."""
    return lambda marks: mean(holds(one) for one in marks if one.ranks)


_TOP1 = _share(lambda marks: max(marks.ranks) == 1)
_TOP5 = _share(lambda marks: max(marks.ranks) <= TOP)
_ANY1 = _share(lambda marks: min(marks.ranks) == 1)


def _colour(marks: Sequence[Marks]) -> float:
    return mean(one.colour for one in marks if one.colour is not None)


def _composed(marks: Sequence[Marks]) -> float:
    return mean(one.composed for one in marks)


READINGS: tuple[Reading, ...] = (
    (KNOWN, "top 1", 0.90, _TOP1, "of all emoji the right one is the nearest"),
    (KNOWN, "top 5", None, _TOP5, "it is among the five nearest"),
    (KNOWN, "colour", None, _colour, "the background is the one asked for, unless the drawing hides it"),
    (FIRST, "top 1", 0.95, _TOP1, "the same for what the first weights knew"),
    (FIRST, "top 5", None, _TOP5, ""),
    (FIRST, "colour", 0.97, _colour, ""),
    (PLACES, "place", None, _composed, "nearest to the drawing at the named one of eight places"),
    (PLACES, "top 1", None, _TOP1, "what is there is the right one of all emoji"),
    (SIZES, "size", None, _composed, "nearest to the drawing of the named size: small, large, or as usual"),
    (PAIRS, "both top 1", None, _TOP1, "each of two emoji is the nearest of all learned, in its place"),
    (PAIRS, "both top 5", None, _TOP5, "each is among the five nearest"),
    (PAIRS, "one top 1", None, _ANY1, "at least one of them is"),
    (PAIRS, "order", None, _composed, "nearer to the two as named than the other way round"),
    (FREE, "top 1", None, _TOP1, "the right emoji in wordings that were in no training"),
    (FREE, "colour", None, _colour, "and the right background"),
)


def measure(judge: Judge, asked: Questions, drawn: Pictures, truths: Pictures) -> list[Figure]:
    """Every figure of the pictures that were drawn, beside that of the pictures that were asked for."""
    found, ideal = (
        {
            exam: [judge.mark(*pair) for pair in zip(questions, images[exam], strict=True)]
            for exam, questions in asked.items()
        }
        for images in (drawn, truths)
    )
    return [
        Figure(exam, what, read(found[exam]), SHARE, meaning, read(ideal[exam]), bar)
        for exam, what, bar, read, meaning in READINGS
    ]


def followed(scorer: Scorer, asked: Questions, drawn: Pictures, truths: Pictures) -> list[Figure]:
    """How well the pictures go with their captions, by the scorer."""
    figures = []
    for exam in FOLLOWED:
        captions = [question.prompt for question in first_of(asked[exam], asked[exam])]
        ranks, best = (retrieved(scorer, captions, first_of(asked[exam], images[exam])) for images in (drawn, truths))
        among = f"the scorer finds the right caption first of {min(OTHERS + 1, len(captions))}"
        figures += [
            Figure("prompt", exam, mean(r == 1 for r in ranks), SHARE, among, mean(r == 1 for r in best)),
            Figure("prompt", f"{exam}: mean rank", mean(ranks), RANK, "", mean(best)),
        ]
    return figures


def first_of(questions: Sequence[Question], ones: Sequence[One]) -> list[One]:
    """Of what belongs to questions, that of the first seed: every caption once."""
    return [one for question, one in zip(questions, ones, strict=True) if question.seed == SEEDS[0]]


def retrieved(scorer: Scorer, captions: Sequence[str], images: Sequence[Image.Image]) -> list[int]:
    """The rank of each picture's own caption, by the scorer, among it and up to OTHERS of the others."""
    likeness = (scorer.images(images) @ scorer.text(captions).T).numpy()
    ranks = []
    for own, scores in enumerate(likeness):
        rest = [place for place in range(len(captions)) if place != own]
        others = Random(f"others {own}").sample(rest, min(OTHERS, len(rest)))
        ranks.append(int((scores[others] > scores[own]).sum()) + 1)
    return ranks


def psnr(family: Family, images: Sequence[Image.Image]) -> float:
    """Mean of the peak signal-to-noise ratios of pictures through the autoencoder, in dB of 8-bit levels."""
    import torch

    from engine.sampling.sampler import to_images

    levels = np.stack([pixels(image) for image in images])
    with torch.no_grad():
        latents, _ = family.encode_images(torch.from_numpy(levels).permute(0, 3, 1, 2) / 127.5 - 1)
        restored = to_images(family.decode_latents(latents))
    errors = [np.square(pixels(one) - level).mean() for one, level in zip(restored, levels, strict=True)]
    return mean(20 * math.log10(255) - 10 * math.log10(max(float(error), 1e-3)) for error in errors)


def draw(painter: Painter, asked: Questions) -> tuple[Pictures, float]:
    """The pictures of all exams, and the seconds that one took."""
    drawn, started = {}, time.monotonic()
    with Progress(console=Console(stderr=True)) as progress:
        for exam, questions in asked.items():
            task = progress.add_task(exam, total=len(questions))
            drawn[exam] = painter.draw(
                questions, progress=lambda done, task=task: progress.update(task, completed=done)
            )
    return drawn, (time.monotonic() - started) / sum(map(len, asked.values()))


def speed_and_loss(family: Family, pictures: Sequence[Image.Image], seconds: float) -> list[Figure]:
    """What the autoencoder loses of pictures, and what drawing one costs."""
    return [
        Figure(
            "autoencoder", "PSNR", psnr(family, pictures), DECIBEL, "of those pictures, through it and back", bar=30.0
        ),
        Figure("speed", "per image", seconds, SECONDS, "25 steps with guidance, in batches; its mean over all exams"),
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--emoji", type=Path, help="folder or .tgz of the npm package emoji-datasource-twitter 16.0.0")
    parser.add_argument("--base", default="tiny", help="`tiny`, or a diffusers folder of the same kind")
    parser.add_argument("--quick", action="store_true", help="a fifth of the captions")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--record", action="store_true", help="keep the table in results-tiny-base.md beside this file")
    return parser.parse_args()


def main() -> int:
    """Print the table. Returns 0 if every bar held, 1 if one did not, 2 for a wrong option."""
    if any(name not in os.environ for name in ALLOCATOR):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.tiny_base", *sys.argv[1:]], ALLOCATOR | os.environ)
    from engine.tiny.scorer import Scorer

    chosen, started = arguments(), time.monotonic()
    try:
        if chosen.emoji is None:
            raise UserError(unreadable("--emoji", "nothing"))
        emoji = Emoji.read(chosen.emoji)
        painter, scorer = Painter(chosen.base), Scorer.load()
    except UserError as error:
        print(error, file=sys.stderr)
        return protocol.REFUSED
    learned = emoji.learned()
    asked = exams(learned, emoji.learned_before(), QUICK if chosen.quick else 1.0)
    judge = Judge(Ruler(emoji), scenes.Painter(emoji), learned)
    drawn, seconds = draw(painter, asked)
    truths = {exam: [judge.truth(question) for question in questions] for exam, questions in asked.items()}
    figures = measure(judge, asked, drawn, truths) + followed(scorer, asked, drawn, truths)
    figures += speed_and_loss(painter.family, first_of(asked[KNOWN], truths[KNOWN]), seconds)
    pictures = sum(map(len, asked.values()))
    outcome = Outcome.of(chosen.base, len(learned), figures, pictures, time.monotonic() - started)
    if chosen.json:
        print(outcome.json())
    else:
        Console().print(outcome.tables(), markup=False, highlight=False)
    if chosen.record:
        outcome.record()
    return protocol.FAILED if any(figure.missed for figure in outcome.figures) else protocol.DONE


if __name__ == "__main__":
    sys.exit(main())
