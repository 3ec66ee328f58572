"""compose, interpolate and resize: adapters in, one adapter or several out, exact unless a lower rank is asked for."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.config.operations import Compose, Interpolate, Resize
from engine.errors import Problem, UserError
from engine.formats.adapter import Adapter, Factors
from engine.formats.writing import write_adapter
from engine.lora import tokens
from engine.lora.algebra import Kept, Measure
from engine.lora.compose import Options, Target, combined, gather
from engine.operate import Reporter
from engine.operations.inputs import (
    DTYPES,
    check_out,
    check_tokens,
    kept_metadata,
    made_metadata,
    read_alike,
    used,
    widest,
    write,
)
from engine.protocol.operations import Composed, Interpolated


def compose(request: Compose, reporter: Reporter) -> Composed:
    """Σ weight · ΔW of adapters, with their tokens."""
    out = Path(request.out)
    check_out(out, request.force)
    reporter.stage("read")
    files = used(request.adapters)
    adapters = read_alike([one.path for one in files], reporter)
    taking = [(one, adapter) for one, adapter in zip(files, adapters, strict=True) if one.of_layer]
    if not taking:
        raise _nothing(request)
    learned, renamed = tokens.gathered([(one.name, adapter.tokens) for one, adapter in taking])
    check_tokens(out, learned, request.force)
    terms = [(adapter, one.of_layer) for one, adapter in taking]
    present = [adapter for adapter, _ in terms]
    parts, layers = _combine(terms, _options(request), _dtype(request.precision, present), reporter)
    recipe = ", ".join(str(one) for one, _ in taking)
    made = _made(out, present, parts, learned, f"composed of {recipe}", ", ".join(one.name for one, _ in taking))
    return write(out, made, layers, reporter, renamed)


def _nothing(request: Compose) -> UserError:
    where = ", ".join(use.path for use in request.adapters)
    expected = "at least one weight that is not 0"
    return UserError(Problem(where=where, field="adapters", expected=expected, found="0", advice="raise a weight"))


def interpolate(request: Interpolate, reporter: Reporter) -> Interpolated:
    """Adapters along (1 − t) · ΔW₁ + t · ΔW₂, ends included; tokens that both have go the same way."""
    first, second = Path(request.first), Path(request.second)
    folder = Path(request.out)
    ts = [step / (request.steps - 1) for step in range(request.steps)]
    files = [folder / f"{first.stem}-{second.stem}-t{t:.3f}.safetensors" for t in ts]
    _check_folder(folder)
    problems = []
    for file in files:
        try:
            if folder.is_dir():
                check_out(file, request.force)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    reporter.stage("read")
    adapters = read_alike([request.first, request.second], reporter)
    for file in files if folder.is_dir() else ():
        check_tokens(file, adapters[0].tokens | adapters[1].tokens, request.force)
    options, dtype = _options(request), _dtype(request.precision, adapters)
    for t, file in zip(ts, files, strict=True):
        terms = list(zip(adapters, (1.0 - t, t), strict=True))
        parts, _ = _combine(terms, options, dtype, reporter)
        learned = tokens.between(adapters[0].tokens, adapters[1].tokens, t)
        comment = f"{1 - t:.3f} {first.stem} + {t:.3f} {second.stem}"
        made = _made(file, adapters, parts, learned, comment, f"{first.stem}, {second.stem}")
        folder.mkdir(parents=True, exist_ok=True)
        write_adapter(file, made)
    return Interpolated(files={str(file): t for t, file in zip(ts, files, strict=True)})


def resize(request: Resize, reporter: Reporter) -> Composed:
    """The best approximation of an adapter at other ranks."""
    out = Path(request.out)
    check_out(out, request.force)
    reporter.stage("read")
    (adapter,) = read_alike([request.path], reporter)
    check_tokens(out, adapter.tokens, request.force)
    dtype = _dtype(request.precision, [adapter])
    parts, layers = _combine([(adapter, 1.0)], _options(request, svd=True), dtype, reporter)
    asked = f"rank {request.rank}" if request.rank else f"energy {request.energy:g}"
    made = _made(out, [adapter], parts, adapter.tokens, f"{Path(request.path).stem} resized to {asked}", "")
    return write(out, made, layers, reporter)


def _options(request: Compose | Interpolate | Resize, svd: bool | None = None) -> Options:
    measure = Measure(rank=request.rank, energy=request.energy) if request.rank or request.energy else None
    base = None
    if request.base:
        from engine.operations.bases import open_base

        base = open_base(request.base)
    return Options(measure, request.how == "svd" if svd is None else svd, base)


def _dtype(precision: str, adapters: list[Adapter]) -> torch.dtype:
    return widest(adapters) if precision == "keep" else DTYPES[precision]


def _combine(
    terms: list[tuple[Adapter, float]], options: Options, dtype: torch.dtype, reporter: Reporter
) -> tuple[dict[str, dict[str, Factors]], list[tuple[Target, Kept]]]:
    """The factors of the sum by part and path, and how good each layer is."""
    gathered = gather(terms)
    reporter.stage("compose", len(gathered), "layers")
    parts: dict[str, dict[str, Factors]] = {}
    layers = []
    for done, ((part, path), factors, kept) in enumerate(combined(gathered, options, dtype), 1):
        parts.setdefault(part, {})[path] = factors
        layers.append(((part, path), kept))
        reporter.progress(done)
    return parts, layers


def _made(out: Path, sources: list[Adapter], parts: dict, learned: dict, comment: str, merged_from: str) -> Adapter:
    factors = [one for layers in parts.values() for one in layers.values()]
    metadata = made_metadata(out, kept_metadata(sources), factors, comment, merged_from)
    family = next((one.family for one in sources if one.family), "")
    return Adapter(parts, metadata, tokens=learned, format="kohya", family=family)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(
            Problem(where=str(folder), field="out", expected="a folder", found="a file", advice="name a folder")
        )
