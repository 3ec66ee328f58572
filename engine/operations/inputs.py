"""What operations have in common: reading the adapters that are asked for, making sure of where a result goes, and what
a made adapter says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine import __version__
from engine.config import AdapterUse
from engine.config.blends import Ingredient, is_blend, read_blend
from engine.errors import Problem, UserError
from engine.formats import building
from engine.formats.adapter import Adapter, Factors
from engine.formats.companions import read_whole
from engine.formats.findings import Findings
from engine.formats.layers import Layer
from engine.formats.writing import token_files, write_adapter
from engine.lora.algebra import Kept
from engine.lora.compose import Target, Weight
from engine.operate import Reporter
from engine.protocol.operations import Composed
from engine.protocol.operations import Layer as LayerReport

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

_OF_THE_BASE = (
    "ss_v2",
    "ss_base_model_version",
    "ss_sd_model_name",
    "ss_sd_model_hash",
    "ss_new_sd_model_hash",
    "ss_clip_skip",
    "modelspec.architecture",
    "modelspec.implementation",
    "modelspec.prediction_type",
    "modelspec.resolution",
)
"""Metadata that says what an adapter is for: kept where all that say something agree."""


def check_out(path: Path, force: bool) -> None:
    """Raise UserError unless a file may be written at `path`."""
    if path.is_dir():
        found, advice = "a folder", "name a file in it"
    elif not path.parent.is_dir():
        found, advice = f"no folder {path.parent}", "make the folder first"
    elif path.exists() and not force:
        found, advice = "a file of that name", "--force overwrites it"
    elif path.suffix.lower() != ".safetensors":
        found, advice = f"{path.suffix or 'no suffix'}", "adapters are written as .safetensors"
    else:
        return
    expected = "a .safetensors file that is not there yet"
    raise UserError(Problem(where=str(path), field="out", expected=expected, found=found, advice=advice))


@dataclass(frozen=True)
class Used:
    """An adapter file that takes part, and how strongly."""

    path: str
    weight: float
    """Of all layers that have none of their own."""
    of_layer: Weight

    @property
    def name(self) -> str:
        return Path(self.path).stem

    def __str__(self) -> str:
        return f"{self.name}:{self.weight:g}" + (" (by block)" if callable(self.of_layer) else "")


def used(asked: Iterable[AdapterUse]) -> list[Used]:
    """The adapter files that are meant, those of blends in their places. Raises UserError with all that is wrong."""
    found, problems = [], []
    for use in asked:
        if not is_blend(use.path):
            found.append(Used(use.path, use.weight, use.weight))
            continue
        try:
            found += [_in_blend(one, use.weight) for one in read_blend(Path(use.path)).adapters]
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return found


def _in_blend(one: Ingredient, strength: float) -> Used:
    whole = strength * one.weight
    by_layer = (lambda part, path: strength * one.weight_of(part, path)) if one.blocks else whole
    return Used(one.path, whole, by_layer)


def check_tokens(out: Path, tokens: Mapping[str, Mapping[str, torch.Tensor]], force: bool) -> None:
    """Raise UserError if the files that tokens would go to, beside `out`, are there already."""
    files = token_files(out, Adapter({"unet": {}}, tokens=dict(tokens)))
    problems = []
    for file in files.values():
        try:
            check_out(file, force)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)


def read_adapters(paths: Iterable[str]) -> list[Adapter]:
    """The adapters in files, with the files that belong to them. Raises UserError with all that is wrong with any."""
    files = [Path(path) for path in paths]
    adapters, problems = [], []
    for file in files:
        try:
            adapters.append(read_whole(file, named=files))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return adapters


def read_alike(paths: Sequence[str], reporter: Reporter) -> list[Adapter]:
    """Adapters that can be put together, with the same dimensions for the same layer. Their notices are told.

    A 1x1 convolution may be stored as a linear layer in one of them. Raises UserError with everything that is wrong
    with any file, or unless all are for bases of one family and of the same sizes.
    """
    files = list(zip(paths, read_adapters(paths), strict=True))
    for name, adapter in files:
        for notice in adapter.notices:
            reporter.notice(f"{Path(name).name}: {notice}", name)
    families = {adapter.family: name for name, adapter in files if adapter.family}
    if len(families) > 1:
        found = ", ".join(f"{name}: {family}" for family, name in families.items())
        raise UserError(
            Problem(
                where="adapters",
                expected="adapters of one family",
                found=found,
                advice="an adapter works with the family that it was trained on alone",
            )
        )
    shapes: dict[Target, tuple[int, ...]] = {}
    for target, shape in _shapes(files):
        if len(shape) > len(shapes.get(target, ())):
            shapes[target] = shape
    findings = [Findings(name) for name, _ in files]
    adapters = [_shaped(adapter, shapes, found) for (_, adapter), found in zip(files, findings, strict=True)]
    problems = []
    for found in findings:
        try:
            found.stop()
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return adapters


def _shapes(files: Sequence[tuple[str, Adapter]]) -> Iterator[tuple[Target, tuple[int, ...]]]:
    for _, adapter in files:
        for part, layers in adapter.parts.items():
            for path, layer in layers.items():
                yield (part, path), layer.shape


def _shaped(adapter: Adapter, shapes: Mapping[Target, tuple[int, ...]], findings: Findings) -> Adapter:
    parts: dict[str, dict[str, Layer]] = {}
    for part, layers in adapter.parts.items():
        for path, layer in layers.items():
            try:
                parts.setdefault(part, {})[path] = building.shaped(layer, shapes[part, path])
            except building.Misfit as misfit:
                expected, found, _ = misfit.args
                findings.add(f"{part}.{path}", expected, found, "these adapters are for different bases")
    return replace(adapter, parts=parts)


def widest(adapters: Iterable[Adapter]) -> torch.dtype:
    """The number format that loses nothing of any of the adapters, float32 at most."""
    found = {
        tensor.dtype
        for adapter in adapters
        for layers in adapter.parts.values()
        for layer in layers.values()
        for tensor in vars(layer).values()
        if isinstance(tensor, torch.Tensor)
    }
    found |= {vectors.dtype for adapter in adapters for parts in adapter.tokens.values() for vectors in parts.values()}
    return found.pop() if len(found) == 1 and found <= {torch.float16, torch.bfloat16} else torch.float32


def kept_metadata(adapters: Iterable[Adapter]) -> dict[str, str]:
    """What all adapters that say something of their base agree on."""
    said: dict[str, set[str]] = {}
    for adapter in adapters:
        for key in _OF_THE_BASE:
            if key in adapter.metadata:
                said.setdefault(key, set()).add(adapter.metadata[key])
    return {key: values.pop() for key, values in said.items() if len(values) == 1}


def made_metadata(
    out: Path, base: Mapping[str, str], layers: Iterable[Factors], comment: str, merged_from: str = ""
) -> dict[str, str]:
    """The metadata of an adapter that was made and not trained, spelled as sd-scripts' own tools spell it."""
    ranks = {factors.rank for factors in layers}
    dim = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    entries = dict(base) | {
        "ss_output_name": out.stem,
        "ss_network_module": "networks.lora",
        "ss_network_dim": dim,
        "ss_network_alpha": f"{float(dim)}" if dim != "Dynamic" else dim,
        "ss_training_comment": comment,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation_version": f"loratui/{__version__}",
        "modelspec.title": out.stem,
    }
    return entries | ({"modelspec.merged_from": merged_from} if merged_from else {})


def write(
    out: Path,
    adapter: Adapter,
    layers: Iterable[tuple[Target, Kept]],
    reporter: Reporter,
    renamed: Mapping[str, str] | None = None,
) -> Composed:
    """Write a made adapter, in kohya's naming, and report what became of its layers and tokens."""
    reporter.stage("write")
    written = write_adapter(out, adapter)
    for notice in written.notices:
        reporter.notice(notice)
    return Composed(
        out=str(out),
        bytes=written.bytes,
        layers=[
            LayerReport(part=part, path=path, rank=kept.rank, energy=kept.energy, error=kept.error, sv_fro=kept.sv_fro)
            for (part, path), kept in layers
        ],
        tokens={token: str(file) for token, file in written.tokens.items()},
        renamed=dict(renamed or {}),
    )
