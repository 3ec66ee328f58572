"""merge: adapters added to the weights of a whole model, in its own layout and number format.

Where each update belongs is settled before a byte is written. Then every file is written anew, tensor by tensor: those
that an adapter changes are made, all others pass as they are, with their keys, formats and metadata.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from engine.config.operations import Merge
from engine.errors import Problem, UserError
from engine.files import replace_file, replace_folder
from engine.formats import building
from engine.formats.adapter import Adapter
from engine.formats.container import listed, shown
from engine.formats.findings import Findings
from engine.formats.layers import Layer
from engine.formats.streams import LazyTensor
from engine.formats.weights import SUFFIXES as WEIGHTS
from engine.formats.weights import Weights
from engine.lora.bake import baked
from engine.models.checkpoints.casting import FLOATS, Casting, is_finite
from engine.models.checkpoints.opening import Checkpoint
from engine.models.checkpoints.recipe import Recipe
from engine.models.checkpoints.to_single import SUFFIXES, Plan, plan_copy, write_single
from engine.models.folder import INDEX, component_files, read_config
from engine.operate import Reporter
from engine.operations.bases import open_model
from engine.operations.checkpoints import bytes_of, check_place, refused, size_of, writing
from engine.operations.inputs import Used, read_adapters, used
from engine.protocol.operations import CheckpointWritten


@dataclass
class _Change:
    """What is added to the weight of one module."""

    path: str
    recipe: Recipe
    """Where it lies in the model's files."""
    terms: list[tuple[Layer, float]]


Changes = dict[str, list[_Change]]
"""Key in a part's files → what is added to it, in several places of a fused tensor."""


def merge(request: Merge, reporter: Reporter) -> CheckpointWritten:
    """Write the base with Σ weight · ΔW of the adapters in it."""
    reporter.stage("open")
    model, out = open_model(request.base, "base"), Path(request.out)
    to_file = out.suffix.lower() in SUFFIXES
    if to_file != (model.single is not None):
        expected = "a .safetensors or .ckpt file" if model.single else "a folder"
        advice = "the result is what the base is; `loratui checkpoint convert` makes the other of it"
        raise refused(request.out, "out", expected, "a file" if to_file else "a folder", advice)
    check_place(model.path, out, to_file, request.force)
    files = used(request.adapters)
    adapters = read_adapters(one.path for one in files)
    changes = _changes(model, list(zip(files, adapters, strict=True)))
    notes = _notes(model, files, adapters)
    if model.single:
        together = {key: several for part in changes.values() for key, several in part.items()}
        notes += _to_file(model.single, together, out, reporter)
    else:
        notes += _to_folder(model, changes, out, reporter)
    counts = {part: sum(map(len, keys.values())) for part, keys in changes.items()}
    return CheckpointWritten(out=str(out), family=model.family, bytes=size_of(out), tensors=counts, notes=notes)


# ---- where updates belong


def _changes(model: Checkpoint, taken: list[tuple[Used, Adapter]]) -> dict[str, Changes]:
    """What is added to each part of the model. Raises UserError with everything that does not fit it."""
    problems: list[Problem] = []
    found: dict[tuple[str, str], _Change] = {}
    for one, adapter in taken:
        findings = Findings(one.path)
        if adapter.family and adapter.family != model.family:
            expected = f"an adapter for {model.family}, which {model.path.name} is"
            findings.add("", expected, f"one for {adapter.family}", _ADVICE)
        else:
            _place(model, one, adapter, found, findings)
        try:
            findings.stop()
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    changes: dict[str, Changes] = {}
    for (part, _), change in found.items():
        changes.setdefault(part, {}).setdefault(change.recipe.sources[0], []).append(change)
    if not changes:
        where = ", ".join(one.path for one, _ in taken)
        raise refused(where, "adapters", "updates of layers, at a weight that is not 0", "none", "raise a weight")
    return changes


_ADVICE = "choose the base that it was trained on"


def _place(
    model: Checkpoint, one: Used, adapter: Adapter, found: dict[tuple[str, str], _Change], findings: Findings
) -> None:
    """Add the adapter's updates to `found`, at their strengths, or say in `findings` why they don't fit the model."""
    for part, layers in adapter.parts.items():
        tensors = model.parts[part].tensors if part in model.parts else {}
        for path, layer in layers.items():
            name, recipe = f"{part}.{path}", tensors.get(f"{path}.weight")
            if recipe is None:
                findings.add(name, "modules of this base", "no such module", _ADVICE)
                continue
            if recipe.info.dtype not in FLOATS:
                findings.add(name, "weights of floating-point numbers", recipe.info.dtype, "choose another base")
                continue
            try:
                fitting = building.shaped(layer, recipe.info.shape)
            except building.Misfit as misfit:
                findings.add(name, misfit.args[0], misfit.args[1], _ADVICE)
                continue
            if strength := one.of_layer(part, path) if callable(one.of_layer) else one.of_layer:
                change = found.setdefault((part, path), _Change(path, recipe, []))
                change.terms.append((fitting, strength))


def _notes(model: Checkpoint, files: Iterable[Used], adapters: Iterable[Adapter]) -> list[str]:
    notes = [notice for adapter in adapters for notice in adapter.notices]
    for one, adapter in zip(files, adapters, strict=True):
        if adapter.tokens:
            words = ", ".join(shown(token) for token in adapter.tokens)
            notes.append(f"{one.name}: learned tokens are no weights, and need a file of their own still: {words}")
    if any("averages" in text for text in model.left_out):
        notes.append("the file's averages of its weights (model_ema) are without the adapters; few programs read them")
    return notes


# ---- tensors


def _with_changes(weights: Weights, changes: Changes, casting: Casting) -> Plan:
    """The file as it is, but for what is added to it."""
    read = weights.reader()
    plan = plan_copy(weights, casting)
    made = {
        key: LazyTensor(weights.tensors[key], lambda key=key: _changed(weights.path, read(key), changes[key]))
        for key in changes
    }
    return plan._replace(tensors=plan.tensors | made)


def _changed(where: Path, tensor: Tensor, changes: list[_Change]) -> Tensor:
    """A tensor of the base with what is added to it. Raises UserError where that is beyond its format."""
    result = tensor.clone().contiguous()
    for change in changes:
        weight = change.recipe.place(result)
        after = baked(weight, change.terms)
        if not is_finite(after) and is_finite(weight):
            expected = f"numbers within the range of {change.recipe.info.dtype}"
            advice = "nothing was written: lower the adapters' weights, or convert the base to bf16 or fp32 first"
            raise refused(str(where), change.path, expected, "larger ones", advice)
        weight.copy_(after)
    return result


# ---- files


def _to_file(weights: Weights, changes: Changes, out: Path, reporter: Reporter) -> list[str]:
    casting = Casting(out, "keep")
    plan = _with_changes(weights, changes, casting)
    wrote = writing(out, bytes_of(plan.tensors), reporter)
    with replace_file(out) as temporary:
        write_single(temporary, out.suffix.lower(), plan, wrote)
    return plan.losses + casting.notices()


def _to_folder(model: Checkpoint, changes: dict[str, Changes], out: Path, reporter: Reporter) -> list[str]:
    kept, left = _files(model, changes)
    wrote = writing(out, sum(size_of(file) for file, _ in kept), reporter)
    casting = Casting(out, "keep")
    with replace_folder(out) as temporary:
        for file, relative in kept:
            place, part = temporary / relative, relative.parent.name
            place.parent.mkdir(exist_ok=True)
            weights = _rewritten(model, part, file) if part in changes else None
            if weights is None:
                shutil.copyfile(file, place)
                wrote(file.stat().st_size)
            else:
                mine = {key: several for key, several in changes[part].items() if key in weights.tensors}
                container = ".safetensors" if weights.stored is None else ".ckpt"
                write_single(place, container, _with_changes(weights, mine, casting), wrote)
    notes = [f"left out, since the adapters are not in them: {listed(left)}"] if left else []
    return notes + casting.notices()


def _rewritten(model: Checkpoint, part: str, file: Path) -> Weights | None:
    return next((weights for weights in model.parts[part].files.values() if weights.path == file), None)


def _files(model: Checkpoint, merged: Iterable[str]) -> tuple[list[tuple[Path, Path]], list[str]]:
    """The files of the folder that the result has too, each with its place in it, and the names of the others.

    Those of components, and what lies beside them but weights: a file of the whole model would be one without the
    adapters, and so would be other variants of a part that is merged.
    """
    index = model.places[INDEX]
    named = read_config(index) if index.is_file() else {}
    names = [*model.parts, *model.layout.pads, "scheduler", *(name for name in named if re.fullmatch(r"\w+", name))]
    folders = {"": index.parent} | {name: model.places.get(name, index.with_name(name)) for name in names}
    kept, left = [], []
    for name, folder in folders.items():
        files = sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
        chosen = component_files(folder) if name in merged else None
        for file in files:
            variant = file.suffix in (*WEIGHTS, ".msgpack", ".h5", ".onnx") or ".index." in file.name
            if variant and (not name or (chosen is not None and file not in chosen)):
                left.append(str(Path(name, file.name)))
            else:
                kept.append((file, Path(name, file.name)))
    return kept, left
