"""PyTorch's pickled checkpoints, read without ever running what a pickle asks for.

A pickle is a program: it names Python globals and calls them. Here every name goes through one table that holds plain
containers, tensors and numbers, all of them replaced by inert functions of our own; any other name stops the reading
and is reported. Before changing the table: an entry must be harmless for *any* arguments, and must offer nothing that
the BUILD opcode could write to. Tensors come back as `StoredTensor`, a place in the file, so that a 4 GB checkpoint can
be looked into without reading it, and later be mapped instead of copied. No torch.

Both layouts are read: the zip archive of PyTorch 1.6 and later, and the bare sequence of pickles before it.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # how Python 2, and so protocol 2, names Python 3's globals
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from engine.errors import Problem, UserError
from engine.formats.container import ITEM_SIZES, TensorInfo
from engine.formats.unpickling import Bounded, Damaged, Refused, check_keys

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file from before the zip layout."""

_DTYPES = {
    "float32": "F32", "float": "F32", "float16": "F16", "half": "F16", "bfloat16": "BF16", "float64": "F64",
    "double": "F64", "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16", "short": "I16",
    "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
"""torch's dtypes → the names that safetensors headers use, and the rest of the engine with them."""

_STORAGES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "UntypedStorage": "U8",
}  # fmt: skip

MAX_TEXT = 100_000_000
"""Bytes of the pickle itself, without its tensors, that are read at most."""

MAX_DIMENSIONS = 64
_NAMED_ONLY = {"pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"}
"""Classes that may be named but not made. The published SD 1.x checkpoints have this one as a key of a dict, beside
the weights; it becomes a label, nothing is imported."""


@dataclass(eq=False)
class Storage:
    """Numbers in a file that tensors are views of."""

    dtype: str
    count: int
    offset: int = -1
    """Where they begin in the file, in bytes; -1 until it is known, or where they are compressed."""
    entry: str = ""
    """The name of the archive's entry that holds them compressed; `read_entry` unpacks it."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * ITEM_SIZES[self.dtype]


class StoredTensor(NamedTuple):
    """A tensor that still lies in its file: a strided view of a storage."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    """Elements of `dtype` before the first one."""
    storage: Storage

    @property
    def info(self) -> TensorInfo:
        return TensorInfo(self.dtype, self.shape)


def read_pickle(path: Path) -> Any:
    """The object that `torch.save` wrote, with a `StoredTensor` for each tensor and plain containers around them.

    Ordered and default dicts become dicts, parameters their tensors, dtypes and devices their names. Raises UserError
    with the name of what the pickle asks for where that is anything else, and for damaged files.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                return _read_zip(file)
            if start[:1] == b"\x80":
                return _read_legacy(file)
            raise Damaged("a file that is no PyTorch checkpoint" if start else "an empty file")
    except Refused as error:
        raise UserError(
            Problem(
                where=str(path),
                expected="a pickle of tensors and plain containers",
                found=f"one that {error}, so opening it could run code",
                advice="leave it unopened, or find the same weights as .safetensors",
            )
        ) from None
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(
            Problem(where=str(path), expected="a readable file", found=found, advice="check the path")
        ) from error
    except (Damaged, zipfile.BadZipFile, pickle.UnpicklingError, *_MALFORMED) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    found = str(error) if isinstance(error, Damaged) else f"a damaged one ({str(error)[:200] or type(error).__name__})"
    advice = "copy or download it again"
    return UserError(Problem(where=str(path), expected="a whole PyTorch checkpoint", found=found, advice=advice))


_MALFORMED = (
    EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
"""What the pickle and zip modules raise over content that makes no sense."""


# ---- the two layouts


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        root = next((name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")), None)
        if root is None:
            raise Damaged("a zip archive without a data.pkl, which torch.save would have written")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big":
            raise Damaged("numbers in big-endian order")

        def fill(storage: Storage, key: str) -> None:
            entry = archive.getinfo(f"{root}data/{key}")
            if entry.file_size < storage.size:
                raise Damaged(f"{entry.file_size} bytes where {storage.size} belong")
            if entry.compress_type == zipfile.ZIP_STORED:
                storage.offset = _data_offset(file, entry)
            else:
                storage.entry = entry.filename

        if archive.getinfo(f"{root}data.pkl").file_size > MAX_TEXT:
            raise Damaged(f"a pickle of more than {MAX_TEXT // 10**6} MB beside its tensors")
        return _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), fill).load()


def read_entry(path: Path, storage: Storage) -> bytes:
    """The bytes of a compressed storage. Raises UserError where they can't be unpacked."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(storage.entry) as entry:
            content = entry.read(storage.size)
            if len(content) < storage.size:
                raise Damaged(f"{len(content)} bytes where {storage.size} belong")
            return content
    except (Damaged, zipfile.BadZipFile, *_MALFORMED) as error:
        raise _damaged(path, error) from error


def _data_offset(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: behind its local header, whose name and padding have lengths of their own."""
    here = file.tell()
    file.seek(entry.header_offset)
    header = file.read(30)
    file.seek(here)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    offset = entry.header_offset + 30 + name_length + extra_length
    if header[:4] != b"PK\x03\x04" or offset + entry.file_size > _file_size(file):
        raise Damaged("an archive that points outside itself")
    return offset


def _file_size(file: BinaryIO) -> int:
    """The size of an open file in bytes."""
    here = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(here)
    return size


def _read_legacy(file: BinaryIO) -> Any:
    storages: dict[str, Storage] = {}

    def unpickle(fill: Callable[[Storage, str], None] | None = None) -> Any:
        return _Unpickler(file, fill).load()

    if unpickle() != LEGACY_MAGIC:
        raise Damaged("a pickle that torch.save did not write")
    unpickle()  # the version of the layout, the same ever since
    if not unpickle().get("little_endian", True):
        raise Damaged("numbers in big-endian order")
    content = unpickle(lambda storage, key: storages.setdefault(key, storage) and None)
    limit = _file_size(file)
    for key in unpickle():
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise Damaged("a storage that no tensor is in")
        (count,) = struct.unpack("<q", file.read(8))
        storage.offset = file.tell()
        if count != storage.count or storage.offset + storage.size > limit:
            raise Damaged("storages that do not fill their places; the file may be cut short")
        file.seek(storage.size, io.SEEK_CUR)
    if any(storage.offset < 0 for storage in storages.values()):
        raise Damaged("tensors without their numbers")
    return content


# ---- the table of what a pickle may ask for


class _Inert:
    """Stands for a global of the pickle. Calling it calls our own function; nothing can be written to it."""

    __slots__ = ("_function", "_name")

    def __init__(self, name: str, function: Callable[..., Any] | None = None):
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        if self._function is None:
            raise Refused(f"asks to call {self._name}")
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"asks to change {self._name}")

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"asks to change {self._name}")

    def __repr__(self) -> str:
        return self._name


class _Dict(dict):
    """A dict that takes the attributes some pickles give to theirs (`_metadata` of a state dict) and drops them."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _dict(*items: Any) -> _Dict:
    """A dict out of a dict or of pairs."""
    if items and not isinstance(items[0], dict):
        check_keys(key for key, _ in items[0])
    return _Dict(*items)


def _checked(items: Any = ()) -> Any:
    check_keys(items)
    return items


def _device(*names: Any) -> str:
    if not all(isinstance(name, str | int) for name in names):
        raise Damaged("a device without a name")
    return ":".join(map(str, names))


def _tensor(storage: Any, start: Any, shape: Any, stride: Any, *_unused: Any, dtype: str | None = None) -> StoredTensor:
    """The strided view that a pickle describes, once it is known to stay inside its storage."""
    shape, stride = tuple(shape), tuple(stride)
    if not isinstance(storage, Storage) or len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise Damaged("a tensor without a storage or shape")
    if not all(isinstance(number, int) and 0 <= number < 1 << 63 for number in (start, *shape, *stride)):
        raise Damaged("a tensor with an impossible size")
    dtype = dtype or storage.dtype
    last = start + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
    if math.prod(shape) and (last + 1) * ITEM_SIZES[dtype] > storage.size:
        raise Damaged("a tensor that reaches beyond its storage")
    if math.prod(shape) * ITEM_SIZES[dtype] > storage.size:
        # a stride of 0 repeats numbers: a few bytes could claim to be terabytes
        raise Damaged("a tensor that is larger than its storage")
    return StoredTensor(dtype, shape, stride, start, storage)


def _tensor_v3(storage: Any, start: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: str, *_unused: Any):
    return _tensor(storage, start, shape, stride, dtype=_DTYPES[dtype.removeprefix("torch.")])


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 spells bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise Damaged("bytes in an encoding that is not latin1")
    return text.encode("latin1")


class _NumpyDtype:
    """A dtype of a numpy number. Its state is read for the byte order and otherwise dropped."""

    __slots__ = ("kind", "order")

    def __init__(self, kind: str, *_unused: Any):
        self.kind = kind if isinstance(kind, str) else kind.decode("ascii")
        self.order = "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] in (">", b">") else "<"


_NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H",
            "u4": "I", "u8": "Q", "b1": "?"}  # fmt: skip
"""numpy's names of number types → `struct`'s."""


def _number(dtype: _NumpyDtype, content: Any) -> Any:
    """A numpy scalar as a Python number."""
    content = content if isinstance(content, bytes) else _bytes(content)
    return struct.unpack(dtype.order + _NUMBERS[dtype.kind], content)[0]


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda _factory=None, *items: _dict(*items),
    "collections.Counter": _dict,
    "builtins.dict": _dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.set": lambda *items: set(_checked(*items)),
    "builtins.frozenset": lambda *items: frozenset(_checked(*items)),
    "builtins.int": int,
    "builtins.float": float,
    "builtins.bool": bool,
    "builtins.complex": complex,
    "builtins.bytearray": lambda content=b"", *_encoding: bytes(content) if isinstance(content, bytes) else b"",
    "_codecs.encode": _bytes,
    "torch.Size": tuple,
    "torch.device": _device,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda tensor, *_grad_and_hooks: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_grad_hooks_and_state: tensor,
    "torch._tensor._rebuild_from_type_v2": lambda rebuild, _type, arguments, _state: rebuild(*arguments),
    "numpy.dtype": _NumpyDtype,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
}
_NAMES = {"torch.Tensor", "torch.nn.parameter.Parameter"} | _NAMED_ONLY


class _Unpickler(Bounded):
    """Resolves names through the table above and storages through `fill`, which learns each one and its key."""

    def __init__(self, file: BinaryIO, fill: Callable[[Storage, str], None] | None):
        super().__init__(file)
        self._fill = fill
        self._storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if full in _CALLS:
            return _Inert(full, self.charged(_CALLS[full]))
        if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return full
        if full in _NAMES:
            return _Inert(full)
        # os.system pickles as posix.system: readers know it by the former name
        public = f"os.{name} ({full})" if module in ("posix", "nt") else full
        raise Refused(f"asks for {public}")

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of `("storage", type, key, device, count[, view])`; whatever its device was, it is a file's."""
        if self._fill is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            said = repr(pid[:60]) if isinstance(pid, str) else f"a {type(pid).__name__}"
            raise Refused(f"asks for {said} in place of a storage")
        _, dtype, key, _device, count, *view = pid
        if view and view[0] is not None:
            raise Damaged("views of storages, which only PyTorch before 0.4 wrote")
        if (
            not isinstance(dtype, str)
            or dtype not in ITEM_SIZES
            or not isinstance(key, str)
            or not isinstance(count, int)
            or count < 0
        ):
            raise Damaged("a storage of no known kind")
        if key not in self._storages:
            storage = Storage(dtype, count)
            self._fill(storage, key)
            self._storages[key] = storage
        return self._storages[key]
