"""What can be asked of adapter and checkpoint files: one struct for each operation of `engine.operate`.

They are to operations what `structs` is to jobs, with the same constraints and help texts, and `checked` is their one
way in. An operation needs no device and no place in a queue: it reads files, writes files, and is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from msgspec import Struct

from engine.config.schema import check
from engine.config.structs import _END, AdapterUse, _m
from engine.errors import Problem, UserError

_OUT = "file to write"
_FORCE = "overwrite what is there"
_RANK = "rank of every layer; 0: not fixed"
_ENERGY = "share of each layer's squared Frobenius norm to keep; 0: not asked for"

Precision = Literal["keep", "fp16", "bf16", "fp32"]


class Operation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all requests."""


class Compose(Operation, frozen=True, kw_only=True):
    """Σ weight · ΔW of adapters, as one adapter."""

    adapters: Annotated[list[AdapterUse], _m("adapters and their weights", min_length=1)]
    out: Annotated[str, _m(_OUT, min_length=1)]
    rank: Annotated[int, _m(_RANK, "", ge=0, le=4096)] = 0
    energy: Annotated[float, _m(_ENERGY, ge=0, le=1)] = 0.0
    how: Annotated[
        Literal["exact", "svd"], _m("layers without an exact low-rank form: refuse them, or take their best one")
    ] = "exact"
    base: Annotated[str, _m("base model, which a DoRA needs; empty: none")] = ""
    precision: Annotated[Precision, _m("number format of the result; keep: the widest of the adapters'")] = "keep"
    force: Annotated[bool, _m(_FORCE)] = False


class Interpolate(Operation, frozen=True, kw_only=True):
    """Adapters on the straight line between two, in ΔW: (1 − t) · A + t · B."""

    first: Annotated[str, _m("adapter at t = 0", min_length=1)]
    second: Annotated[str, _m("adapter at t = 1", min_length=1)]
    out: Annotated[str, _m("folder for the files", min_length=1)]
    steps: Annotated[int, _m("files to write, both ends included", "files", ge=2, le=1000)] = 5
    rank: Annotated[int, _m(_RANK, ge=0, le=4096)] = 0
    energy: Annotated[float, _m(_ENERGY, ge=0, le=1)] = 0.0
    how: Annotated[
        Literal["exact", "svd"], _m("layers without an exact low-rank form: refuse them, or take their best one")
    ] = "exact"
    base: Annotated[str, _m("base model, which a DoRA needs; empty: none")] = ""
    precision: Annotated[Precision, _m("number format of the results; keep: the wider of the two")] = "keep"
    force: Annotated[bool, _m(_FORCE)] = False


class Resize(Operation, frozen=True, kw_only=True):
    """An adapter at other ranks: the best approximation of each ΔW."""

    path: Annotated[str, _m("adapter file", min_length=1)]
    out: Annotated[str, _m(_OUT, min_length=1)]
    rank: Annotated[int, _m(_RANK, ge=0, le=4096)] = 0
    energy: Annotated[float, _m(_ENERGY, ge=0, le=1)] = 0.0
    base: Annotated[str, _m("base model, which a DoRA needs; empty: none")] = ""
    precision: Annotated[Precision, _m("number format of the result; keep: as it was")] = "keep"
    force: Annotated[bool, _m(_FORCE)] = False


class Diff(Operation, frozen=True, kw_only=True):
    """How far two adapters are from each other, layer by layer."""

    first: Annotated[str, _m("adapter file", min_length=1)]
    second: Annotated[str, _m("adapter file", min_length=1)]
    base: Annotated[str, _m("base model, which a DoRA needs; empty: none")] = ""


class Extract(Operation, frozen=True, kw_only=True):
    """An adapter out of a fine-tuned model: the best low-rank approximation of each tuned − base."""

    tuned: Annotated[str, _m("fine-tuned model: a diffusers folder, a .safetensors or .ckpt file", min_length=1)]
    base: Annotated[str, _m("model that it was tuned from: a folder or file like it", min_length=1)]
    out: Annotated[str, _m(_OUT, min_length=1)]
    rank: Annotated[int, _m("rank of every layer; 0: by energy or error", ge=0, le=4096)] = 0
    energy: Annotated[float, _m(_ENERGY, ge=0, le=1)] = 0.0
    error: Annotated[float, _m("relative Frobenius error allowed in each layer; 0: not asked for", ge=0, lt=1)] = 0.0
    clamp: Annotated[
        float,
        _m("quantile of the factors' magnitudes beyond which they are cut; 1: nothing is", advanced=True, gt=0, le=1),
    ] = 1.0
    precision: Annotated[Literal["fp16", "bf16", "fp32"], _m("number format of the adapter")] = "fp16"
    force: Annotated[bool, _m(_FORCE)] = False


class ConvertCheckpoint(Operation, frozen=True, kw_only=True):
    """A whole model in another layout: a folder as a single file, a single file as a folder or as another file."""

    path: Annotated[str, _m("diffusers folder, .safetensors or .ckpt file", min_length=1)]
    out: Annotated[str, _m("what to write: a .safetensors or .ckpt file, or a folder", min_length=1)]
    precision: Annotated[Precision, _m("number format of the weights; keep: each as it was")] = "keep"
    force: Annotated[bool, _m(_FORCE)] = False


class Merge(Operation, frozen=True, kw_only=True):
    """A base with adapters in its weights: W + Σ weight · ΔW. Everything else stays as it is."""

    base: Annotated[str, _m("`tiny`, a diffusers folder, a hub id, a .safetensors or .ckpt file", min_length=1)]
    adapters: Annotated[list[AdapterUse], _m("adapters and their weights", min_length=1)]
    out: Annotated[str, _m("what to write: a folder for a folder, a file for a file", min_length=1)]
    force: Annotated[bool, _m(_FORCE)] = False


class FitWeights(Operation, frozen=True, kw_only=True):
    """How much of each of several adapters makes pictures like these: learned weights, written as a blend."""

    base: Annotated[str, _m("base model: `tiny`, a diffusers folder, a hub id, a file", min_length=1)]
    adapters: Annotated[list[AdapterUse], _m("adapters, and the weights to begin with", min_length=1)]
    data: Annotated[str, _m("folder of captioned images", min_length=1)]
    out: Annotated[str, _m("blend file to write (.toml)", min_length=1)]
    per_block: Annotated[bool, _m("a weight for every block, in place of one for all layers")] = False
    steps: Annotated[int, _m("steps to learn", "steps", ge=1, le=100_000)] = 100
    batch: Annotated[int, _m("images in a step", "images", ge=1, le=1024)] = 1
    rate: Annotated[float, _m("learning rate of the weights", gt=0, le=10)] = 0.02
    pull: Annotated[float, _m("how strongly weights are held where they began", ge=0, le=1000)] = 0.01
    seed: Annotated[int, _m("decides every draw", ge=0, le=2**63 - 1)] = 42
    device: Annotated[
        str,
        _m(
            "`auto`, `cpu`, `cuda` or `cuda:1`",
            expected="auto, cpu, cuda or cuda:N",
            pattern="^(auto|cpu|cuda(:[0-9]+)?)" + _END,
        ),
    ] = "auto"
    force: Annotated[bool, _m(_FORCE)] = False


class Inspect(Operation, frozen=True, kw_only=True):
    """What an adapter file is, and what other programs make of it."""

    path: Annotated[str, _m("adapter file", min_length=1)]
    layers: Annotated[bool, _m("norms and spectra of every layer")] = False
    base: Annotated[str, _m("base model, on which the norms of a DoRA depend; empty: none")] = ""


class Convert(Operation, frozen=True, kw_only=True):
    """An adapter in another format, read back before it gets its name."""

    path: Annotated[str, _m("adapter file", min_length=1)]
    out: Annotated[str, _m(_OUT, min_length=1)]
    to: Annotated[Literal["kohya", "peft", "cloneofsimo"], _m("format to write")] = "kohya"
    precision: Annotated[Precision, _m("number format of the result; keep: each tensor's own")] = "keep"
    force: Annotated[bool, _m(_FORCE)] = False


class EditMetadata(Operation, frozen=True, kw_only=True):
    """Other metadata around the same tensors."""

    path: Annotated[str, _m("adapter file", min_length=1)]
    out: Annotated[str, _m("file to write; empty: the same")] = ""
    set: Annotated[list[str], _m("entries and their texts, `name=text`")] = []
    remove: Annotated[list[str], _m("entries to take away")] = []
    force: Annotated[bool, _m(_FORCE)] = False


class Caption(Operation, frozen=True, kw_only=True):
    """Captions for the images of a folder, in the words that a scorer knows."""

    path: Annotated[str, _m("folder of images", min_length=1)]
    scorer: Annotated[Literal["tiny"], _m("what finds the words: the embedded base's own")] = "tiny"
    top: Annotated[int, _m("names to tell of each image", "names", ge=1, le=32)] = 3
    write: Annotated[bool, _m("write captions into .txt files beside the images that have none")] = False
    force: Annotated[bool, _m("also in place of captions that are there")] = False


def _one_measure(names: tuple[str, ...], required: bool) -> Callable[[Any], list[Problem]]:
    """A rule: at most one of these fields is set, or exactly one."""

    def rule(request: Any) -> list[Problem]:
        chosen = [name for name in names if getattr(request, name)]
        if len(chosen) == 1 or (not chosen and not required):
            return []
        return [
            Problem(
                where="request",
                field=chosen[1] if chosen else names[0],
                expected=("one of " if required else "at most one of ") + ", ".join(names),
                found=" and ".join(f"{name} = {getattr(request, name):g}" for name in chosen) or "none",
                advice="give the one that is meant",
            )
        ]

    return rule


OPERATIONS: dict[str, type[Operation]] = {
    "inspect": Inspect,
    "convert": Convert,
    "edit_metadata": EditMetadata,
    "compose": Compose,
    "interpolate": Interpolate,
    "resize": Resize,
    "diff": Diff,
    "extract": Extract,
    "fit_weights": FitWeights,
    "convert_checkpoint": ConvertCheckpoint,
    "merge": Merge,
    "caption": Caption,
}
"""Every operation by its name."""

ON_DEVICE = ("fit_weights",)
"""Those that compute with a model for long. As jobs they wait for a device; the others are started at once."""


def _some_edit(request: EditMetadata) -> list[Problem]:
    """A rule: there is something to change, and every change has a name."""
    advice = "such as modelspec.trigger_phrase=ohwx cat"
    bad = [entry for entry in request.set if not entry.partition("=")[0].strip() or "=" not in entry]
    problems = [
        Problem(where="request", field="set", expected="name=text", found=repr(entry), advice=advice) for entry in bad
    ]
    if not request.set and not request.remove:
        expected = "something to set or to remove"
        problems.append(Problem(where="request", field="set", expected=expected, found="nothing", advice=advice))
    return problems


def _force_writes(request: Caption) -> list[Problem]:
    """A rule: what is to be overwritten is written."""
    if request.write or not request.force:
        return []
    advice = "say write as well, or leave force away"
    return [Problem(where="request", field="force", expected="write beside it", found="force alone", advice=advice)]


_RULES: dict[type[Operation], tuple[Callable[[Any], list[Problem]], ...]] = {
    EditMetadata: (_some_edit,),
    Caption: (_force_writes,),
    Compose: (_one_measure(("rank", "energy"), required=False),),
    Interpolate: (_one_measure(("rank", "energy"), required=False),),
    Resize: (_one_measure(("rank", "energy"), required=True),),
    Extract: (_one_measure(("rank", "energy", "error"), required=True),),
}


def checked(name: str, data: Mapping[str, Any]) -> Operation:
    """The request of the operation called `name`. Raises UserError with every problem of fields and rules."""
    if name not in OPERATIONS:
        raise UserError(Problem(where="request", expected=f"one of {', '.join(OPERATIONS)}", found=repr(name)))
    request, problems = check(OPERATIONS[name], data, lambda _: "request")
    if request is not None:
        problems += [problem for rule in _RULES.get(type(request), ()) for problem in rule(request)]
    if problems:
        raise UserError(problems)
    return request
