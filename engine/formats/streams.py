"""Files of tensors written one tensor at a time: safetensors, and PyTorch's zip archives.

The caller says first what every tensor will be, and makes each when it is asked for, so that a checkpoint of any size
passes through the memory of its largest tensor. Both writers write to the path they get; whoever needs the file whole
or not at all wraps them in `engine.files.replace_file` or `replace_folder`.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.formats.container import TensorInfo, file_order, pack_header
from engine.formats.weights import torch_dtypes

if TYPE_CHECKING:
    from torch import Tensor

Wrote = Callable[[int], None]
"""Is told of every so many bytes that were written."""

HASH = "modelspec.hash_sha256"
"""Metadata that tells the SHA-256 of the tensors' bytes (ModelSpec 1.0.1); a file with other bytes gets another."""

_ALIGNMENT = 64
"""Where PyTorch's own archives let the bytes of a tensor begin, so that they can be mapped."""

_STORAGES = {
    "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage", "F64": "DoubleStorage",
    "I64": "LongStorage", "I32": "IntStorage", "I16": "ShortStorage", "I8": "CharStorage", "U8": "ByteStorage",
    "BOOL": "BoolStorage",
}  # fmt: skip
"""Names of dtypes → classes of torch; tensors of all others lie in bytes and name their dtype."""


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """What a tensor will be, and how to get it."""

    info: TensorInfo
    make: Callable[[], Tensor]

    def bytes(self) -> memoryview:
        """The numbers, row by row. ValueError if they are not what was promised."""
        import torch

        tensor = self.make()
        if tensor.dtype != torch_dtypes()[self.info.dtype] or tuple(tensor.shape) != self.info.shape:
            raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} in place of {self.info}")
        return memoryview(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def write_safetensors(
    path: Path, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], wrote: Wrote = lambda size: None
) -> None:
    """Write a .safetensors file, the same bits for the same content. A `modelspec.hash_sha256` is made to be right."""
    layout = {key: tensor.info for key, tensor in tensors.items()}
    entries = dict(metadata) | ({HASH: f"0x{0:064}"} if HASH in metadata else {})
    digest = hashlib.sha256() if HASH in entries else None
    with path.open("wb") as file:
        file.write(pack_header(layout, entries))
        for key in file_order(layout):
            content = tensors[key].bytes()
            file.write(content)
            if digest:
                digest.update(content)
            wrote(len(content))
        if digest:
            file.seek(0)
            file.write(pack_header(layout, entries | {HASH: "0x" + digest.hexdigest()}))


def write_pickle(path: Path, content: Any, wrote: Wrote = lambda size: None) -> None:
    """Write what `torch.save` would write of plain containers, numbers, texts and `LazyTensor`s.

    torch.load reads it with weights_only. TypeError for anything else in `content`.
    """
    text = io.BytesIO()
    pickler = _Pickler(text)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _put(archive, "data.pkl", text.getvalue())
        _put(archive, "byteorder", b"little")
        for number, tensor in enumerate(pickler.tensors):
            _put(archive, f"data/{number}", tensor.bytes())
            wrote(tensor.info.size)
        _put(archive, "version", b"3\n")


def _put(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    with archive.open(_entry(archive, name, len(content)), "w", force_zip64=_is_large(len(content))) as file:
        file.write(content)


def _is_large(size: int) -> bool:
    return size >= zipfile.ZIP64_LIMIT


def _entry(archive: zipfile.ZipFile, name: str, size: int) -> zipfile.ZipInfo:
    """An entry, without a date, whose bytes begin at a multiple of 64: a field of nothing fills up its header."""
    entry = zipfile.ZipInfo(f"archive/{name}")
    start = archive.start_dir + 30 + len(entry.filename) + (20 if _is_large(size) else 0) + 4
    padding = -start % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", padding) + b"\0" * padding
    return entry


def _is_spelling(value: Any) -> bool:
    """Whether this is one of the names with which torch spells tensors."""
    import torch
    from torch import _utils

    calls = (_utils._rebuild_tensor_v2, _utils._rebuild_tensor_v3, OrderedDict, torch.UntypedStorage)
    storages = (getattr(torch, name) for name in _STORAGES.values())
    return type(value) in (OrderedDict, torch.dtype) or any(value is name for name in (*calls, *storages))


class _Storage:
    """The numbers of one tensor, as a pickle names them."""

    def __init__(self, number: int, tensor: LazyTensor):
        self.number, self.info = number, tensor.info


class _Pickler(pickle.Pickler):
    """Writes plain content, and for each tensor the call that makes it from a numbered storage."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=2)
        self.tensors: list[LazyTensor] = []

    def persistent_id(self, value: Any) -> tuple | None:
        if not isinstance(value, _Storage):
            return None
        import torch

        name = _STORAGES.get(value.info.dtype)
        kind = getattr(torch, name) if name else torch.UntypedStorage
        whole = TensorInfo(value.info.dtype if name else "U8", value.info.shape)
        return "storage", kind, str(value.number), "cpu", value.info.size // TensorInfo(whole.dtype, ()).size

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, LazyTensor):
            return self._reduced(value)
        if _is_spelling(value):
            return NotImplemented
        raise TypeError(f"{type(value).__name__} is no plain content")

    def _reduced(self, tensor: LazyTensor) -> tuple:
        import torch
        from torch._utils import _rebuild_tensor_v2, _rebuild_tensor_v3

        storage = _Storage(len(self.tensors), tensor)
        self.tensors.append(tensor)
        shape = tensor.info.shape
        stride = tuple(torch.empty(shape, device="meta").stride())
        # sizes, no gradient, no hooks
        arguments = (storage, 0, shape, stride, False, OrderedDict())
        if tensor.info.dtype in _STORAGES:
            return _rebuild_tensor_v2, arguments
        return _rebuild_tensor_v3, (*arguments, torch_dtypes()[tensor.info.dtype])
