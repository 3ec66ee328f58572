"""What kind of disk a folder is on: whether it lasts, whether its locks can be trusted, how much is free.

Runs take hours and are worth keeping; the places people put them (a container's own layer, /dev/shm, a network mount
whose locks lie) may lose them. Locks are tried for real, between two processes, since file systems promise and forget.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MEMORY = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}
LAYERS = {"overlay", "overlayfs", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs"}
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "lustre", "beegfs", "gpfs", "ceph", "glusterfs"}
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
CONTAINER_VARIABLES = ("KUBERNETES_SERVICE_HOST", "RUNPOD_POD_ID", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")

_TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1]) as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held")
    else:
        print("taken")
"""


@dataclass(frozen=True)
class Mount:
    """One line of the mount table: the folder it is mounted at and the file system's type."""

    folder: str
    filesystem: str


@dataclass(frozen=True)
class Disk:
    """What is known of the disk below one folder."""

    path: str
    exists: bool
    """Whether the folder itself is there; if not, the rest is about the nearest folder above that is."""
    mount: str
    filesystem: str
    lasts: bool | None
    """None: it can't be told."""
    lasting_reason: str
    writable: bool
    locks: bool
    lock_reason: str
    free_bytes: int
    total_bytes: int


def look(path: Path) -> Disk:
    """Describe the disk that holds `path`, or that would hold it. Writes one empty file there for a moment."""
    here = nearest_existing(path)
    mount = mount_of(here, read_mounts())
    lasts, lasting_reason = lasting(here, mount, in_container(os.environ))
    writable = os.access(here, os.W_OK | os.X_OK)
    lock_reason = lock_trouble(here) if writable else "the folder can't be written to"
    usage = shutil.disk_usage(here)
    return Disk(
        path=str(path),
        exists=here == path,
        mount=mount.folder,
        filesystem=mount.filesystem,
        lasts=lasts,
        lasting_reason=lasting_reason,
        writable=writable,
        locks=not lock_reason,
        lock_reason=lock_reason,
        free_bytes=usage.free,
        total_bytes=usage.total,
    )


def nearest_existing(path: Path) -> Path:
    """`path` if it is a folder, else the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def read_mounts() -> list[Mount]:
    """The mount table of this process; empty where the system keeps none in /proc."""
    with contextlib.suppress(OSError):
        return parse_mounts(Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape"))
    return []


def parse_mounts(table: str) -> list[Mount]:
    """The lines of /proc/mounts; blanks in folder names are written there as octal (`\\040`)."""
    rows = [line.split(" ") for line in table.splitlines()]
    return [Mount(_unescape(row[1]), row[2]) for row in rows if len(row) >= 3]


def mount_of(path: Path, mounts: list[Mount]) -> Mount:
    """The mount that holds `path`: the deepest one, and of two at the same folder the later, which hides the first."""
    real = path.resolve()
    holding = [mount for mount in mounts if real.is_relative_to(mount.folder)]
    return max(reversed(holding), key=lambda mount: len(mount.folder), default=Mount("", "unknown"))


def lasting(path: Path, mount: Mount, container: bool) -> tuple[bool | None, str]:
    """Whether what is written to `path` is still there after a restart: yes, no or None (can't be told), and why."""
    if mount.filesystem in MEMORY:
        return False, f"{mount.filesystem} lives in memory and is gone after a restart"
    if mount.filesystem in LAYERS:
        return False, f"{mount.filesystem} is a container's own layer and goes with the container"
    if mount.filesystem in NETWORK:
        return True, f"{mount.filesystem} is a network file system"
    if mount.filesystem == "unknown":
        return None, "this system keeps no mount table that can be read"
    if path.resolve().is_relative_to("/tmp"):
        return None, "many systems empty /tmp at their start"
    if container and mount.folder == "/":
        return None, "this is a container, and its own disk may go with it"
    return True, f"{mount.filesystem} on a disk"


def in_container(environ: Mapping[str, str]) -> bool:
    """Whether this looks like a container, by the marks that the usual ones leave."""
    return any(os.path.exists(mark) for mark in CONTAINER_MARKS) or any(name in environ for name in CONTAINER_VARIABLES)


def lock_trouble(folder: Path) -> str:
    """Hold a lock in `folder` and let another process ask for it: "" if it is refused, as it must be, else why not."""
    try:
        import fcntl

        with tempfile.NamedTemporaryFile(dir=folder, prefix=".loratui-lock-") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, file.name]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return str(error)
    if answer.stdout.strip() == "held":
        return ""
    if answer.stdout.strip() == "taken":
        return "a second process was given a lock that was held"
    return (answer.stderr.strip().splitlines() or ["the second process said nothing"])[-1]


def _unescape(name: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)
