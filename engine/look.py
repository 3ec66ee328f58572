"""The check of a dataset, in a process of its own: `python -m engine.look`, started by a host.

It looks as training would, by the same code, and needs what a host should not carry: decoded pictures, numpy. The first
line on stdin is a messages.CheckImages; each line on stdout is a messages.ImagesChecked, the last of them finished. The
end of stdin is the end of whoever asked, and so of this.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from engine.config import Model, Problem, Request, UserError, check
from engine.config.structs import Dataset
from engine.data import dataset, plan
from engine.data.captions import SUFFIXES
from engine.data.check import check_lengths
from engine.data.dataset import Inspection
from engine.host.pipe import read_lines, take_standard_streams
from engine.models.counting import counter
from engine.models.resolve import find_here
from engine.models.sizes import SD1, base_of
from engine.protocol.browse import CheckImages, ImageFinding, ImagesChecked

INTERVAL = 0.25
"""Seconds between two lines about the progress."""
MOST_ALIKE = 10_000
"""Findings of one kind that are told one by one; of a folder without captions there would be one an image."""
WHOLE = "the dataset"

Tell = Callable[[ImagesChecked], None]


def main() -> None:
    source, sink = take_standard_streams()
    sys.stdout = sys.stderr
    lines = read_lines(source, 1 << 24)
    params = msgspec.json.decode(next(lines) or b"", type=CheckImages)
    threading.Thread(target=_end_with, args=(lines,), daemon=True).start()
    os.nice(5)  # a run may be training beside it
    with os.fdopen(sink, "wb") as output:

        def tell(told: ImagesChecked) -> None:
            output.write(msgspec.json.encode(told) + b"\n")
            output.flush()

        try:
            look(params, tell)
        except Exception as error:
            traceback.print_exc()
            tell(ImagesChecked(id=params.id, done=0, total=0, finished=True, failed=f"a defect: {error!r}"))


def _end_with(lines: Iterator[bytes | None]) -> None:
    for _ in lines:
        pass
    os._exit(0)


def look(params: CheckImages, tell: Tell) -> None:
    """Check the images of a config, telling how far it has come, and at the end everything that was found."""
    request = Request()
    request.lay(params.config, "the form")
    model, problems = check(Model, request.data.get("model"), request.origin, "model")
    asked, wrong = check(Dataset, request.data.get("dataset"), request.origin, "dataset")
    problems += wrong
    told = ImagesChecked(id=params.id, done=0, total=0)
    inspection = None
    if asked is not None:
        progress = _Progress(told, tell)
        inspection = _inspect(model, asked, problems, progress)
        told = progress.told
    tell(msgspec.structs.replace(told, finished=True, findings=findings(problems, inspection)))


class _Progress:
    """Tells now and then how far a check has come."""

    def __init__(self, told: ImagesChecked, tell: Tell):
        self.told, self._tell, self._next = told, tell, 0.0

    def __call__(self, done: int, total: int) -> None:
        self.told = msgspec.structs.replace(self.told, done=done, total=total)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            self._tell(self.told)


def _inspect(model: Model | None, asked: Dataset, problems: list[Problem], progress: _Progress) -> Inspection:
    """What training would find. A base that can't be read is a problem; it is then taken for Stable Diffusion 1."""
    sizes, count = SD1, None
    if model is not None:
        try:
            source = find_here(model.base, "model.base")
            sizes = base_of(source) if source is not None else SD1
            count = counter(model.base)
        except UserError as error:
            problems += error.problems
    # Images that would be left out are problems here: nobody looks for them in a run's notes.
    asked = msgspec.structs.replace(asked, on_problem="stop")
    resolution = plan.resolution(asked, sizes.resolution, sizes.size_step)
    found = dataset.inspect(asked, root=Path.cwd(), resolution=resolution, step=sizes.size_step, progress=progress)
    if count is not None:
        found.notes.extend(check_lengths(((item.path, item.caption) for item in found.items()), count, count.limit))
    return found


# ---- findings


def findings(problems: Iterable[Problem], inspection: Inspection | None) -> list[ImageFinding]:
    """Everything that was found, in the order of the images, an image's problems before its notes.

    What is about no image comes first; what is about a caption file is told of its image.
    """
    images = [path for folder in inspection.folders for path in folder.images] if inspection else []
    places = {str(path): place for place, path in enumerate(images)}
    stems = {os.path.splitext(path)[0]: path for path in places}
    found: list[ImageFinding] = []
    alike: dict[str, int] = {}
    for kind, finding in _told(problems, inspection, stems):
        alike[kind] = alike.get(kind, 0) + 1
        if alike[kind] <= MOST_ALIKE:
            found.append(finding)
    found.sort(key=lambda finding: (places.get(finding.path, -1), finding.severity != "problem"))
    more = [
        ImageFinding(path=WHOLE, severity="note", text=f"{kind}: {count - MOST_ALIKE} more of these")
        for kind, count in alike.items()
        if count > MOST_ALIKE
    ]
    return more + found


def _told(
    problems: Iterable[Problem], inspection: Inspection | None, stems: dict[str, str]
) -> Iterator[tuple[str, ImageFinding]]:
    """Each finding behind its kind."""
    for problem in [*problems, *(inspection.problems if inspection else ())]:
        path, words = _place(problem.where, stems)
        clauses = [f"expected {problem.expected}" if problem.expected else "", f"found {problem.found}"]
        text = "; ".join(filter(None, clauses if problem.found else clauses[:1]))
        words = f"{words}{problem.field}: " if problem.field else words
        finding = ImageFinding(path=path, severity="problem", text=f"{words}{text}", advice=problem.advice)
        yield problem.advice or problem.expected, finding
    for note in inspection.notes if inspection else ():
        path, words = _place(note.where, stems)
        detail = f" ({note.detail})" if note.detail else ""
        yield note.what, ImageFinding(path=path, severity="note", text=f"{words}{note.what}{detail}")


def _place(where: str, stems: dict[str, str]) -> tuple[str, str]:
    """What a finding is about, and what to say before it: of a caption file, its image and its own name."""
    stem, suffix = os.path.splitext(where)
    if suffix in SUFFIXES and stem in stems:
        return stems[stem], f"{os.path.basename(where)}: "
    return where, ""


if __name__ == "__main__":
    main()
