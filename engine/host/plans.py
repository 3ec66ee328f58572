"""The arithmetic of a run while its form is being filled in: steps, files and bytes, from file headers alone.

It answers after each field, so nothing is read twice and no network is asked. Steps, files and the line that describes
them come of the code that training runs. What a form does not say yet, or says wrongly, leaves out what depends on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.config import Model, Prior, Problem, Request, Train, UserError, check, fields
from engine.config.structs import Dataset
from engine.data import plan
from engine.data.buckets import bucket_for, enlargement
from engine.data.folders import Folder, expand
from engine.data.items import FEWEST_TO_HOLD_OUT, Item, hold_out
from engine.data.plan import Plan
from engine.host.images import measured
from engine.host.kept import Kept, regular, stamp
from engine.models.resolve import find_here, look
from engine.models.sizes import SD1, Base, base_of
from engine.protocol.browse import RunPlan
from engine.training import disk, schedule
from engine.training.intervals import intervals, times

FRESH = 30.0
"""Seconds for which a base is taken to be what it was."""

_HARMLESS = {"model": Model(base="tiny"), "dataset": Dataset(subsets=[]), "prior": Prior(weight=0.0)}
"""What stands in for sections that are wrong, besides their defaults; `wrong` keeps it from being told."""

_bases, _contents = Kept(16), Kept(10_000)


@dataclass(frozen=True)
class _Form:
    """A config as far as it goes, the names of the sections that don't, and everything that is wrong."""

    config: Train
    wrong: frozenset[str]
    problems: list[Problem]

    def says(self, *sections: str) -> bool:
        return self.wrong.isdisjoint(sections)


@dataclass(frozen=True)
class _Images:
    """What a run would train on."""

    items: Sequence[Item]
    class_items: Sequence[Item]


def run_plan(workspace: Path, table: dict[str, Any]) -> RunPlan:
    """The plan of a run. What is wrong with its config is in the plan's `problems`, and raises nothing.

    For a base that this machine does not have, the sizes are those of Stable Diffusion 1.
    """
    form = _form(table)
    config, told = form.config, {"disk_free": _free(workspace), "problems": form.problems}
    base = _base(form)
    if not form.says("dataset"):
        return RunPlan(**told)
    resolution = plan.resolution(config.dataset, base.resolution, base.size_step)
    images = _images(form, resolution, base.size_step)
    told |= {"images": len(images.items), "class_images": len(images.class_items)}
    training = config.training
    if images.items and form.says("training") and bool(training.steps) != bool(training.epochs):
        arithmetic = plan.of_run(config, images.items, len(images.class_items))
        if training.epochs and form.says("schedule"):
            form.problems.extend(schedule.problems(config, arithmetic.steps))
        told |= _steps(config, arithmetic, images) | _files(form, arithmetic, images, base, resolution)
    return RunPlan(**told)


def _form(table: dict[str, Any]) -> _Form:
    request = Request()
    request.lay(table, "the form")
    problems: list[Problem] = []
    try:
        request.checked(Train)
    except UserError as error:
        problems += error.problems
    sections, wrong = {}, set()
    for name, (kind, facts) in fields(Train).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and (name in table or facts.required):
            sections[name], _ = check(kind, request.data.get(name), request.origin, name)
            if sections[name] is None:
                wrong.add(name)
                sections[name] = _HARMLESS.get(name, facts.default)
    return _Form(Train(**sections), frozenset(wrong), problems)


def _base(form: _Form) -> Base:
    """The sizes of the base. What is wrong with it is added to the problems."""
    name = form.config.model.base
    if not form.says("model"):
        return SD1
    facts = regular(look(name)[0])
    mark = None if isinstance(facts, str) else stamp(facts)
    try:
        source = _bases.get(name, (mark, time.monotonic() // FRESH), lambda: find_here(name, "model.base"))
    except UserError as error:
        form.problems.extend(error.problems)
        return SD1
    return base_of(source) if source is not None else SD1


def _images(form: _Form, resolution: int, step: int) -> _Images:
    """The images that the dataset names, without those that have no readable size, less what is held out."""
    dataset = form.config.dataset
    folders, _, problems = expand(dataset.subsets, Path.cwd())
    form.problems.extend(problems)
    paths = [path for folder in folders for path in folder.images]
    sizes = {path: measured(path) for path in dict.fromkeys(paths)}
    contents = _identities(sizes) if dataset.hold_out and len(paths) >= FEWEST_TO_HOLD_OUT else {}
    items = []
    for folder in folders:
        for path in folder.images:
            _, width, height = sizes[path]
            if width and height:
                bucket = bucket_for(width, height, resolution, step, dataset.buckets)
                fits = enlargement(width, height, bucket) <= dataset.max_upscale
                if fits or dataset.on_problem == "stop":
                    items.append(_item(folder, path, contents.get(path, str(path)), (width, height), bucket))
    instances = [item for item in items if not item.is_reg]
    training, _ = hold_out(instances, dataset.hold_out, form.config.training.seed)
    return _Images(training, [item for item in items if item.is_reg])


def _item(folder: Folder, path: Path, content: str, size: tuple[int, int], bucket: tuple[int, int]) -> Item:
    return Item(
        path=path,
        sha256=content,
        width=size[0],
        height=size[1],
        bucket=bucket,
        caption="",
        caption_source="",
        repeats=folder.repeats,
        is_reg=folder.is_reg,
        flip=folder.flip,
        crops=folder.crops,
        caption_dropout=folder.caption_dropout,
        subset=folder.subset,
    )


def _identities(sizes: dict[Path, tuple[int, int, int]]) -> dict[Path, str]:
    """Files that may be equal → what tells whether they are. Only files of one size can be, and those alone are read:
    training draws contents to hold out, not files."""
    alike = Counter(sizes.values())
    return {path: _content(path) for path, size in sizes.items() if alike[size] > 1 and size[1]}


def _content(path: Path) -> str:
    facts = regular(path)
    if isinstance(facts, str):
        return str(path)

    def digest() -> str:
        with contextlib.suppress(OSError), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return str(path)

    return _contents.get(path, stamp(facts), digest)


def _steps(config: Train, arithmetic: Plan, images: _Images) -> dict[str, Any]:
    return {
        "text": arithmetic.describe(),
        "class_images_to_draw": 0 if images.class_items else arithmetic.class_images,
        "per_epoch": arithmetic.per_epoch,
        "steps_per_epoch": arithmetic.batches_per_epoch / config.training.accumulate,
        "steps": arithmetic.steps,
        "epochs": float(arithmetic.epochs),
        "views_per_image": arithmetic.views_per_image,
        "buckets": arithmetic.bucket_table(),
    }


def _files(form: _Form, arithmetic: Plan, images: _Images, base: Base, resolution: int) -> dict[str, Any]:
    """How many files the run will write, and their bytes."""
    config, told = form.config, {}
    every = intervals(config, arithmetic.steps, arithmetic.batches_per_epoch)
    saves = times(every.save, arithmetic.steps)
    drawn = 0 if images.class_items else arithmetic.class_images
    moments = 1 + times(every.sample, arithmetic.steps)
    if form.says("saving"):
        told |= {"adapters": saves + 1, "states": min(config.saving.states, saves)}
    if form.says("sampling"):
        told["samples"] = moments * len(config.sampling.prompts)
    ranks = disk.ranks(config)
    if ranks is None or base.shares is None or not form.says("adapter", "optimizer", "saving"):
        return told
    adapter, state = disk.adapter(config, base.shares, ranks), disk.state(config, base.shares, ranks)
    told |= {"adapter_bytes": adapter, "state_bytes": state}
    if form.says("sampling", "prior"):
        pictures = moments * disk.samples(config, resolution, base.size_step)
        pictures += drawn * disk.picture(resolution, resolution)
        cache = disk.latents(base, images.items, images.class_items, drawn)
        told["disk_bytes"] = told["adapters"] * adapter + told["states"] * state + round(pictures) + cache
    return told


def _free(workspace: Path) -> int:
    for folder in (workspace, *workspace.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0
