"""Which base a run used, by content: the fingerprint for caches, the hashes that adapter files carry.

Hashing a checkpoint reads all of it, so a file's digest is kept for the life of the process, by path, size and time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from engine.formats.hashes import file_legacy_hash, file_sha256


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, _size: int, _modified: int) -> str:
    return file_sha256(path)


def fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, in order; their names don't count."""
    return hashlib.sha256("".join(digest(file) for file in files).encode()).hexdigest()


@dataclass(frozen=True)
class Identity:
    """The files that make a base, and what it is called."""

    model: str
    """Name of the base as adapter files give it: a file name or a hub id."""
    model_files: tuple[Path, ...]
    single: bool
    """Whether the base is one file, whose hashes other programs know it by."""
    vae: str = ""
    vae_files: tuple[Path, ...] = ()
    """Of a VAE that replaces the base's own."""

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint((*self.model_files, *self.vae_files))

    def metadata(self) -> dict[str, str]:
        """`ss_sd_model_*` and `ss_vae_*` as kohya-ss sd-scripts writes them; hashes of single files only."""
        entries = {"ss_sd_model_name": self.model}
        if self.single:
            entries |= _hashes("sd_model", self.model_files[0])
        if self.vae:
            entries["ss_vae_name"] = self.vae
            if len(self.vae_files) == 1:
                entries |= _hashes("vae", self.vae_files[0])
        return entries


def _hashes(of: str, path: Path) -> dict[str, str]:
    return {f"ss_{of}_hash": file_legacy_hash(path), f"ss_new_{of}_hash": digest(path)}
