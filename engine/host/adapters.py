"""Adapter files of folders and runs, newest first, each by its header; and one of them thrown away.

A library holds thousands of files in hundreds of folders. What lies in a folder is kept for as long as the folder is
untouched, what a header says for as long as its file is; every file is asked for its time again. Headers are read for
the page that is asked for, and of all files where words are looked for in them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine import files, protocol
from engine.errors import Problem, UserError
from engine.host import liveness, projects, submission
from engine.host.images import check_page, words_of
from engine.host.kept import Kept, regular, settled, stamp
from engine.protocol.browse import AdapterHeader, Adapters, AdaptersRef, Trashed

PICKLED = ".pt"
SUFFIXES = (".safetensors", PICKLED)
"""Adapters are read from the first. The second is listed too, so that nobody looks for a file that is there."""
OWN = "adapters"
"""The folder of a project for adapters that no run has trained: blends, conversions and the like."""
STATE = ".state"
"""How the folders of training states end; what lies there is no adapter."""
MOST_FOLDERS = 20_000
LONGEST_VALUE, MOST_CHARACTERS = 500, 16_000
"""Characters of a metadata value, and of all of a file, that a list shows; kohya's tag counts run to 500,000."""

_STEP = re.compile(r"-step([0-9]{1,9})$")
_MODULE_RANK = re.compile(r"\w+:[0-9]+:rank")
"""What cloneofsimo's files say of each module; the ranks are told anyway."""

_JOB_FILES = (protocol.CONFIG, protocol.SUBMISSION)

_folders, _headers, _words = Kept(MOST_FOLDERS), Kept(10_000), Kept(50_000)


class _Inside(NamedTuple):
    """What lies in a folder: names of folders, and of files that may be adapters."""

    folders: list[str]
    files: list[str]


class _File(NamedTuple):
    """An adapter file, or a folder that can't be listed, with what its place tells of it."""

    path: str
    facts: os.stat_result | str
    folder: str = ""
    run: str = ""
    step: int | None = None


def adapters(workspace: Path, params: AdaptersRef) -> Adapters:
    """The adapter files of folders and of a project's runs. What can't be read, folders too, is a row with its problem.

    Raises UserError for a page that makes no sense, a project that there is none of, and a folder of too many others.
    """
    check_page(params.offset, params.limit)
    found = list({file.path: file for file in _found(workspace, params)}.values())
    if params.find.split():
        found = _matching(found, params.find)
    found.sort(key=lambda file: (-file.facts.st_mtime_ns if not isinstance(file.facts, str) else 0, file.path))
    return Adapters(total=len(found), adapters=[_row(file) for file in found[params.offset :][: params.limit]])


def _found(workspace: Path, params: AdaptersRef) -> Iterator[_File]:
    """The files of the project, of its runs and of the folders; some may come twice."""
    if params.project:
        project = projects.find(workspace, params.project)
        with contextlib.suppress(OSError):  # it is made with the first file
            yield from _files(str(project / OWN), str(project / OWN))
        runs = str(project / "runs")
        for run in _inside(runs).folders if os.path.isdir(runs) else ():
            for folder in (f"{runs}/{run}", f"{runs}/{run}/{protocol.CHECKPOINTS}"):
                with contextlib.suppress(OSError):  # a run without checkpoints, or one that is being thrown away
                    yield from _files(folder, "")
    seen: set[tuple[int, int]] = set()
    for folder in params.folders:
        yield from _below(folder, seen)


def _below(listed: str, seen: set[tuple[int, int]]) -> Iterator[_File]:
    """The files of a folder and of all below it. Links are followed, and no folder that was `seen` is entered again."""
    waiting = [os.path.abspath(os.path.expanduser(listed))]
    while waiting:
        folder = waiting.pop()
        try:
            facts = os.stat(folder)
            if (place := (facts.st_dev, facts.st_ino)) in seen:
                continue
            seen.add(place)
            waiting += [f"{folder}/{name}" for name in _inside(folder).folders]
            yield from _files(folder, listed)
        except (OSError, ValueError) as error:  # ValueError: a null character
            found = "a file" if isinstance(error, NotADirectoryError) else getattr(error, "strerror", None) or "nothing"
            yield _File(folder, f"expected a folder; found {found.lower()}", listed)
        if len(seen) > MOST_FOLDERS:
            found, advice = f"more than {MOST_FOLDERS} folders below it", "name folders that are nearer to the adapters"
            raise UserError(Problem(where=listed, expected="a folder of adapters", found=found, advice=advice))


def _inside(folder: str) -> _Inside:
    """What lies in a folder. Raises OSError."""
    changed = os.stat(folder).st_mtime_ns
    return _folders.get(folder, changed, lambda: _look(folder), settled(changed))


def _look(folder: str) -> _Inside:
    from engine.data.folders import is_folder

    inside = _Inside([], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                if not entry.name.endswith(STATE):
                    inside.folders.append(entry.name)
            elif entry.name.lower().endswith(SUFFIXES):
                inside.files.append(entry.name)
    return inside


def _files(folder: str, listed: str) -> Iterator[_File]:
    """The files in a folder itself. Raises OSError."""
    job = _job_of(folder)
    for name in _inside(folder).files:
        path = f"{folder}/{name}"
        if not job:
            yield _File(path, regular(path), listed)
            continue
        step = _STEP.search(os.path.splitext(name)[0]) if os.path.basename(folder) == protocol.CHECKPOINTS else None
        yield _File(path, regular(path), "", os.path.basename(job), int(step[1]) if step else None)


def _job_of(folder: str) -> str:
    """The job in whose folder, or folder of checkpoints, a file lies; empty where that is none."""
    job = os.path.dirname(folder) if os.path.basename(folder) == protocol.CHECKPOINTS else folder
    runs = os.path.basename(os.path.dirname(job)) == "runs"
    return job if runs and any(os.path.isfile(f"{job}/{name}") for name in _JOB_FILES) else ""


# ---- rows


def _row(file: _File) -> AdapterHeader:
    about = {"folder": file.folder, "run": file.run, "step": file.step}
    if isinstance(file.facts, str):
        return AdapterHeader(path=file.path, bytes=0, modified=0.0, problem=file.facts, **about)
    facts = file.facts
    header, metadata = _headers.get(file.path, stamp(facts), lambda: _header(file.path, facts))
    return msgspec.structs.replace(header, metadata=msgspec.json.decode(metadata, type=dict[str, str]), **about)


def _header(path: str, facts: os.stat_result) -> tuple[AdapterHeader, bytes]:
    """What a header says, and its metadata as JSON, which takes a tenth of the memory."""
    from engine.formats.outline import outline

    header = AdapterHeader(path=path, bytes=facts.st_size, modified=facts.st_mtime)
    if path.lower().endswith(PICKLED):  # to read one is for a process of its own
        return msgspec.structs.replace(header, format="pickle"), b"{}"
    try:
        said = outline(Path(path))
    except UserError as error:
        problem = str(msgspec.structs.replace(error.problems[0], where=os.path.basename(path)))
        return msgspec.structs.replace(header, problem=problem), b"{}"
    except OSError as error:
        return msgspec.structs.replace(header, problem=(error.strerror or "it can't be read").lower()), b"{}"
    fields = ("format", "problem", "family", "ranks", "alphas", "modules", "trigger", "tensors")
    header = msgspec.structs.replace(header, **{name: getattr(said, name) for name in fields})
    return header, msgspec.json.encode(dict(_shortened(said.metadata)))


def _shortened(metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    room = MOST_CHARACTERS
    for key, value in metadata.items():
        if not _MODULE_RANK.fullmatch(key):
            value = value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"
            room -= len(key) + len(value)
            if room < 0:
                return
            yield key, value


def _matching(found: list[_File], find: str) -> list[_File]:
    """The files that hold these words, and not those behind a minus."""
    wanted, unwanted = words_of(find)

    def matches(file: _File) -> bool:
        text = "\n".join((os.path.basename(file.path), file.run, *_said(file))).casefold()
        return all(word in text for word in wanted) and not any(word in text for word in unwanted)

    return [file for file in found if matches(file)]


def _said(file: _File) -> tuple[str, str]:
    """Family and trigger words; empty where nothing can be read."""
    from engine.formats.outline import glance

    def said() -> tuple[str, str]:
        try:
            return glance(Path(file.path))
        except (UserError, OSError):
            return "", ""

    silent = isinstance(file.facts, str) or file.path.lower().endswith(PICKLED)
    return ("", "") if silent else _words.get(file.path, stamp(file.facts), said)


# ---- the trash


def remove(workspace: Path, path: str) -> Trashed:
    """Move one adapter file to the workspace's trash, into a folder of its own there.

    Raises UserError for what is no .safetensors file, belongs to a training state or to a job that runs, or can't be
    moved; the file is then where it was.
    """
    file = Path(path)
    try:
        facts = file.lstat()
        place = file.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise _refused(path, "an adapter file", getattr(error, "strerror", None) or "nothing of that name") from None
    odd = not file.is_absolute() or ".." in file.parts or file.name.startswith(".") or not stat.S_ISREG(facts.st_mode)
    if odd or file.suffix.lower() != ".safetensors":
        raise _refused(path, "the whole path of a .safetensors file", "a link" if place != file else "something else")
    if any(part.endswith(STATE) for part in place.parent.parts):
        raise _refused(path, "an adapter", "part of a training state", "remove the run if it is not to be resumed")
    trash = workspace / "trash" / "adapters" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    with _resting(_job_of(str(place.parent))):
        try:
            _move(file, trash / file.name)
        except OSError as error:
            shutil.rmtree(trash, ignore_errors=True)
            advice = "it is where it was: free some space, or mend the permissions of its folder"
            raise _refused(path, "a file that can be moved to the trash", error.strerror or "none", advice) from error
    return Trashed(path=path, trash=str(trash / file.name), bytes=facts.st_size)


@contextlib.contextmanager
def _resting(job: str) -> Iterator[None]:
    """Refuse where the job is alive, and keep workers away from it meanwhile."""
    if not job:
        yield
        return
    state = liveness.state_of(Path(job))
    if state == "elsewhere" or state in liveness.ALIVE:
        raise _refused(job, "a run that does not run", f"one that is {state}", "stop it first, or wait for its end")
    with submission.asleep(Path(job)):
        yield


def _move(file: Path, target: Path) -> None:
    """Move a file, to another file system too. Raises OSError while the file is still there."""
    target.parent.mkdir(parents=True)
    try:
        os.rename(file, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with files.replace_file(target) as temporary:
            shutil.copy2(file, temporary)
        file.unlink()


def _refused(where: str, expected: str, found: str, advice: str = "") -> UserError:
    return UserError(Problem(where=where, expected=expected, found=found.lower(), advice=advice))
