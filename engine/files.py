"""Writing files that are either whole or not there.

Everything that matters goes through `replace_file` or `replace_folder`: written beside its final name, synced, then
renamed, so that a kill or a full disk at any moment leaves the former version or none, never half of one. What goes
wrong with the disk is raised as an OSError that names the file that was to be written, whoever wrote it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust, such as safetensors, spell the system's errors inside exceptions of their own."""


def sync(path: Path) -> None:
    """Ask the kernel to bring a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is synced and renamed to `path`, else removed.

    The temporary name keeps the suffix of `path`, since some writers choose a format by it.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with _naming(path):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on a clean exit it becomes `path`, in place of an old one.

    A folder can't be renamed over another, so the old one goes first; a kill in that moment leaves neither.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _naming(path):
            temporary.mkdir()
            yield temporary
            for entry in temporary.rglob("*"):
                sync(entry)
            sync(temporary)
            remove_folder(path)
            os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there, in a way that a kill leaves it whole or not there under its name."""
    leaving = path.with_name(f".{path.name}.old.tmp")
    shutil.rmtree(leaving, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, leaving)
    shutil.rmtree(leaving, ignore_errors=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let what the system refuses be an OSError with the name of the file that it is about."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
    except Exception as error:
        if (told := _OS_ERROR.search(str(error))) is None:
            raise
        raise OSError(int(told[1]), os.strerror(int(told[1])), str(path)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` into `path`, atomically."""
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file that several processes may append to, in one write.

    What a killed writer left of a line before stays a line of its own, and swallows nothing.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" * bool(torn) + line + b"\n")
    finally:
        os.close(descriptor)
