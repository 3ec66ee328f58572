"""What is wrong with an adapter file, gathered while it is read: hundreds of modules often share one mistake."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.errors import Problem, UserError
from engine.formats.container import listed


class Findings:
    """Problems of one file. What modules have in common is said once, with the names of the first few."""

    def __init__(self, path: Path | str):
        self.where = str(path)
        self.problems: list[Problem] = []
        self._groups: dict[tuple[str, str], dict[str, str]] = {}

    def add(self, name: str, expected: str, found: str, advice: str) -> None:
        """name: the module or key; empty for the whole file."""
        self._groups.setdefault((expected, advice), {})[name] = found

    def __bool__(self) -> bool:
        return bool(self.problems or self._groups)

    def stop(self) -> None:
        """Raise UserError if there is anything to say."""
        for (expected, advice), members in self._groups.items():
            found = members[min(members)] + (f" (the first of {len(members)} modules)" if len(members) > 1 else "")
            self.problems.append(
                Problem(where=self.where, field=listed(members), expected=expected, found=found, advice=advice)
            )
        self._groups.clear()
        if self.problems:
            raise UserError(self.problems)


def times(shape: Iterable[int]) -> str:
    """A shape in words."""
    return "x".join(map(str, shape)) or "a single number"
