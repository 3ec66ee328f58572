"""Who is alive: a job is alive while its lock is held, and a lock dies with its process.

Locks are flocks on files in a local folder, since network file systems lie about flock. They are named by the resolved
path of what they guard, or by the device. A flock belongs to an open file and to every process that has inherited it:
so children are spawned, never forked, and so a runner can take the locks of a job and hand them to its worker, which
then has them from its first instruction on, with no moment in between that looks like a death.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

RUNTIME, HANDED, DEVICE = "LORATUI_RUNTIME_DIR", "LORATUI_LOCKS", "LORATUI_DEVICE"
"""Variables: another folder for the locks (every process of a user must agree on it); the locks that a process was
started with, as a JSON object of lock file → descriptor; the device that a worker was given, whose lock it keeps."""


class Held(Exception):
    """Somebody else holds the lock."""


class Lock:
    """A lock that this process holds until it is released or the process, and whoever was handed it, has ended."""

    def __init__(self, descriptor: int, path: Path):
        self.descriptor, self.path = descriptor, path

    def release(self) -> None:
        """Let go, but for processes that it was handed to."""
        os.close(self.descriptor)


def runtime_folder() -> Path:
    """A folder of this user's on a local disk, made when missing and refused when it is somebody else's.

    Not in XDG_RUNTIME_DIR: that is removed with its locks when the user's last session ends, which jobs outlive, and
    a worker whose lock has no name any more would look dead. Not in TMPDIR: two terminals may differ about it, and
    would then start two workers on one job.
    """
    if chosen := os.environ.get(RUNTIME):
        path = Path(chosen)
    else:
        usual = Path("/tmp")
        parent = usual if os.access(usual, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
        path = parent / f"loratui-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.lstat().st_uid != os.getuid() or path.is_symlink():
        raise PermissionError(errno.EPERM, "belongs to another user, or is a link", str(path))
    return path


def device(uuid: str) -> Path:
    """What to lock for a device: it is the same in every workspace."""
    return runtime_folder() / f"device-{re.sub(r'[^A-Za-z0-9-]', '_', uuid)}.lock"


def lock_path(guarded: Path) -> Path:
    """The file whose lock stands for `guarded`: any path, or a device."""
    folder = runtime_folder()
    if guarded.parent == folder:
        return guarded
    digest = hashlib.sha256(str(guarded.resolve()).encode()).hexdigest()
    return folder / f"{digest[:32]}.lock"


def take(guarded: Path, patience: float = 0.0, shared: bool = False) -> Lock | None:
    """The lock of `guarded`, waiting up to `patience` seconds for it; None where somebody else keeps it.

    A `shared` lock keeps others from taking the lock and does not itself look like somebody alive.
    """
    path = lock_path(guarded)
    if (handed := _handed.pop(path, None)) is not None:
        return Lock(handed, path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    while not _locked(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            return None
        time.sleep(0.02)
    return Lock(descriptor, path)


@contextlib.contextmanager
def hold(guarded: Path, patience: float = 2.0, shared: bool = False) -> Iterator[None]:
    """`take`, and release at the end. Raises Held."""
    lock = take(guarded, patience, shared)
    if lock is None:
        raise Held(str(guarded))
    try:
        yield
    finally:
        lock.release()


def held(guarded: Path) -> bool:
    """Whether a process holds the lock, unshared, at this moment."""
    try:
        descriptor = os.open(lock_path(guarded), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def hand_over(*locks: Lock) -> dict[str, str]:
    """The environment that tells a child which locks it gets. Their descriptors go into its `pass_fds`."""
    return {HANDED: json.dumps({lock.path.name: lock.descriptor for lock in locks})}


def inherit() -> None:
    """Receive the locks that this process was started with: `take` and `hold` then find them theirs.

    A descriptor that is not open on its lock's file is somebody else's, and left alone.
    """
    folder = runtime_folder()
    for name, descriptor in json.loads(os.environ.pop(HANDED, "{}")).items():
        path = folder / name
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                os.set_inheritable(descriptor, False)
                _handed[path] = descriptor


_handed: dict[Path, int] = {}


def refresh(guarded: Path) -> None:
    """Make a lock's file look young, for what clears old files out of temporary folders."""
    with contextlib.suppress(OSError):
        os.utime(lock_path(guarded))
