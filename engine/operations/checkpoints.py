"""convert_checkpoint: a whole model in another layout, tensor by tensor; and what every writer of whole models needs.

Where the result goes is made sure of before anything is read, that all of it has its place before anything is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.config.operations import ConvertCheckpoint
from engine.errors import Problem, UserError
from engine.files import replace_file, replace_folder
from engine.formats.streams import LazyTensor
from engine.models.build import check_fit
from engine.models.checkpoints.casting import Casting
from engine.models.checkpoints.opening import Checkpoint, open_checkpoint
from engine.models.checkpoints.to_folder import plan_folder, write_folder
from engine.models.checkpoints.to_single import SUFFIXES, plan_copy, plan_single, write_single
from engine.operate import Reporter
from engine.protocol.operations import CheckpointWritten


def convert(request: ConvertCheckpoint, reporter: Reporter) -> CheckpointWritten:
    """Write a model in the layout that the name of `request.out` tells."""
    source, out = Path(request.path), Path(request.out)
    to_file = out.suffix.lower() in SUFFIXES
    check_place(source, out, to_file, request.force)
    reporter.stage("open")
    if not source.exists():
        raise refused(
            request.path, "path", "a diffusers folder, .safetensors or .ckpt file", "nothing", "check the path"
        )
    if source.is_dir() and not to_file:
        advice = "name a .safetensors or .ckpt file as the result"
        raise refused(request.out, "out", "a single file, which a folder is converted to", "a folder", advice)
    copied = to_file and source.is_file()
    checkpoint = open_checkpoint(source, "path", whole=not copied)
    casting = Casting(out, request.precision)
    if copied:
        notes, counts = _to_file(checkpoint, out, casting, reporter, copied=True)
    else:
        check_structure(checkpoint, "path")
        notes, counts = (_to_file if to_file else _to_folder)(checkpoint, out, casting, reporter)
    return CheckpointWritten(
        out=str(out), family=checkpoint.family, bytes=size_of(out), tensors=counts, notes=[*notes, *casting.notices()]
    )


def _to_file(
    checkpoint: Checkpoint, out: Path, casting: Casting, reporter: Reporter, copied: bool = False
) -> tuple[list[str], dict[str, int]]:
    plan = plan_copy(checkpoint.single, casting) if copied else plan_single(checkpoint, casting)
    wrote = writing(out, bytes_of(plan.tensors), reporter)
    with replace_file(out) as temporary:
        write_single(temporary, out.suffix.lower(), plan, wrote)
    places = checkpoint.layout.places.items()
    counts = {part: sum(key.startswith(place.prefix) for key in plan.tensors) for part, place in places}
    return plan.losses, {part: count for part, count in counts.items() if count}


def _to_folder(
    checkpoint: Checkpoint, out: Path, casting: Casting, reporter: Reporter
) -> tuple[list[str], dict[str, int]]:
    plan = plan_folder(checkpoint, casting)
    wrote = writing(out, sum(map(bytes_of, plan.values())), reporter)
    with replace_folder(out) as temporary:
        write_folder(temporary, checkpoint, plan, wrote)
    notes = [f"left out {text}" for text in checkpoint.left_out]
    return notes, {part: len(tensors) for part, tensors in plan.items()}


def check_structure(checkpoint: Checkpoint, field: str) -> None:
    """Raise UserError unless every part has the tensors, all and no others, that a module of its config has."""
    problems: list[Problem] = []
    for part, held in checkpoint.parts.items():
        try:
            check_fit(part, held.config, held.header, checkpoint.path, field)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)


# ---- where a result goes


def check_place(source: Path, out: Path, to_file: bool, force: bool) -> None:
    """Raise UserError unless a model may be written at `out`. Only a folder that is a model itself is replaced."""
    expected = "a file that is not there yet" if to_file else "a folder that is not there yet"
    if not out.parent.is_dir():
        raise refused(str(out), "out", expected, f"no folder {out.parent}", "make the folder first")
    if not out.exists():
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise refused(str(out), "out", "a place outside the model", "one inside", "choose another place")
        return
    if to_file != out.is_file():
        what = "a folder" if out.is_dir() else "a file"
        raise refused(str(out), "out", expected, f"{what} of that name", "choose another name")
    if not force:
        raise refused(str(out), "out", expected, "one of that name", "--force overwrites it")
    if to_file:
        return
    if not (out / "model_index.json").is_file() and any(out.iterdir()):
        advice = "only a folder that holds a model is overwritten: choose another name"
        raise refused(str(out), "out", expected, "a folder that is no model", advice)
    if source.resolve().is_relative_to(out.resolve()):
        advice = "it would be lost with the folder: choose another name"
        raise refused(str(out), "out", expected, "the folder that the model is in", advice)


def writing(out: Path, total: int, reporter: Reporter) -> Callable[[int], None]:
    """Begin the stage of writing so many bytes, once there is room for them; returns what to tell of written ones."""
    free = shutil.disk_usage(out.parent).free
    if total > free:
        found = f"{free / 2**30:.1f} GiB free"
        raise refused(str(out), "out", f"room for {total / 2**30:.1f} GiB", found, "make room, or choose another disk")
    reporter.stage("write", total, "bytes")
    done = 0

    def wrote(size: int) -> None:
        nonlocal done
        done += size
        reporter.progress(done)

    return wrote


def bytes_of(tensors: Mapping[str, LazyTensor]) -> int:
    return sum(tensor.info.size for tensor in tensors.values())


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def refused(where: str, field: str, expected: str, found: str, advice: str) -> UserError:
    """An error of one problem."""
    return UserError(Problem(where=where, field=field, expected=expected, found=found, advice=advice))
