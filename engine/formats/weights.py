"""A file of tensors, whatever its container: names, dtypes and shapes first, numbers only when asked for.

`open_weights` reads a header without torch; `Weights.load` needs torch and maps the file, so that a checkpoint is held
in memory once. The content decides how a file is read, not its suffix: a pickle named .safetensors goes through the
safe reader all the same.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo, read_header
from engine.formats.pickles import StoredTensor, read_entry, read_pickle

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of one file."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str] = field(default_factory=dict)
    stored: Mapping[str, StoredTensor] | None = None
    """Where the tensors lie, of a pickled file."""
    beside: dict[str, Any] | None = None
    """Plain numbers and texts beside the `state_dict` of a pickled file; None where the tensors are all of it."""
    dropped: tuple[str, ...] = ()
    """Names of what else a pickled file holds, such as the state of an optimizer."""

    def load(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors in the file's own dtypes, on the CPU; of `keys`, or all."""
        tensor = self.reader()
        for key in self.tensors if keys is None else keys:
            yield key, tensor(key)

    def reader(self) -> Callable[[str], Tensor]:
        """A function of a name that gives its tensor, in the file's own dtype, on the CPU.

        The file is mapped for as long as the function or a tensor lives; nothing is read ahead.
        """
        return _safetensors_reader(self.path) if self.stored is None else _pickle_reader(self.path, self.stored)


def open_weights(path: Path) -> Weights:
    """The tensors of a .safetensors, .ckpt, .pt, .pth or .bin file. Raises UserError for anything else."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            Problem(
                where=str(path),
                expected=f"a file of weights ({', '.join(SUFFIXES)})",
                found=f"a {path.suffix or 'nameless'} file",
                advice="choose a .safetensors or .ckpt file",
            )
        )
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(
            Problem(where=str(path), expected="a readable file", found=found, advice="check the path")
        ) from error
    if start.startswith(PICKLED):
        return _pickled(path, read_pickle(path))
    header = read_header(path)
    return Weights(path, header.tensors, header.metadata)


def _pickled(path: Path, content: Any) -> Weights:
    """The tensors of a checkpoint: those of its `state_dict`, or of itself. `metadata` is what `streams` puts there."""
    around = content if isinstance(content, dict) else {}
    wrapped = isinstance(around.get("state_dict"), dict)
    items = around["state_dict"] if wrapped else around
    stored = {key: value for key, value in items.items() if isinstance(key, str) and isinstance(value, StoredTensor)}
    metadata = around.get("metadata")
    texts = isinstance(metadata, dict) and all(isinstance(text, str) for entry in metadata.items() for text in entry)
    names = {"state_dict"} | ({"metadata"} if texts else set()) if wrapped else set(stored)
    rest = {key: value for key, value in around.items() if key not in names}
    plain = {key: value for key, value in rest.items() if isinstance(key, str) and isinstance(value, _PLAIN)}
    return Weights(
        path,
        {key: tensor.info for key, tensor in stored.items()},
        metadata if wrapped and texts else {},
        stored,
        plain if wrapped else None,
        tuple(str(key) for key in rest if not wrapped or key not in plain),
    )


_PLAIN = (bool, int, float, str, type(None))


def _safetensors_reader(path: Path) -> Callable[[str], Tensor]:
    from safetensors import safe_open

    return safe_open(path, framework="pt").get_tensor


def _pickle_reader(path: Path, stored: Mapping[str, StoredTensor]) -> Callable[[str], Tensor]:
    import torch

    # a private mapping: writable, as torch wants its memory, without a way back into the file
    with path.open("rb") as file:
        mapped = torch.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), dtype=torch.uint8)
    return lambda key: _view(path, stored[key], mapped)


def _view(path: Path, stored: StoredTensor, mapped: Tensor) -> Tensor:
    """The tensor as a view of the mapped file (of bytes of its own where the archive compresses them)."""
    import torch

    dtype = torch_dtypes()[stored.dtype]
    storage = stored.storage
    if storage.size == 0:
        return torch.empty(stored.shape, dtype=dtype)
    if storage.entry:
        flat = torch.frombuffer(bytearray(read_entry(path, storage)), dtype=torch.uint8)
    else:
        flat = mapped[storage.offset : storage.offset + storage.size]
        if storage.offset % dtype.itemsize:
            flat = flat.clone()
    return flat.view(dtype)[stored.start :].as_strided(stored.shape, stored.stride)


def torch_dtypes() -> dict[str, Any]:
    """Names of dtypes in safetensors headers → torch's dtypes."""
    import torch

    return {
        "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
        "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
        "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }  # fmt: skip
