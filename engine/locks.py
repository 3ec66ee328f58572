"""Who is alive: a job is alive while its lock is held, and a lock dies with its process.

Locks are flocks on files in a local folder, since network file systems lie about flock. They are named by the resolved
path of what they guard. A forked child would keep a lock, so children are spawned.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


class Held(Exception):
    """Somebody else holds the lock."""


def runtime_folder() -> Path:
    """A folder of this user's on a local disk, made when missing and refused when it is somebody else's.

    Not in XDG_RUNTIME_DIR: that is removed with its locks when the user's last session ends, which jobs outlive, and
    a worker whose lock has no name any more would look dead.
    """
    path = Path(tempfile.gettempdir()) / f"loratui-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.lstat().st_uid != os.getuid() or path.is_symlink():
        raise PermissionError(errno.EPERM, "belongs to another user, or is a link", str(path))
    return path


def lock_path(guarded: Path) -> Path:
    digest = hashlib.sha256(str(guarded.resolve()).encode()).hexdigest()
    return runtime_folder() / f"{digest[:32]}.lock"


@contextlib.contextmanager
def hold(guarded: Path, patience: float = 2.0) -> Iterator[None]:
    """Hold the lock of `guarded`, waiting up to `patience` seconds for it. Raises Held."""
    with open(lock_path(guarded), "a") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Held(str(guarded)) from None
                time.sleep(0.05)
        yield


def held(guarded: Path) -> bool:
    """Whether a process holds the lock at this moment."""
    with open(lock_path(guarded), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
