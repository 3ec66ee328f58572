"""What the last check of the images has found, and how far the present one has come.

Findings are kept by path, those of one folder in the order in which the check names them, which is that of its images.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

from engine.protocol.browse import ImageFinding, ImagesChecked
from loratui.screens.dataset_words import folder


class Check:
    """`begin` gives the id to ask the host with; `take` hears what the host tells."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Another project, or other folders: nothing is known of them."""
        self._id = ""
        self._found: dict[str, list[ImageFinding]] = {}
        self._edited: set[str] = set()
        self.done = self.total = 0
        self.running = self.finished = False
        """Whether one is under way; whether any has ended, so that no finding means that nothing is wrong."""
        self.failed = ""

    def begin(self) -> str:
        """A check is asked for; what the one before it found stays until the end of this one."""
        self._id = uuid.uuid4().hex
        self.running, self.done, self.total, self.failed = True, 0, 0, ""
        return self._id

    def give_up(self, why: str = "") -> None:
        """The check that was asked for will not come to an end."""
        self._id, self.running, self.failed = "", False, why

    def take(self, told: ImagesChecked) -> bool:
        """Hear of a check; False where it is not the one that was asked for last."""
        if not self._id or told.id != self._id:
            return False
        self.done, self.total = told.done, told.total
        if told.failed:
            self.give_up(told.failed)
        elif told.finished:
            self.running, self.finished, self._found = False, True, {}
            self._edited.clear()
            for finding in told.findings:
                self._found.setdefault(finding.path, []).append(finding)
        return True

    def progress(self) -> str:
        """What is going on; empty where nothing is."""
        if self.failed:
            return "✗ the check failed"
        return (f"checking {self.done}/{self.total}" if self.total else "checking") if self.running else ""

    def of(self, path: str) -> Sequence[ImageFinding]:
        return self._found.get(path, ())

    def all(self) -> list[ImageFinding]:
        return [finding for findings in self._found.values() for finding in findings]

    def edited(self, path: str) -> None:
        """The caption of an image was changed: what is known of it is older."""
        self._edited.add(path)

    def is_edited(self, path: str) -> bool:
        return path in self._edited

    def count(self, severity: str, within: str) -> int:
        """Findings in a folder, those about the folder itself included."""
        return sum(one.severity == severity and within in (one.path, folder(one.path)) for one in self.all())

    def elsewhere(self, within: str) -> int:
        """Problems in other folders."""
        return sum(one.severity == "problem" for one in self.all()) - self.count("problem", within)

    def stops(self, folders: Sequence[str]) -> dict[str, list[str]]:
        """Folder → the images in it to jump between: those with problems, or those with notes where there are none."""
        severities = {one.severity for one in self.all()}
        wanted = "problem" if "problem" in severities else "note"
        stops: dict[str, list[str]] = {}
        for path, findings in self._found.items():
            if folder(path) in folders and any(one.severity == wanted for one in findings):
                stops.setdefault(folder(path), []).append(path)
        return stops


async def next_stop(
    stops: Mapping[str, Sequence[str]],
    folders: Sequence[str],
    at: tuple[str, str],
    step: int,
    precedes: Callable[[str], Awaitable[bool]],
) -> str:
    """The stop after (`step` 1) or before (-1) an image; round the folders and to the other end. Empty where none is.

    `at`: folder and path of the image. `precedes`: whether a stop of that folder comes before the image in the list;
    asked only where the image is no stop itself, and of few stops.
    """
    front, path = at
    here = stops.get(front, ())
    if path in here:
        place = list(here).index(path) + step
    else:
        low, high = 0, len(here)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if await precedes(here[middle]) else (low, middle)
        place = low if step > 0 else low - 1
    if 0 <= place < len(here):
        return here[place]
    order = list(dict.fromkeys(folders))
    start = order.index(front) if front in order else 0
    for away in range(1, len(order) + 1):
        if there := stops.get(order[(start + step * away) % len(order)]):
            return there[0 if step > 0 else -1]
    return ""
