"""The folders of a project as its draft names them, and changes of the draft that touch nothing else in it.

A subset of the draft is one folder of images, or stands for several whose names give repeats and class words
(`10_ohwx cat`); the host knows which. The draft belongs to the form of runs too, so it is read right before it is
written, and a subset is known by its table, not by its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.config import Problem, Subset, check, describe, fields, help_of, toml_value
from engine.protocol.browse import SubsetFolders

Table = dict[str, Any]

DEFAULT_BASE = "tiny"
_FIELD = re.compile(r"dataset\.subsets\[(\d+)\]")


@dataclass(frozen=True)
class Shelf:
    """A folder of images in the project; or a subset that stands for none, with what is wrong with it."""

    table: Table
    """The subset that it belongs to, as the draft has it."""
    path: str
    images: int = 0
    repeats: int = 1
    class_tokens: str = ""
    is_reg: bool = False
    problems: tuple[Problem, ...] = field(default=())

    def setting(self, name: str) -> str:
        """A text of its subset; empty where it has none."""
        value = self.table.get(name, "")
        return value if isinstance(value, str) else ""


def subsets(config: Table) -> list[Table]:
    """The subsets of a draft; what is no table is left out."""
    dataset = config.get("dataset")
    found = dataset.get("subsets") if isinstance(dataset, dict) else None
    return [table for table in found if isinstance(table, dict)] if isinstance(found, list) else []


def with_subsets(config: Table, tables: Sequence[Table]) -> Table:
    """The draft with these subsets, all else as it was."""
    dataset = config.get("dataset")
    return config | {"dataset": (dataset if isinstance(dataset, dict) else {}) | {"subsets": list(tables)}}


def base(config: Table) -> str:
    """The base model of the draft, or the embedded one."""
    model = config.get("model")
    named = model.get("base") if isinstance(model, dict) else None
    return named if isinstance(named, str) and named else DEFAULT_BASE


def to_check(config: Table) -> Table:
    """What a check of the images reads of the draft."""
    model = config.get("model")
    known = {"model": (model if isinstance(model, dict) else {}) | {"base": base(config)}}
    return known | with_subsets({"dataset": config.get("dataset")}, subsets(config))


def shelves(tables: Sequence[Table], listed: SubsetFolders) -> list[Shelf]:
    """The folders of all subsets, in the order of the draft. A subset without any has one shelf, with its problems."""
    found = []
    for number, table in enumerate(tables):
        folders = [folder for folder in listed.folders if folder.subset == number]
        problems = tuple(problem for problem in listed.problems if _subset(problem) == number)
        found += [
            Shelf(table, one.path, one.images, one.repeats, one.class_tokens, one.is_reg, problems) for one in folders
        ]
        if not folders:
            found.append(Shelf(table, str(table.get("path", "")), problems=problems))
    return found


def guess(tables: Sequence[Table], path: str) -> Shelf:
    """The shelf to begin with before the host has said which there are: the folder `path` if it can be one of them."""
    parent = path.rpartition("/")[0]
    for table in tables:
        if path and table.get("path") in (path, parent):
            return Shelf(table, path)
    return Shelf(tables[0], str(tables[0].get("path", "")))


def _subset(problem: Problem) -> int:
    match = _FIELD.match(problem.field)
    return int(match[1]) if match else -1


def changed(tables: Sequence[Table], old: Table, new: Table | None) -> list[Table] | None:
    """The subsets with `old` replaced by `new`, or taken out for None. None where `old` is there no longer."""
    if old not in tables:
        return None
    place = list(tables).index(old)
    return [*tables[:place], *([] if new is None else [new]), *tables[place + 1 :]]


# --- the settings of a subset, by its schema


def settings() -> list[str]:
    """The fields of a subset that are set in words or figures; its path is another matter."""
    return [name for name in fields(Subset) if name != "path"]


def default(name: str) -> Any:
    return fields(Subset)[name][1].default


def help_for(name: str) -> str:
    """What a field is for."""
    return help_of(fields(Subset)[name][0])


def takes(name: str) -> str:
    """What a field takes, in words."""
    return describe(fields(Subset)[name][0])


def spelled(value: Any) -> str:
    """A value as one types it; `parsed` reads it again."""
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def parsed(name: str, text: str) -> Any:
    """What was typed for a field, as a config has it; a text where it is nothing else."""
    if isinstance(default(name), str):
        return text
    if isinstance(default(name), bool):
        return {"yes": True, "true": True, "no": False, "false": False}.get(text.strip().lower(), text)
    value = toml_value(text.strip())
    return float(value) if isinstance(default(name), float) and type(value) is int else value


def wrong(name: str, text: str) -> str:
    """What is wrong with a text for a field, in words; empty for nothing."""
    _, problems = check(Subset, {"path": "/", name: parsed(name, text)}, lambda _: "", name)
    return "; ".join(f"expected {problem.expected}, found {problem.found}" for problem in problems)


def with_setting(table: Table, name: str, text: str) -> Table:
    """The subset with a field set; one that is given its default is left to the default."""
    value = parsed(name, text)
    rest = {key: old for key, old in table.items() if key != name}
    return rest if value == default(name) else rest | {name: value}
