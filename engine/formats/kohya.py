"""Adapters in kohya's naming, the one that every UNet program reads: `lora_unet_….lora_down.weight`, `.lora_up.weight`
and `.alpha` a module, in a safetensors file.

How a module is called differs by model family, so the caller brings the names. Reading is all or nothing: whatever in a
file is no plain LoRA, or fits no module, is reported and never dropped, since the rest alone is a different adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import Problem, UserError
from engine.files import replace_file
from engine.formats import foreign
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import Header, TensorInfo, file_order, listed, pack_header, read_header, shown
from engine.formats.hashes import adapter_hashes

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
_READABLE = {*_DTYPES.values(), "F64"}
_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
_OWN = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata that only the writer knows."""

Target = tuple[str, str]
"""A part of the model and the path of a module in it."""
Shape = tuple[int, ...]


class _Plan(NamedTuple):
    """Where a module of the file goes, and in which dimensions."""

    name: str
    target: Target
    down: Shape
    up: Shape


class _Findings:
    """What is wrong with a file, grouped: hundreds of modules often share one mistake."""

    def __init__(self, path: Path):
        self.where = str(path)
        self.groups: dict[tuple[str, str], dict[str, str]] = {}
        self.problems: list[Problem] = []

    def add(self, name: str, expected: str, found: str, advice: str) -> None:
        self.groups.setdefault((expected, advice), {})[name] = found

    def stop(self) -> None:
        """Raise UserError if there is anything to say."""
        for (expected, advice), members in self.groups.items():
            found = members[min(members)] + (f" (the first of {len(members)} modules)" if len(members) > 1 else "")
            self.problems.append(
                Problem(where=self.where, field=listed(members), expected=expected, found=found, advice=advice)
            )
        if self.problems:
            raise UserError(self.problems)


def read(path: Path, names: Mapping[str, Target], shapes: Mapping[Target, Shape] | None = None) -> Adapter:
    """The adapter in a file, its factors in the file's own number format.

    names: kohya's name of every module that an adapter may change → its part and path.
    shapes: the weight shapes of those modules; factors are then checked against them and brought to their dimensions
        (a 1x1 convolution may be stored as a linear layer and the other way round).

    A missing alpha means alpha = rank. Raises UserError with everything that is wrong with the file.
    """
    header = read_header(path)
    findings = _Findings(path)
    modules = _grouped(header, findings)
    plans = [plan for name in modules if (plan := _planned(name, modules[name], header, names, shapes, findings))]
    _check_targets(plans, findings)
    parts: dict[str, dict[str, Factors]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for plan in plans:
                part, module = plan.target
                factors = _loaded(plan, modules[plan.name], file.get_tensor, findings)
                if factors:
                    parts.setdefault(part, {})[module] = factors
    except SafetensorError as error:
        findings.add("", "a safetensors file that the library can load", shown(str(error)), "write it again")
    findings.stop()
    return Adapter(parts, header.metadata)


def _grouped(header: Header, findings: _Findings) -> dict[str, dict[str, str]]:
    """The keys of the file by module name and suffix; others are reported by kind."""
    modules: dict[str, dict[str, str]] = {}
    others = []
    for key in header.tensors:
        suffix = next((suffix for suffix in (_DOWN, _UP, _ALPHA) if key.endswith(suffix)), None)
        if suffix and "." not in key.removesuffix(suffix):
            modules.setdefault(key.removesuffix(suffix), {})[suffix] = key
        else:
            others.append(key)
    findings.problems += foreign.problems(findings.where, others)
    if foreign_modules := {key.partition(".")[0] for key in others}:
        # An alpha beside LoHa factors is part of what has been reported already.
        modules = {
            name: keys for name, keys in modules.items() if name not in foreign_modules or _DOWN in keys or _UP in keys
        }
    if not modules and not others:
        findings.add("", "a LoRA", "a safetensors file without tensors", "choose another file")
    return modules


def _planned(
    name: str,
    keys: Mapping[str, str],
    header: Header,
    names: Mapping[str, Target],
    shapes: Mapping[Target, Shape] | None,
    findings: _Findings,
) -> _Plan | None:
    """The place and dimensions of one module's factors, or None once it is reported why they have none."""
    target = names.get(name)
    if target is None:
        findings.add(name, "modules of this base", "no such module", _other_base(header))
    missing = [suffix for suffix in (_DOWN, _UP) if suffix not in keys]
    if missing:
        found = f"no {' and no '.join(missing)}"
        findings.add(name, "lora_down and lora_up of every module", found, "the file is incomplete: write it again")
    if missing or target is None:
        return None
    down, up = header.tensors[keys[_DOWN]], header.tensors[keys[_UP]]
    if not {down.dtype, up.dtype} <= _READABLE:
        found = f"{down.dtype} and {up.dtype}"
        findings.add(name, "float16, bfloat16, float32 or float64", found, "save it in one of these")
        return None
    layer = shapes[target] if shapes else None
    dimensions = len(layer) if layer else len(down.shape)
    fitted_down, fitted_up = _with_dimensions(down.shape, dimensions), _with_dimensions(up.shape, dimensions)
    found = f"lora_down {_times(down.shape)}, lora_up {_times(up.shape)}"
    if not fitted_down or not fitted_up or not 0 < fitted_down[0] == fitted_up[1] or math.prod(fitted_up[2:]) != 1:
        expected = "factors rankxin and outxrank of one rank" + (f" for a {_times(layer)} weight" if layer else "")
        findings.add(name, expected, found, "the file is damaged, or no LoRA of this base")
        return None
    if layer and (fitted_down[1:] != layer[1:] or fitted_up[0] != layer[0]):
        findings.add(name, f"factors for a {_times(layer)} weight", found, _other_base(header))
        return None
    return _Plan(name, target, fitted_down, fitted_up)


def _with_dimensions(shape: Shape, dimensions: int) -> Shape | None:
    """`shape` as that of a linear layer (2) or a convolution (4); None where that would change what it means."""
    if len(shape) not in (2, 4) or dimensions not in (2, 4):
        return None
    if len(shape) > dimensions and shape[2:] != (1, 1):
        return None
    return shape[:2] if dimensions == 2 else (*shape, 1, 1)[:4]


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _other_base(header: Header) -> str:
    """Advice for an adapter of another model, with what the file says of its base."""
    said = header.metadata.get("ss_base_model_version") or header.metadata.get("modelspec.architecture")
    if not said and any(key.startswith("lora_te2_") for key in header.tensors):
        said = "SDXL, by the names of its second text encoder"
    name = header.metadata.get("ss_sd_model_name")
    known = ", ".join(shown(part) for part in (said, name) if part)
    return "choose the base that it was trained on" + (f" ({known})" if known else "")


def _check_targets(plans: list[_Plan], findings: _Findings) -> None:
    seen: dict[Target, str] = {}
    for plan in plans:
        if (former := seen.setdefault(plan.target, plan.name)) != plan.name:
            found = f"{former} for the same one"
            findings.add(plan.name, "one pair of factors a module", found, "the file mixes two adapters: split it")


def _loaded(
    plan: _Plan, keys: Mapping[str, str], tensor: Callable[[str], Tensor], findings: _Findings
) -> Factors | None:
    """The factors of one module, or None once it is reported what is wrong with their values."""
    down = tensor(keys[_DOWN]).clone().reshape(plan.down)
    up = tensor(keys[_UP]).clone().reshape(plan.up)
    alpha = tensor(keys[_ALPHA]) if _ALPHA in keys else torch.tensor(float(plan.down[0]))
    if alpha.numel() != 1:
        findings.add(plan.name, "an alpha of one number", f"{_times(tuple(alpha.shape))} of them", "write it again")
        return None
    if not all(values.isfinite().all() for values in (down, up, alpha)):
        found = "NaN or infinity"
        findings.add(plan.name, "finite numbers", found, "its training diverged: choose an earlier checkpoint")
        return None
    return Factors(down, up, float(alpha.item()))


def write(path: Path, adapter: Adapter, name: Callable[[str, str], str], precision: str) -> dict[str, str]:
    """Write `adapter` to `path`, whole or not at all, the same bits for the same adapter. Returns the file's metadata.

    name: (part, path) → kohya's name of the module. precision: fp16, bf16 or fp32. An alpha that this format can't
    hold exactly is kept in float32, since readers take it as a number whatever its format.

    The metadata is the adapter's with `sshs_model_hash` and `sshs_legacy_hash`, and `modelspec.hash_sha256` where there
    are other modelspec entries. Raises UserError naming the modules whose values aren't finite in `precision`.
    """
    tensors = _tensors(adapter, name, PRECISIONS[precision])
    _check_finite(path, tensors, precision)
    layout = {key: TensorInfo(_DTYPES[tensor.dtype], tuple(tensor.shape)) for key, tensor in tensors.items()}
    data = b"".join(tensors[key].reshape(-1).view(torch.uint8).numpy().tobytes() for key in file_order(layout))
    metadata = {key: value for key, value in adapter.metadata.items() if key not in _OWN}
    metadata |= adapter_hashes(layout, data, metadata)
    if "modelspec.sai_model_spec" in metadata:
        metadata["modelspec.hash_sha256"] = "0x" + metadata["sshs_model_hash"]
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(pack_header(layout, metadata))
        file.write(data)
    return metadata


def _tensors(adapter: Adapter, name: Callable[[str, str], str], dtype: torch.dtype) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for part, modules in adapter.parts.items():
        for path, factors in modules.items():
            base = name(part, path)
            if base + _DOWN in tensors:
                raise ValueError(f"two modules are named {base}; one of them is {part}.{path}")
            tensors[base + _DOWN] = factors.down.detach().to("cpu", dtype).contiguous()
            tensors[base + _UP] = factors.up.detach().to("cpu", dtype).contiguous()
            exact = float(torch.tensor(factors.alpha, dtype=dtype)) == factors.alpha
            tensors[base + _ALPHA] = torch.tensor(factors.alpha, dtype=dtype if exact else torch.float32)
    return tensors


def _check_finite(path: Path, tensors: Mapping[str, Tensor], precision: str) -> None:
    bad = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        limit = torch.finfo(PRECISIONS[precision]).max
        raise UserError(
            Problem(
                where=str(path),
                field=listed(bad),
                expected=f"finite numbers up to {limit:g}, the largest of {precision}",
                found="values beyond, or not numbers at all",
                advice="nothing was written: save in bf16 or fp32, or lower the learning rate if the training diverged",
            )
        )
