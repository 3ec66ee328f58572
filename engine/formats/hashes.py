"""The hashes by which other programs know adapters and base models again.

Two of them are written into every adapter (`sshs_*`), and web UIs look models up by them, so they follow kohya-ss
sd-scripts to the byte: the legacy hash reads a window of the file as it would be with the `ss_*` metadata alone, and so
depends on the length of that header; the other covers the tensors' bytes only. All are hexadecimal SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.formats.container import TensorInfo, pack_header

_WINDOW = slice(0x100000, 0x110000)
"""The bytes that the oldest hash of web UIs covers; a smaller file has none and hashes the empty string."""


def adapter_hashes(
    tensors: Mapping[str, TensorInfo], pieces: Iterable[bytes | memoryview], metadata: Mapping[str, str]
) -> dict[str, str]:
    """`sshs_model_hash` (64 digits) and `sshs_legacy_hash` (8) of an adapter.

    pieces: the tensors' bytes in file order. Of the metadata only the `ss_*` entries count, since others may be edited
    in a finished file.
    """
    header = pack_header(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    whole, window = hashlib.sha256(), hashlib.sha256(header[_WINDOW])
    at = len(header)
    for piece in pieces:
        whole.update(piece)
        begin, end = (max(0, edge - at) for edge in (_WINDOW.start, _WINDOW.stop))
        window.update(piece[begin:end])
        at += len(piece)
    return {"sshs_model_hash": whole.hexdigest(), "sshs_legacy_hash": window.hexdigest()[:8]}


def tensors_sha256(path: Path) -> str:
    """SHA-256 of the bytes behind a safetensors header: what `sshs_model_hash` must be of an intact adapter."""
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), 1)
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file (`ss_new_sd_model_hash`, `ss_new_vae_hash`), streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_legacy_hash(path: Path) -> str:
    """The old 8-digit hash of a model file (`ss_sd_model_hash`, `ss_vae_hash`): its bytes 0x100000 to 0x10ffff."""
    with path.open("rb") as file:
        file.seek(_WINDOW.start)
        return hashlib.sha256(file.read(_WINDOW.stop - _WINDOW.start)).hexdigest()[:8]
