"""inspect, convert, edit_metadata: what an adapter file is, what it becomes elsewhere, and what it says of itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from engine.config.operations import Convert, EditMetadata, Inspect
from engine.errors import Problem, UserError
from engine.formats import editing, programs, writing
from engine.formats.adapter import Adapter
from engine.formats.companions import read_whole
from engine.formats.embeddings import in_adapter
from engine.formats.layers import DoRA, Layer
from engine.formats.opening import open_adapter
from engine.formats.reading import read_adapter
from engine.lora.algebra import norm, product
from engine.lora.compose import Base, low_rank
from engine.lora.spectrum import spectrum
from engine.operate import Reporter
from engine.operations.inputs import check_out
from engine.protocol import operations as protocol

_KINDS = {"Factors": "LoRA", "Tucker": "LoCon with a core", "Dense": "full difference"}


def inspect(request: Inspect, reporter: Reporter) -> protocol.Inspected:
    """What a file holds, what each program makes of it, and, if asked for, every layer's spectrum."""
    reporter.stage("read")
    path = Path(request.path)
    adapter = read_adapter(path)
    base = None
    if request.base:
        from engine.operations.bases import open_base

        base = open_base(request.base)
    return protocol.Inspected(
        path=str(path),
        bytes=path.stat().st_size,
        format=adapter.format,
        family=adapter.family,
        parts={part: _part(modules.values()) for part, modules in adapter.parts.items()},
        tokens=_tokens(adapter),
        metadata=adapter.metadata,
        notices=list(adapter.notices),
        loads=_loads(path, adapter),
        layers=_spectra(adapter, base, reporter) if request.layers else [],
    )


def _part(layers: Iterable[Layer]) -> protocol.InspectedPart:
    layers = list(layers)
    return protocol.InspectedPart(
        layers=len(layers),
        ranks=sorted({layer.rank for layer in layers}),
        alphas=sorted({alpha for layer in layers if (alpha := getattr(_inner(layer), "alpha", None)) is not None}),
        kinds=dict(Counter(_kind(layer) for layer in layers)),
        norm=_norm(layers),
    )


def _norm(layers: Iterable[Layer]) -> float | None:
    """Of all layers as one vector, from their factors; None where one has no low rank."""
    squares = 0.0
    for layer in layers:
        if (factors := low_rank(layer)) is None:
            return None
        squares += norm(product(factors)) ** 2
    return math.sqrt(squares)


def _inner(layer: Layer) -> Layer:
    return layer.update if isinstance(layer, DoRA) else layer


def _kind(layer: Layer) -> str:
    name = type(_inner(layer)).__name__
    kind = _KINDS.get(name, name)
    return f"{kind} with magnitudes (DoRA)" if isinstance(layer, DoRA) else kind


def _tokens(adapter: Adapter) -> dict[str, dict[str, list[int]]]:
    return {
        token: {part: list(vectors.shape) for part, vectors in parts.items()} for token, parts in adapter.tokens.items()
    }


def _loads(path: Path, adapter: Adapter) -> list[protocol.Loading]:
    """Verdicts on a file as it stands."""
    if not adapter.parts:
        return []
    opened = open_adapter(path)
    tokens = in_adapter(opened.tensors, opened.metadata)
    return [
        _loading(found) for found in programs.loadings((key for key in opened.tensors if key not in tokens), adapter)
    ]


def _loading(found: programs.Loading) -> protocol.Loading:
    return protocol.Loading(program=found.program, loads=found.loads, note=found.note, unmatched=list(found.unmatched))


def _spectra(adapter: Adapter, base: Base | None, reporter: Reporter) -> list[protocol.InspectedLayer]:
    targets = [(part, path) for part, modules in adapter.parts.items() for path in modules]
    reporter.stage("layers", len(targets), "layers")
    found, without = [], 0
    for done, (part, path) in enumerate(targets, 1):
        layer = adapter.parts[part][path]
        made = {"part": part, "path": path, "kind": _kind(layer), "rank": layer.rank, "scale": layer.scale,
                "shape": list(layer.shape)}  # fmt: skip
        if isinstance(layer, DoRA) and base is None:
            without += 1
        else:
            seen = spectrum(layer, base, (part, path))
            made |= {"norm": seen.norm, "effective_rank": seen.effective_rank, "values": list(seen.values),
                     "ranks": {f"{share:g}": rank for share, rank in seen.ranks.items()}}  # fmt: skip
        found.append(protocol.InspectedLayer(**made))
        reporter.progress(done)
    if without:
        reporter.notice(f"the norms of {without} DoRA layers depend on their base: name it with --base")
    return found


def convert(request: Convert, reporter: Reporter) -> protocol.Converted:
    """A file in another format."""
    reporter.stage("read")
    path, out = Path(request.path), Path(request.out)
    check_out(out, request.force)
    adapter = read_whole(path)
    files = writing.token_files(out, adapter, request.to)
    taken = [file for file in files.values() if file.exists() and file != out]
    if taken and not request.force:
        raise UserError(
            Problem(
                where=str(taken[0]),
                field="out",
                expected="files for its tokens that are not there yet",
                found="a file of that name",
                advice="--force overwrites it",
            )
        )
    reporter.stage("write")
    precision = None if request.precision == "keep" else request.precision
    written = writing.write_adapter(out, adapter, request.to, precision)
    return protocol.Converted(
        out=str(written.path),
        bytes=written.bytes,
        format=request.to,
        family=adapter.family,
        parts={part: len(modules) for part, modules in adapter.parts.items()},
        tokens={token: str(file) for token, file in written.tokens.items()},
        notices=[*adapter.notices, *written.notices],
        loads=[_loading(found) for found in written.loads],
    )


def edit_metadata(request: EditMetadata, reporter: Reporter) -> protocol.MetadataEdited:
    """Other metadata around the same tensors."""
    path = Path(request.path)
    out = Path(request.out or request.path)
    check_out(out, request.force)
    reporter.stage("write")
    changes = {name.strip(): text for name, _, text in (entry.partition("=") for entry in request.set)}
    metadata = editing.edit_metadata(path, out, changes, tuple(request.remove))
    return protocol.MetadataEdited(out=str(out), bytes=out.stat().st_size, metadata=metadata)
