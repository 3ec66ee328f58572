"""Adapters written in kohya's naming, the one that every UNet program reads: `lora_unet_….lora_down.weight`,
`.lora_up.weight` and `.alpha` a module, in a safetensors file.

How a module is called differs by model family, so the caller brings the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import Problem, UserError
from engine.files import replace_file
from engine.formats.adapter import Adapter
from engine.formats.container import TensorInfo, file_order, listed, pack_header
from engine.formats.hashes import adapter_hashes

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
_OWN = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata that only the writer knows."""


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
