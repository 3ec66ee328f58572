"""The images of a run with everything that belongs to each: caption, bucket, repeats and where they came from.

`build` reads a request's subsets, looks at every file and either gives a `Dataset` or raises one error with all
problems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config.structs import Dataset as Request
from engine.data import captions as caption_files
from engine.data import images
from engine.data.captions import Caption, read_captions
from engine.data.check import Facts, Progress, Rules, check, check_lengths
from engine.data.folders import Folder, expand
from engine.data.items import Item, hold_out
from engine.data.notes import Note
from engine.errors import Problem, UserError


@dataclass(frozen=True)
class Dataset:
    """What a run trains on. `held_out` are instance images that training never sees."""

    items: tuple[Item, ...]
    class_items: tuple[Item, ...]
    held_out: tuple[Item, ...]
    notes: tuple[Note, ...]

    def captions(self) -> list[str]:
        """Every caption that a step can ask for, sorted; the empty one among them if captions are ever dropped."""
        everything = (*self.items, *self.class_items, *self.held_out)
        dropped = {""} if any(item.caption_dropout > 0 for item in everything) else set()
        return sorted({item.caption for item in everything} | dropped)

    def caption_sources(self) -> dict[str, int]:
        """How many instance captions came from where, in order of precedence."""
        everything = (*self.items, *self.held_out)
        return caption_files.sources(Caption(item.caption, item.caption_source) for item in everything)


@dataclass(frozen=True)
class Inspection:
    """Everything that a look at the images of a request finds, fit to be trained on or not."""

    folders: list[Folder]
    captions: list[dict[Path, Caption]]
    """Of each folder."""
    facts: dict[Path, Facts]
    """Of the images that can be used."""
    notes: list[Note]
    problems: list[Problem]

    def items(self) -> list[Item]:
        """The images that can be used, in order."""
        return [
            _item(folder, self.facts[path], captions[path])
            for folder, captions in zip(self.folders, self.captions, strict=True)
            for path in folder.images
            if path in self.facts
        ]


def inspect(
    request: Request, *, root: Path, resolution: int, step: int, progress: Progress | None = None
) -> Inspection:
    """Look at every image of a request and raise nothing; the arguments are those of `build`."""
    folders, notes, problems = expand(request.subsets, root)
    captions = []
    for folder in folders:
        found, said, wrong = read_captions(folder)
        captions.append(found)
        notes += said
        problems += wrong
    background = images.colour(request.background)
    rules = Rules(resolution, step, request.buckets, request.max_upscale, background)
    report = check([path for folder in folders for path in folder.images], rules, progress)
    if request.on_problem == "skip":
        notes += [Note("left out", problem.where, problem.found) for problem in report.problems]
    else:
        problems += report.problems
    if not problems:
        problems = _nothing_left(folders, report.facts)
    return Inspection(folders, captions, report.facts, notes + report.notes, problems)


def build(
    request: Request,
    *,
    root: Path,
    resolution: int,
    step: int,
    seed: int,
    count_tokens: Callable[[str], int] | None = None,
    token_limit: int = 75,
    progress: Progress | None = None,
) -> Dataset:
    """The dataset that a request describes; relative paths lie in `root`. UserError with every problem there is.

    `resolution` is the training resolution in pixels and `step` what a bucket's sides are multiples of. With
    `count_tokens`, captions of more than `token_limit` tokens get a note.
    """
    found = inspect(request, root=root, resolution=resolution, step=step, progress=progress)
    if found.problems:
        raise UserError(found.problems)
    items, notes = found.items(), found.notes
    if count_tokens:
        notes += check_lengths(((item.path, item.caption) for item in items), count_tokens, token_limit)
    training, held_out = hold_out([item for item in items if not item.is_reg], request.hold_out, seed)
    class_items = tuple(item for item in items if item.is_reg)
    return Dataset(training, class_items, held_out, tuple(notes))


def _item(folder: Folder, facts: Facts, caption: Caption) -> Item:
    return Item(
        path=facts.path,
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        bucket=facts.bucket,
        caption=caption.text,
        caption_source=caption.source,
        repeats=folder.repeats,
        is_reg=folder.is_reg,
        flip=folder.flip,
        crops=folder.crops,
        caption_dropout=folder.caption_dropout,
        subset=folder.subset,
    )


def _nothing_left(folders: Sequence[Folder], facts: dict[Path, Facts]) -> list[Problem]:
    if any(path in facts for folder in folders if not folder.is_reg for path in folder.images):
        return []
    return [
        Problem(
            where="the dataset",
            field="dataset.subsets",
            expected="at least one image to learn from",
            found="class (regularization) images only" if facts else "no usable image",
            advice="add a subset without is_reg",
        )
    ]
