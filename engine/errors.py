"""The two ways of saying no to a user: a `Problem`, and the exception that carries one or more of them.

A mistake that the user can mend is always a `UserError`; whoever catches it prints the problems and no traceback.
Anything else that is raised is a defect of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: where, what was expected, what was found and what to do about it."""

    where: str
    """The file, folder or command line that holds the mistake."""
    field: str = ""
    """The field, key or line inside `where`, dotted: `training.steps`."""
    expected: str = ""
    found: str = ""
    advice: str = ""

    def __str__(self) -> str:
        """One line for a person. What comes from files can't steer the terminal: control characters are escaped."""
        place = f"{self.where}: {self.field}" if self.field else self.where
        clauses = [
            f"expected {self.expected}" if self.expected else "",
            f"found {self.found}" if self.found else "",
            self.advice,
        ]
        text = f"{place}: " + "; ".join(clause for clause in clauses if clause)
        return "".join(mark if mark.isprintable() or mark == "\n" else repr(mark)[1:-1] for mark in text)


class UserError(Exception):
    """One or more problems, all reported at once."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
