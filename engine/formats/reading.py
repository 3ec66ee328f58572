"""Any adapter file: told apart by its keys, understood whole or refused.

`read_adapter` opens a file without running anything in it, finds the module and the tensor that each key stands for,
and makes layers of them in the file's own numbers, mapped and not copied. Reading is all or nothing: whatever isn't
understood, or fits no module, is reported by its key and never dropped, since the rest alone is another adapter.
`fitted` then makes the adapter one for a base at hand, and refuses what doesn't fit it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from engine.errors import Problem
from engine.formats import building, embeddings, foreign, keys, names, numbered, peft
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import listed, shown
from engine.formats.embeddings import Token
from engine.formats.findings import Findings, times
from engine.formats.layers import DoRA, Layer
from engine.formats.opening import Opened, open_adapter
from engine.formats.said import family_said

Target = tuple[str, str]
"""A part of the model and the path of a module in it."""
Shape = tuple[int, ...]
Modules = dict[Target, dict[str, str]]
"""Module → role → key."""

_DIVERGED = "its training diverged: choose an earlier checkpoint"
_MIXED = "the file mixes two adapters: split it"


def read_adapter(path: Path, family: str | None = None) -> Adapter:
    """The adapter in a file, in the file's own number formats.

    family: sd1, sd2 or sdxl where the adapter must be one for it. A missing alpha means alpha = rank. The tensors are
    views of the file until they are copied. Raises UserError with everything that is wrong with the file.
    """
    opened = open_adapter(path)
    findings = Findings(path)
    tokens = embeddings.in_adapter(opened.tensors, opened.metadata)
    rest = {key: info for key, info in opened.tensors.items() if key not in tokens}
    known, spelling = "", "embedding"
    modules: Modules = {}
    if any(numbered.KEY.fullmatch(key) for key in rest):
        spelling = "cloneofsimo"
        strangers = [key for key in rest if not numbered.KEY.fullmatch(key)]
        modules, known = numbered.modules_of(rest, findings)
        findings.problems += foreign.problems(findings.where, strangers)
    elif alone := embeddings.alone(rest, opened.word):
        tokens |= alone
    elif rest:
        modules, spelling = _named(rest, opened, findings)
    if not opened.tensors:
        findings.add("", "an adapter", "a file without tensors", "choose another file")
    vectors = _vectors(tokens, opened, findings)
    layers = _layers(modules, opened, findings)
    families = [known] if known else _families(layers, vectors, opened, family, findings)
    known = families[0] if len(families) == 1 else ""
    if family and known and known != family and not findings:
        findings.add("", f"an adapter for {family}", f"one for {known}", "choose the base that it was trained on")
    parts = _parts(layers, families, findings)
    findings.stop()
    return Adapter(parts, dict(opened.metadata), vectors, spelling, known, opened.notices)


def _named(tensors: Mapping[str, object], opened: Opened, findings: Findings) -> tuple[Modules, str]:
    """Modules by what their keys are called, and the spelling that most of them have."""
    modules: Modules = {}
    spellings: dict[str, int] = {}
    others, owners = [], {}
    for key in tensors:
        found = keys.parse(key)
        if found is None:
            others.append(key)
        elif not found.path:
            findings.add(found.stem, "modules of SD1, SD2 or SDXL", "no such module", _other_base(opened))
        else:
            roles, target = modules.setdefault((found.part, found.path), {}), (found.part, found.path)
            if owners.setdefault(target, found.stem) != found.stem or found.role in roles:
                findings.add(found.stem, "one update a module", f"{owners[target]} for the same one", _MIXED)
            roles[found.role] = key
            spellings[found.spelling] = spellings.get(found.spelling, 0) + (found.role != "alpha")
    findings.problems += foreign.problems(findings.where, others)
    foreign_stems = {key.partition(".")[0] for key in others}
    # an alpha beside what is foreign has been reported with it
    kept = {
        target: roles
        for target, roles in modules.items()
        if roles.keys() != {"alpha"} or owners[target] not in foreign_stems
    }
    return kept, max(spellings, key=spellings.__getitem__, default="kohya")


def _other_base(opened: Opened) -> str:
    """Advice for an adapter of another model, with what the file says of its base."""
    said = opened.metadata.get("ss_base_model_version") or opened.metadata.get("modelspec.architecture")
    if not said and any(key.startswith("lora_te2_") for key in opened.tensors):
        said = "SDXL, by the names of its second text encoder"
    known = ", ".join(shown(part) for part in (said, opened.metadata.get("ss_sd_model_name")) if part)
    return "choose the base that it was trained on" + (f" ({known})" if known else "")


# ---- tensors


def _tensor(key: str, name: str, opened: Opened, findings: Findings) -> Tensor | None:
    try:
        return opened.tensor(key)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        findings.add(name, "tensors that can be loaded", shown(str(error)), "the file is damaged: write it again")
        return None


def _layers(modules: Modules, opened: Opened, findings: Findings) -> dict[Target, Layer]:
    """The layers of all modules, each in the shape that its tensors alone tell."""
    try:
        settings = peft.Settings(opened.path, opened.metadata)
    except peft.Unreadable as error:
        findings.add("", "a configuration as PEFT writes it", str(error), "write the file again")
        return {}
    layers = {}
    for (part, path), roles in modules.items():
        name = next(iter(roles.values()))
        name = name.removesuffix("".join(suffix for suffix in keys.KOHYA if name.endswith(suffix)))
        tensors = {role: tensor for role, key in roles.items() if (tensor := _tensor(key, name, opened, findings))
                   is not None}  # fmt: skip
        if len(tensors) < len(roles):
            continue
        try:
            alpha = _alpha(tensors.get("alpha"))
            layer = building.make(tensors, alpha)
            if alpha is None and (said := settings.alpha(part, path, layer.rank)) is not None:
                layer = building.make(tensors, said)
            if not building.finite(layer):
                raise building.Misfit("finite numbers", "NaN or infinity", _DIVERGED)
            layers[part, path] = layer
        except building.Misfit as misfit:
            findings.add(name, *misfit.args)
        except peft.Unreadable as error:
            findings.add("", "a configuration as PEFT writes it", str(error), "write the file again")
    return layers


def _alpha(tensor: Tensor | None) -> float | None:
    if tensor is None:
        return None
    if tensor.numel() != 1:
        raise building.Misfit("an alpha of one number", f"{times(tensor.shape)} of them", "write it again")
    alpha = float(tensor.item())
    if not math.isfinite(alpha):
        raise building.Misfit("finite numbers", "NaN or infinity", _DIVERGED)
    return alpha


def _vectors(tokens: Mapping[str, Token], opened: Opened, findings: Findings) -> dict[str, dict[str, Tensor]]:
    """Token → encoder → vectors, n x width."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, (word, encoder) in tokens.items():
        tensor = _tensor(key, key, opened, findings)
        if tensor is None:
            continue
        if tensor.dtype not in building.READABLE or tensor.ndim not in (1, 2) or not tensor.numel():
            findings.add(key, "the vectors of a token", f"{times(tensor.shape)} of {tensor.dtype}", "write it again")
        elif not bool(tensor.isfinite().all()):
            findings.add(key, "finite numbers", "NaN or infinity", _DIVERGED)
        elif encoder in found.setdefault(word, {}):
            findings.add(key, "one set of vectors a token and encoder", f"{shown(word)} twice", _MIXED)
        else:
            found[word][encoder] = tensor if tensor.ndim == 2 else tensor[None]
    return found


# ---- what it is for


def _families(
    layers: Mapping[Target, Layer],
    tokens: Mapping[str, Mapping[str, Tensor]],
    opened: Opened,
    asked: str | None,
    findings: Findings,
) -> list[str]:
    """The families that these modules fit; one where something tells which. None where the base has other sizes.

    A family that has most of the modules but not all is that of a damaged file.
    """
    widths = {encoder: vectors.shape[1] for token in tokens.values() for encoder, vectors in token.items()}
    if not layers:
        found = embeddings.family(widths)
        return [found] if found else []
    misfits = names.families_of({target: layer.shape for target, layer in layers.items()})
    said = asked or family_said(opened.metadata) or ("sdxl" if _sgm(opened) else "")
    fitting = [family for family in names.FAMILIES if not misfits[family]]
    if fitting:
        return [said] if said in fitting else fitting
    best = asked or min(misfits, key=lambda family: len(misfits[family]))
    if not asked and 2 * len(misfits[best]) > len(layers):
        return []
    for target in misfits[best]:
        weight = names.modules(best).get(target[0], {}).get(target[1])
        expected = f"factors for a {times(weight)} weight of {best}" if weight else f"modules of {best}"
        findings.add(".".join(target), expected, building.described(layers[target]), _other_base(opened))
    return [best]


def _sgm(opened: Opened) -> bool:
    """Whether names are SDXL's: kohya's of its UNet and of its two text encoders."""
    starts = ("lora_unet_input_blocks", "lora_unet_output_blocks", "lora_te1_", "lora_te2_")
    return any(key.startswith(starts) for key in opened.tensors)


def _parts(layers: Mapping[Target, Layer], families: list[str], findings: Findings) -> dict[str, dict[str, Layer]]:
    """Layers by part and path, in the dimensions of the weights that all these families have for them."""
    tables = [names.modules(family) for family in families]
    parts: dict[str, dict[str, Layer]] = {}
    for (part, path), layer in layers.items():
        weights = {table.get(part, {}).get(path) for table in tables}
        weight = weights.pop() if len(weights) == 1 else None
        if weight and layer.shape != weight and names.flat(layer.shape) == names.flat(weight):
            try:
                layer = building.shaped(layer, weight)
            except building.Misfit as misfit:
                findings.add(f"{part}.{path}", *misfit.args[:2], "the file is damaged, or no adapter of this base")
        parts.setdefault(part, {})[path] = layer
    return parts


# ---- for a base at hand


def fitted(adapter: Adapter, shapes: Mapping[Target, Shape], where: Path | str) -> Adapter:
    """The adapter as plain factors for a base whose modules have weights of these shapes.

    Factors keep their numbers and take the dimensions of their layers; other kinds become plain factors where that is
    exact. Raises UserError with every module that the base doesn't have, or has in another size, and every kind that
    has no plain factors.
    """
    findings = Findings(where)
    said = adapter.metadata.get("ss_base_model_version") or adapter.metadata.get("modelspec.architecture")
    known = ", ".join(
        shown(part) for part in (said or adapter.family, adapter.metadata.get("ss_sd_model_name")) if part
    )
    advice = "choose the base that it was trained on" + (f" ({known})" if known else "")
    parts: dict[str, dict[str, Layer]] = {}
    strange: dict[str, list[str]] = {}
    for part, modules in adapter.parts.items():
        for path, layer in modules.items():
            name = f"{part}.{path}"
            if (weight := shapes.get((part, path))) is None:
                findings.add(name, "modules of this base", "no such module", advice)
                continue
            try:
                layer = building.shaped(layer, weight)
            except building.Misfit as misfit:
                findings.add(name, misfit.args[0], misfit.args[1], advice)
                continue
            plain = layer if isinstance(layer, Factors) else layer.factors()
            if plain is None:
                strange.setdefault(_kind(layer), []).append(name)
            else:
                parts.setdefault(part, {})[path] = plain
    for kind, modules in strange.items():
        findings.problems.append(_not_plain(findings.where, kind, modules))
    if not adapter.parts and adapter.tokens:
        findings.add(", ".join(map(shown, adapter.tokens)), "an adapter", "a textual inversion embedding",
                     "it is used as a word of the prompt, not as an adapter")  # fmt: skip
    findings.stop()
    return dataclasses.replace(adapter, parts=parts)


def _kind(layer: Layer) -> str:
    return "DoRA" if isinstance(layer, DoRA) else type(layer).__name__


def _not_plain(where: str, kind: str, modules: Iterable[str]) -> Problem:
    modules = list(modules)
    return Problem(
        where=where,
        field=listed(modules),
        expected="a LoRA, LoCon or LoHa, which have plain factors",
        found=f"{kind} layers ({len(modules)})",
        advice="read as a plain LoRA it would draw other pictures: make one of it with `loratui adapter compose`",
    )
