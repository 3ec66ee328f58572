"""An adapter written for other programs: in kohya's naming, PEFT's, or cloneofsimo's, its tokens beside it.

Before a file gets its name it is read back and compared with what was to be written, number by number. What a format
can't hold is made into what it can, where that is the same update, and said; where it isn't, nothing is written. The
answer tells which programs load the file, and which of its keys they would pass over.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from engine.errors import Problem, UserError
from engine.formats import kohya, names, numbered, peft
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import listed, shown
from engine.formats.embeddings import A1111, EMBED, ENCODERS, key_of
from engine.formats.layers import DoRA, Layer
from engine.formats.programs import Loading, loadings
from engine.formats.reading import read_adapter
from engine.formats.saving import PRECISIONS, save

Format = Literal["kohya", "peft", "cloneofsimo"]
_VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}


@dataclass(frozen=True)
class Written:
    """What was written, and what others make of it."""

    path: Path
    """The adapter; of an embedding alone the first of its files."""
    bytes: int
    metadata: dict[str, str]
    tokens: dict[str, Path] = field(default_factory=dict)
    """Learned token → the file that holds it: one of its own, or the adapter's."""
    notices: tuple[str, ...] = ()
    """What was made into something else, and what the format has no place for."""
    loads: tuple[Loading, ...] = ()


def write_adapter(path: Path, adapter: Adapter, to: Format = "kohya", precision: str | None = None) -> Written:
    """Write an adapter to a .safetensors file, and in kohya's and PEFT's format each token to a file beside it.

    precision: fp16, bf16 or fp32; None keeps each tensor as it is. All files are whole or not there. Raises UserError
    where the format has no place for a layer, or the number format for a value.
    """
    dtype = PRECISIONS[precision] if precision else None
    made, notices = _PREPARE[to](path, adapter)
    made = _cast(made, dtype)
    tensors, metadata = _TENSORS[to](made)
    files = token_files(path, made, to)
    inside = {token: path for token in made.tokens if token not in files}
    fresh = [file for file in files.values() if not file.exists()]
    try:
        for token, file in files.items():
            if _write_token(file, token, made) == A1111:
                notices.append(f"{shown(token)} can't be a key: the token goes by the name of {file.name}")
        if made.parts or inside:
            metadata = save(path, tensors, metadata, to == "kohya", lambda written: _check(written, made, to))
            size = path.stat().st_size
        else:
            size = sum(file.stat().st_size for file in files.values())
    except BaseException:
        for file in fresh:
            file.unlink(missing_ok=True)
        raise
    return Written(
        path if made.parts or inside else next(iter(files.values()), path),
        size,
        metadata,
        files | inside,
        tuple(notices),
        loadings(tensors, made) if made.parts else (),
    )


# ---- what each format can hold


def _for_kohya(path: Path, adapter: Adapter) -> tuple[Adapter, list[str]]:
    metadata = _carried(adapter)
    if adapter.format != "kohya" and adapter.family and adapter.parts:
        version = {"ss_base_model_version": _VERSIONS[adapter.family], "ss_v2": str(adapter.family == "sd2")}
        metadata = version | {"ss_network_module": "networks.lora"} | metadata
    notices = (
        []
        if _alphas(adapter)
        else ["alphas are left out, since all scales are 1 and diffusers muddles alphas that differ"]
    )
    return dataclasses.replace(adapter, metadata=metadata), notices


def _alphas(adapter: Adapter) -> bool:
    """Whether a file in kohya's naming tells alphas. Without them every program takes the scale to be 1; with alphas
    that differ from layer to layer diffusers gives some layers the alpha of others.
    """
    layers = [layer for modules in adapter.parts.values() for layer in modules.values()]
    plain = all(isinstance(layer, Factors) and layer.scale == 1.0 for layer in layers)
    return not plain or len({layer.rank for layer in layers}) <= 1


def _for_peft(path: Path, adapter: Adapter) -> tuple[Adapter, list[str]]:
    made, notices, problems = _plain(path, adapter, "peft", DoRA)
    for modules in made.parts.values():
        kinds = {type(layer) for layer in modules.values()}
        inputs = [name for name, layer in modules.items() if isinstance(layer, DoRA) and layer.axis]
        if inputs or len(kinds) > 1:
            found = "DoRA with norms of inputs" if inputs else "DoRA and plain layers together"
            problems.append(_no_place(path, "peft", found, inputs or modules, "keep it in kohya's format"))
    if problems:
        raise UserError(problems)
    return made, notices


def _for_cloneofsimo(path: Path, adapter: Adapter) -> tuple[Adapter, list[str]]:
    made, notices, problems = _plain(path, adapter, "cloneofsimo")
    if made.parts and made.family not in ("sd1", "sd2"):
        problems.append(
            Problem(
                where=str(path),
                expected="an adapter for SD1 or SD2, whose modules this format can number",
                found=made.family or "an adapter for a base of other sizes",
                advice="write it in kohya's format",
            )
        )
    if problems:
        raise UserError(problems)
    parts = {}
    for part, modules in made.parts.items():
        walk = _walk(made.family, part, modules)
        outside = [name for name in modules if name not in walk]
        if outside:
            found = "layers that this format doesn't number"
            problems.append(_no_place(path, "cloneofsimo", found, outside, "keep it in kohya's format"))
            continue
        if missing := len(walk) - len(modules):
            notices.append(f"{part}: {missing} modules that the adapter leaves alone are written as zeros")
        parts[part] = {name: modules.get(name) or _zero(made.family, part, name, modules) for name in walk}
    several = [token for token, parts in made.tokens.items() if parts.keys() != {"text_encoder"}
               or len(parts["text_encoder"]) != 1]  # fmt: skip
    if several:
        notices.append(f"tokens of several vectors go into files of their own: {listed(several)}")
    if problems:
        raise UserError(problems)
    return dataclasses.replace(made, parts=_folded(parts, notices)), notices


_PREPARE = {"kohya": _for_kohya, "peft": _for_peft, "cloneofsimo": _for_cloneofsimo}


def _plain(path: Path, adapter: Adapter, to: str, *kept: type) -> tuple[Adapter, list[str], list[Problem]]:
    """The adapter with plain factors in place of what has them, what was so made, and what can't be."""
    parts: dict[str, dict[str, Layer]] = {}
    changed: dict[str, list[str]] = {}
    without: dict[str, list[str]] = {}
    for part, modules in adapter.parts.items():
        for name, layer in modules.items():
            inner = layer.update if isinstance(layer, DoRA) and DoRA in kept else layer
            plain = inner.factors()
            if plain is None:
                without.setdefault(type(inner).__name__, []).append(f"{part}.{name}")
                continue
            if plain is not inner:
                changed.setdefault(type(inner).__name__, []).append(f"{part}.{name}")
            whole = dataclasses.replace(layer, update=plain) if inner is not layer else plain
            parts.setdefault(part, {})[name] = whole
    notices = [
        f"{len(members)} {kind} layers became plain factors, the same update up to the rounding of float32"
        for kind, members in changed.items()
    ]
    advice = "keep it in kohya's format, or make plain factors of it with `loratui adapter compose --how svd`"
    problems = [
        _no_place(path, to, f"{kind} layers, which have no plain factors", members, advice)
        for kind, members in without.items()
    ]
    return dataclasses.replace(adapter, parts=parts, metadata=_carried(adapter)), notices, problems


def _no_place(path: Path, to: str, found: str, members, advice: str) -> Problem:
    members = list(members)
    expected = f"layers that the format of {to} has a place for"
    return Problem(
        where=str(path), field=listed(members), expected=expected, found=f"{found} ({len(members)})", advice=advice
    )


def _carried(adapter: Adapter) -> dict[str, str]:
    """The metadata without what describes the tensors of the file that it is from."""
    return {
        key: value
        for key, value in adapter.metadata.items()
        if key not in (*numbered.PARTS, peft.ENTRY) and not re.fullmatch(r"\w+:\d+:rank", key) and value != EMBED
    }


def _walk(family: str, part: str, modules: Mapping[str, Layer]) -> tuple[str, ...]:
    """The walk that numbers these modules: the one whose order they have, or else today's."""
    walks = [
        names.numbered(family, part, order, extended)
        for extended in (False, True)
        for order in ("current", "legacy", "attention")
    ]
    holding = [walk for walk in walks if modules.keys() <= set(walk)]
    for walk in holding:
        if [name for name in walk if name in modules] == list(modules):
            return walk
    return holding[0] if holding else walks[0]


def _zero(family: str, part: str, name: str, modules: Mapping[str, Layer]) -> Factors:
    out, inputs, *kernel = names.modules(family)[part][name]
    dtype = next(iter(modules.values())).down.dtype
    ones = (1,) * len(kernel)
    return Factors(torch.zeros(1, inputs, *kernel, dtype=dtype), torch.zeros(out, 1, *ones, dtype=dtype), 1.0)


def _folded(parts: Mapping[str, Mapping[str, Factors]], notices: list[str]) -> dict[str, dict[str, Layer]]:
    """Layers whose scale is 1, that of others in their ups: the format has no alpha."""
    made: dict[str, dict[str, Layer]] = {}
    worst, count = 0.0, 0
    for part, modules in parts.items():
        for name, layer in modules.items():
            if layer.scale != 1.0:
                exact = layer.up.double() * layer.scale
                up = exact.to(layer.up.dtype)
                worst = max(worst, float((up.double() - exact).norm() / exact.norm().clamp_min(1e-300)))
                count += 1
                layer = Factors(layer.down, up, float(layer.rank))
            made.setdefault(part, {})[name] = layer
    if count:
        exactly = "exactly" if not worst else f"with a relative error of up to {worst:.1e}"
        notices.append(f"the format has no alpha: the scale of {count} layers went into lora_up, {exactly}")
    return made


# ---- the tensors of a file


def _cast(adapter: Adapter, dtype: torch.dtype | None) -> Adapter:
    if dtype is None:
        return adapter
    parts = {part: {name: _cast_layer(layer, dtype) for name, layer in modules.items()} for part, modules in
             adapter.parts.items()}  # fmt: skip
    tokens = {token: {part: vectors.to(dtype) for part, vectors in parts.items()} for token, parts in
              adapter.tokens.items()}  # fmt: skip
    return dataclasses.replace(adapter, parts=parts, tokens=tokens)


def _cast_layer(layer: Layer, dtype: torch.dtype) -> Layer:
    if isinstance(layer, DoRA):
        return DoRA(_cast_layer(layer.update, dtype), layer.magnitude.to(dtype), layer.axis)
    values = {entry.name: getattr(layer, entry.name) for entry in dataclasses.fields(layer)}
    return dataclasses.replace(
        layer, **{name: value.to(dtype) for name, value in values.items() if isinstance(value, Tensor)}
    )


def _kohya_file(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, str]]:
    naming = adapter.family or ("sdxl" if "text_encoder_2" in adapter.parts else "sd1")
    tensors = kohya.tensors(adapter, lambda part, path: names.kohya_name(naming, part, path))
    if not _alphas(adapter):
        tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(".alpha")}
    return tensors, adapter.metadata


def _peft_file(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, config = {}, {}
    for part, modules in adapter.parts.items():
        plain = {name: layer.update if isinstance(layer, DoRA) else layer for name, layer in modules.items()}
        dora = any(isinstance(layer, DoRA) for layer in modules.values())
        config |= {f"{part}.{field}": value for field, value in peft.configuration(plain, dora).items()}
        for name, layer in modules.items():
            stem = names.diffusers_name(part, name)
            tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"] = plain[name].down, plain[name].up
            if isinstance(layer, DoRA):
                shape = (1, -1, 1, 1) if len(layer.shape) == 4 else (-1,)
                tensors[f"{stem}.lora_magnitude_vector.weight"] = layer.magnitude.reshape(shape)
    return tensors, adapter.metadata | {"format": "pt", peft.ENTRY: json.dumps(config, sort_keys=True)}


def _cloneofsimo_file(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, metadata = {}, dict(adapter.metadata)
    for part, modules in adapter.parts.items():
        metadata[part] = json.dumps(numbered.classes(part, modules))
        for number, layer in enumerate(modules.values()):
            tensors[f"{part}:{number}:up"], tensors[f"{part}:{number}:down"] = layer.up, layer.down
            metadata[f"{part}:{number}:rank"] = str(layer.rank)
    for token, vectors in adapter.tokens.items():
        if _single(vectors):
            tensors[token] = vectors["text_encoder"][0]
            metadata[token] = EMBED
    return tensors, metadata


_TENSORS = {"kohya": _kohya_file, "peft": _peft_file, "cloneofsimo": _cloneofsimo_file}


def _single(vectors: Mapping[str, Tensor]) -> bool:
    return vectors.keys() == {"text_encoder"} and len(vectors["text_encoder"]) == 1


# ---- tokens


def token_files(path: Path, adapter: Adapter, to: Format = "kohya") -> dict[str, Path]:
    """The files that `write_adapter` gives to tokens: beside the adapter, by its name and theirs.

    An embedding alone, of one token, goes to `path` itself. A token's own name never leads out of the folder.
    """
    apart = [token for token, vectors in adapter.tokens.items() if to != "cloneofsimo" or not _single(vectors)]
    if not adapter.parts and len(apart) == len(adapter.tokens) == 1:
        return {apart[0]: path}
    files: dict[str, Path] = {}
    for token in apart:
        word = re.sub(r"[^\w-]+", "_", token.strip("<>"))[:60] or "token"
        stem = f"{path.stem}-{word}"
        file, number = path.with_name(f"{stem}.safetensors"), 2
        while file in files.values() or file == path:
            file, number = path.with_name(f"{stem}-{number}.safetensors"), number + 1
        files[token] = file
    return files


def _write_token(path: Path, token: str, adapter: Adapter) -> str:
    """A token's file: by the token's name, as diffusers has it, or by SDXL's encoders. All four programs read these.

    Returns its first key.
    """
    vectors = adapter.tokens[token]
    if vectors.keys() == {"text_encoder"}:
        tensors = {key_of(token, vectors["text_encoder"].shape[1]): vectors["text_encoder"]}
    else:
        keys = {part: key for key, part in ENCODERS.items()}
        tensors = {keys[part]: tensor for part, tensor in vectors.items()}

    def check(written: Path) -> None:
        back = read_adapter(written).tokens
        found = next(iter(back.values()), {})
        if (
            len(back) != 1
            or found.keys() != vectors.keys()
            or not all(torch.equal(found[part], tensor) for part, tensor in vectors.items())
        ):
            raise RuntimeError(f"the token {shown(token)} reads back as something else")

    save(path, tensors, {}, False, check)
    return next(iter(tensors))


# ---- the check


def _check(written: Path, adapter: Adapter, to: Format) -> None:
    """Raise RuntimeError, a defect of ours, unless a file reads back as what was to be written."""
    back = read_adapter(written)
    if {part: modules.keys() for part, modules in back.parts.items()} != {
        part: modules.keys() for part, modules in adapter.parts.items()
    }:
        raise RuntimeError("the written file reads back with other modules")
    for part, modules in adapter.parts.items():
        for name, layer in modules.items():
            if not same(layer, back.parts[part][name]):
                raise RuntimeError(f"{part}.{name} reads back as something else")
    if to == "cloneofsimo":
        for token, vectors in back.tokens.items():
            if not torch.equal(vectors["text_encoder"], adapter.tokens[token]["text_encoder"]):
                raise RuntimeError(f"the token {shown(token)} reads back as something else")


def same(first: Layer, second: Layer) -> bool:
    """Whether two layers are of one kind and scale, with the same numbers in them."""
    if type(first) is not type(second):
        return False
    if isinstance(first, DoRA):
        magnitudes = first.magnitude.flatten(), second.magnitude.flatten()
        return first.axis == second.axis and torch.equal(*magnitudes) and same(first.update, second.update)
    for entry in dataclasses.fields(first):
        one, other = getattr(first, entry.name), getattr(second, entry.name)
        if isinstance(one, Tensor):
            if (
                not isinstance(other, Tensor)
                or one.dtype != other.dtype
                or not torch.equal(one.flatten(), other.flatten())
            ):
                return False
        elif entry.name != "shape" and one != other:
            return False
    return True
