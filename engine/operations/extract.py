"""extract: an adapter out of a fine-tuned model and the base that it was tuned from.

ΔW = tuned − base, layer by layer, in float32: both models stay in their mapped files, and one layer's update is in
memory at a time. What an adapter can't hold (norms, biases, embeddings) is left out and said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from engine.config.operations import Extract
from engine.errors import Problem, UserError
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import listed
from engine.lora.algebra import Kept, Measure
from engine.lora.compose import Target, cast
from engine.lora.extract import approximate, difference
from engine.models.checkpoints.opening import Checkpoint
from engine.operate import Reporter
from engine.operations.bases import PARTS, base_metadata, layers_of, open_model
from engine.operations.inputs import DTYPES, check_out, made_metadata, write
from engine.operations.memory import give_back
from engine.protocol.operations import Composed

Pair = tuple[Target, Tensor, Tensor]
"""A layer, its tuned weight and its base's."""


def extract(request: Extract, reporter: Reporter) -> Composed:
    """The best low-rank approximation of each layer of tuned − base."""
    out = Path(request.out)
    check_out(out, request.force)
    give_back()
    reporter.stage("open")
    tuned, base = _open_both(request)
    targets = _shared(request, tuned, base)
    reporter.stage("extract", len(targets), "layers")
    measure = Measure(rank=request.rank, energy=request.energy, error=request.error)
    scratch = torch.empty(max(map(math.prod, targets.values())))
    parts: dict[str, dict[str, Factors]] = {}
    layers: list[tuple[Target, Kept]] = []
    broken, unchanged = [], 0
    for done, ((part, path), ours, theirs) in enumerate(_pairs(targets, tuned, base), 1):
        update = difference(ours, theirs, scratch)
        largest = float(torch.linalg.vector_norm(update, math.inf))
        if not math.isfinite(largest):
            broken.append(f"{part}.{path}")
        elif not largest:
            unchanged += 1
        else:
            dtype = DTYPES[request.precision]
            found, kept = approximate(update, measure, request.clamp, dtype)
            parts.setdefault(part, {})[path] = cast(found.factors(), dtype)
            layers.append(((part, path), kept))
        reporter.progress(done)
    _check(request, broken, layers)
    if unchanged:
        reporter.notice(f"{unchanged} layers are the same in both models and left out")
    _tell_the_rest(tuned, base, reporter)
    return _written(request, base, parts, layers, reporter)


def _open_both(request: Extract) -> tuple[Checkpoint, Checkpoint]:
    """Both models. Raises UserError with what is wrong with either."""
    models, problems = [], []
    for field in ("tuned", "base"):
        try:
            models.append(open_model(getattr(request, field), field))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    tuned, base = models
    if tuned.family != base.family:
        raise UserError(
            Problem(
                where=request.tuned,
                field="tuned",
                expected=f"a {base.layout.title} model, as the base is",
                found=tuned.layout.title,
                advice="choose the base that it was tuned from",
            )
        )
    return tuned, base


def _shared(request: Extract, tuned: Checkpoint, base: Checkpoint) -> dict[Target, tuple[int, ...]]:
    """The layers of both, and the shapes of their weights.

    Raises UserError where those of a part that both have differ in name or shape.
    """
    targets: dict[Target, tuple[int, ...]] = {}
    problems = []
    for part in PARTS:
        ours, theirs = layers_of(tuned, part), layers_of(base, part)
        if not ours or not theirs:
            continue
        unlike = [path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)]
        if unlike:
            problems.append(
                Problem(
                    where=request.tuned,
                    field=listed(f"{part}.{path}" for path in unlike),
                    expected="the layers of the base, of the same sizes",
                    found=f"{len(unlike)} that differ",
                    advice="choose the base that it was tuned from",
                )
            )
        targets |= {(part, path): shape for path, shape in theirs.items()}
    if problems:
        raise UserError(problems)
    return targets


def _pairs(targets: Iterable[Target], tuned: Checkpoint, base: Checkpoint) -> Iterator[Pair]:
    """Each layer's two weights, as views of the mapped files where possible."""
    readers: dict[str, tuple[Callable[[str], Tensor], Callable[[str], Tensor]]] = {}
    for part, path in targets:
        if part not in readers:
            readers[part] = tuned.parts[part].reader(), base.parts[part].reader()
        ours, theirs = readers[part]
        yield (part, path), ours(f"{path}.weight"), theirs(f"{path}.weight")


def _check(request: Extract, broken: list[str], layers: list[tuple[Target, Kept]]) -> None:
    if broken:
        raise UserError(
            Problem(
                where=request.tuned,
                field=listed(broken),
                expected="finite weights",
                found=f"NaN or infinity in {len(broken)} layers, of this model or of the base",
                advice="nothing was written: the training diverged, or the file is damaged",
            )
        )
    if not layers:
        raise UserError(
            Problem(
                where=request.tuned,
                field="tuned",
                expected="a model that differs from its base",
                found="the same weights in every layer",
                advice="choose another model",
            )
        )


def _tell_the_rest(tuned: Checkpoint, base: Checkpoint, reporter: Reporter) -> None:
    """Say which tensors differ that no adapter holds."""
    differ = []
    for part in PARTS:
        if part not in tuned.parts or part not in base.parts:
            continue
        taken = {f"{path}.weight" for path in layers_of(base, part)}
        ours, theirs = tuned.parts[part], base.parts[part]
        shared = [name for name in ours.tensors if name in theirs.tensors and name not in taken]
        read, other = ours.reader(), theirs.reader()
        differ += [f"{part}.{name}" for name in shared if _differ(read(name), other(name))]
    if differ:
        reporter.notice(
            f"{len(differ)} norms, biases or embeddings differ and are not in the adapter: {listed(differ)}"
        )


def _differ(first: Tensor, second: Tensor) -> bool:
    return first.shape != second.shape or not torch.equal(first.float(), second.float())


def _written(
    request: Extract,
    base: Checkpoint,
    parts: dict[str, dict[str, Factors]],
    layers: list[tuple[Target, Kept]],
    reporter: Reporter,
) -> Composed:
    out = Path(request.out)
    factors = [one for modules in parts.values() for one in modules.values()]
    comment = f"extracted: {Path(request.tuned).name} - {Path(request.base).name}"
    metadata = made_metadata(out, base_metadata(request.base, base), factors, comment)
    return write(out, Adapter(parts, metadata, format="kohya", family=base.family), layers, reporter)
