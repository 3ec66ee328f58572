"""Adapter files brought to the disk: safetensors, whole or not there, with the hashes that others look them up by.

Tensors go through memory one at a time, twice: once for the hashes, which stand in front of them, and once to be
written. The same tensors and metadata give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import Problem, UserError
from engine.files import replace_file
from engine.formats.container import TensorInfo, file_order, listed, pack_header
from engine.formats.hashes import adapter_hashes

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
OWN = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata that depends on the tensors' bytes."""


def save(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    hashed: bool = True,
    check: Callable[[Path], None] = lambda written: None,
) -> dict[str, str]:
    """Write tensors to `path`, atomically. Returns the file's metadata.

    hashed: add `sshs_model_hash` and `sshs_legacy_hash`, and `modelspec.hash_sha256` where there are other modelspec
    entries. check: looks at the written file before it gets its name; what it raises leaves everything as it was.
    Raises UserError naming tensors whose values aren't finite in their format.
    """
    _check_finite(path, tensors)
    layout = {key: TensorInfo(_DTYPES[tensor.dtype], tuple(tensor.shape)) for key, tensor in tensors.items()}
    entries = {key: value for key, value in metadata.items() if key not in OWN}
    if hashed:
        entries |= adapter_hashes(layout, _pieces(layout, tensors), entries)
        if "modelspec.sai_model_spec" in entries:
            entries["modelspec.hash_sha256"] = "0x" + entries["sshs_model_hash"]
    with replace_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(pack_header(layout, entries))
            file.writelines(_pieces(layout, tensors))
        check(temporary)
    return entries


def _pieces(layout: Mapping[str, TensorInfo], tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """The tensors' bytes in the order of the file."""
    for key in file_order(layout):
        flat = tensors[key].detach().cpu().contiguous().reshape(-1)
        yield memoryview(flat.view(torch.uint8).numpy())


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    bad = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if not bad:
        return
    dtype = tensors[min(bad)].dtype
    name = next((name for name, known in PRECISIONS.items() if known == dtype), "its format")
    raise UserError(
        Problem(
            where=str(path),
            field=listed(bad),
            expected=f"finite numbers up to {torch.finfo(dtype).max:g}, the largest of {name}",
            found="values beyond, or not numbers at all",
            advice="nothing was written: save in bf16 or fp32, or lower the learning rate if the training diverged",
        )
    )


def number(value: float, dtype: torch.dtype) -> Tensor:
    """A scalar in `dtype`, or in the narrowest of float32 and float64 that holds it exactly where `dtype` doesn't."""
    for candidate in (dtype, torch.float32):
        if float(torch.tensor(value, dtype=candidate)) == value:
            return torch.tensor(value, dtype=candidate)
    return torch.tensor(value, dtype=torch.float64)
