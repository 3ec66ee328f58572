"""A training run in the making: what a preset starts from, what the user set over it, and what is wrong with the two.

A `Setup` never changes; every step of the user makes another one, so that the one before can be had back. It holds what
the user set as a config file would, whether or not that makes a config yet. The values below it are the schema's
defaults under those of a preset, and which of a preset's variants is meant follows from the base: only the engine can
tell, so it is given here.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin

import msgspec

from engine.config import CAPTION_DROPOUT, PRESETS, Problem, Request, Train, check, fields, rules
from loratui.draft_fields import Leaf, bare, is_struct, leaves, storable

Table = dict[str, Any]
FORM = "the form"
SUBSETS = "dataset.subsets"
GIVEN = ("kind", "project")
"""Top fields that are not the user's to set here: the app knows them."""


def variant(kind: str, family: str) -> str:
    """Which values of a preset hold for a base, by what the engine says of it: `tiny`, `sd1` …"""
    return "tiny" if kind == "embedded" else family


def with_dropout(preset: str, subsets: Iterable[Table]) -> list[Table]:
    """Subsets with the caption dropout of a method, where they have none of their own."""
    dropout = CAPTION_DROPOUT.get(preset)
    return [({"caption_dropout": dropout} if dropout else {}) | subset for subset in subsets]


@functools.cache
def _start(preset: str, of: str) -> Request:
    defaults: Table = {}
    for leaf in leaves().values():
        if not leaf.required:
            _put(defaults, leaf.path, leaf.default)
    request = Request()
    request.lay(defaults, "the defaults")
    request.lay(PRESETS.get(preset, {}).get(of, {}), f"preset {preset}")
    return request


@dataclass(frozen=True)
class Setup:
    """A run in the making, of one project."""

    project: str
    preset: str = "dreambooth"
    variant: str = "tiny"
    changes: Table = field(default_factory=dict)
    """What the user set: nested tables, not necessarily sound."""

    def start(self, path: str) -> Any:
        """The value that a field has before the user sets it; None for one that has none."""
        return self.project if path == "project" else _get(_start(self.preset, self.variant).data, path)

    def value(self, path: str) -> Any:
        """The value of a field: the user's, or else the one that it starts from."""
        return _get(self.table, path)

    def changed(self, path: str) -> bool:
        """Whether the user set a field to something else than it starts from. What has no start has no change."""
        return not leaves()[path].required and not _same(self.value(path), self.start(path))

    def sets(self, section: str) -> bool:
        """Whether the user set anything in a section, be it known to the schema or not."""
        known = {leaf.section.partition(".")[0] for leaf in leaves().values()}
        return section in self.changes if section else any(key not in known for key in self.changes)

    def without_section(self, section: str) -> Setup:
        """With a section as it starts, whatever was in it; the empty name is that of the fields at the root."""
        known = {leaf.section.partition(".")[0] for leaf in leaves().values()}
        kept = {key: value for key, value in self.changes.items() if key != section and (section or key in known)}
        return replace(self, changes=copy.deepcopy(kept))

    def changed_paths(self, section: str | None = None) -> list[str]:
        """The changed fields, of one section or of all."""
        return [leaf.path for leaf in leaves().values() if section in (None, leaf.section) and self.changed(leaf.path)]

    @functools.cached_property
    def request(self) -> Request:
        """Preset and changes laid over each other, each value knowing where it came from."""
        start = _start(self.preset, self.variant)
        request = Request()
        request.lay(start.data, f"preset {self.preset}")
        request.lay({key: value for key, value in self.changes.items() if key not in GIVEN}, FORM)
        subsets = _get(request.data, SUBSETS)
        if isinstance(subsets, list) and all(isinstance(subset, dict) for subset in subsets):
            request.lay({"dataset": {"subsets": with_dropout(self.preset, subsets)}}, FORM)
        request.lay({"kind": "train", "project": self.project}, "the open project")
        return request

    @property
    def table(self) -> Table:
        """All fields as a config file would have them; not to be changed."""
        return self.request.data

    # --- steps --------------------------------------------------------------------------------------------------------

    def with_value(self, path: str, value: Any) -> Setup:
        """With a field set. The value that it starts from is no change."""
        if not leaves()[path].required and _same(value, self.start(path)):
            return self.without(path)
        changes = copy.deepcopy(self.changes)
        _put(changes, path, value)
        return replace(self, changes=changes)

    def without(self, path: str) -> Setup:
        """With a field as it starts."""
        changes = copy.deepcopy(self.changes)
        _drop(changes, path)
        return replace(self, changes=changes)

    def with_preset(self, preset: str, keep: bool) -> Setup:
        """On another preset, with the changes from this one if they are kept. What no preset can know stays anyhow:
        what has no start, and the names at the top."""
        changes: Table = {}
        for leaf in leaves().values():
            stays = leaf.required or not leaf.section or (keep and self.changed(leaf.path))
            if stays and (value := _get(self.changes, leaf.path)) is not None:
                _put(changes, leaf.path, copy.deepcopy(value))
        return replace(self, preset=preset, changes=changes)

    def with_file(self, table: Table) -> Setup:
        """With the values of a config file, which stands over the schema's defaults and no preset; each of them is set,
        so that they stay whatever the base turns out to be. Its paths are absolute, its fields known."""
        changes = {key: copy.deepcopy(value) for key, value in table.items() if key not in GIVEN}
        for leaf in leaves().values():
            section = _get(changes, leaf.section, {}) if leaf.section else changes
            if isinstance(section, dict) and not leaf.required and leaf.path not in GIVEN:
                _put(changes, leaf.path, _get(changes, leaf.path, copy.deepcopy(leaf.default)))
        subsets = _get(changes, SUBSETS)
        if isinstance(subsets, list):
            _put(
                changes, SUBSETS, [{"caption_dropout": 0.0} | one if isinstance(one, dict) else one for one in subsets]
            )
        return replace(self, changes=changes)

    # --- what is wrong ------------------------------------------------------------------------------------------------

    @functools.cached_property
    def checked(self) -> tuple[Train | None, tuple[Problem, ...]]:
        """The config, or None with everything that is wrong: in fields, and between them.

        Rules run also where some fields are no good, on the values that these start from.
        """
        origin = self.request.origin
        config, problems = check(Train, self.table, origin)
        wrong = {place(problem.field) for problem in problems}
        whole = config or check(Train, self._sound(wrong), origin)[0]
        if whole is not None:
            problems += [problem for problem in rules(whole, origin) if place(problem.field) not in wrong]
        return (None if problems else config), tuple(problems)

    def _sound(self, wrong: set[str]) -> Table:
        """The table without what is wrong in it."""
        sound: Table = {}
        for leaf in leaves().values():
            value = None if {leaf.path, leaf.section} & wrong else self.value(leaf.path)
            value = self.start(leaf.path) if value is None else value
            _put(sound, leaf.path, _stand_in(leaf.kind) if value is None else value)
        return sound


def absolute(path: str, value: Any) -> Any:
    """The value of a field that may hold a path, as it means the same from every folder. Looks at the disk."""
    nested: Table = {}
    _put(nested, path, value)
    request = Request()
    request.lay(nested, FORM)
    return _get(request.anchored(), path)


def place(dotted: str) -> str:
    """Where in a form a problem's field is: the path of a leaf, else of a section, else the root's, which is empty."""
    known = {**leaves(), **dict.fromkeys(leaf.section for leaf in leaves().values())}
    while dotted and dotted not in known:
        dotted = dotted.rpartition("[")[0] if dotted.endswith("]") else dotted.rpartition(".")[0]
    return dotted


def split_unknown(table: Table, struct: type[msgspec.Struct] = Train, path: str = "") -> tuple[Table, list[str]]:
    """A table without the fields that the schema does not have, and their dotted names. What a draft's file can't hold
    becomes its text."""
    known = fields(struct)
    kept: Table = {}
    unknown = []
    for key, value in table.items():
        dotted = f"{path}.{key}" if path else str(key)
        if key in known:
            kept[key], found = _known_inside(known[key][0], value, dotted)
            unknown += found
        elif path or key != "kind":
            unknown.append(dotted)
    return kept, unknown


def _known_inside(kind: Any, value: Any, path: str) -> tuple[Any, list[str]]:
    plain = bare(kind)
    if is_struct(plain) and isinstance(value, dict):
        return split_unknown(value, plain, path)
    if get_origin(plain) is list and isinstance(value, list):
        inside = [_known_inside(get_args(plain)[0], item, f"{path}[{index}]") for index, item in enumerate(value)]
        return [item for item, _ in inside], [name for _, names in inside for name in names]
    return storable(value), []


def differences(setup: Setup, preset: str) -> list[tuple[Leaf, Any]]:
    """The fields that start from other values in another preset, with these values."""
    other = replace(setup, preset=preset)
    return [
        (leaf, other.start(leaf.path))
        for leaf in leaves().values()
        if not _same(other.start(leaf.path), setup.start(leaf.path))
    ]


def _stand_in(kind: Any) -> Any:
    """Some sound value of a type that has no default, so that rules about other fields can run."""
    plain = bare(kind)
    if is_struct(plain):
        return {name: _stand_in(inner) for name, (inner, info) in fields(plain).items() if info.required}
    if get_origin(plain) is list:
        return [_stand_in(get_args(plain)[0])]
    if get_origin(plain) is Literal:
        return get_args(plain)[0]
    if get_args(plain):
        return _stand_in(get_args(plain)[0])
    return {str: "?", int: 1, float: 1.0, bool: False}[plain]


def _same(one: Any, other: Any) -> bool:
    """Equality that does not take true for 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _get(table: Any, path: str, missing: Any = None) -> Any:
    for name in path.split("."):
        if not isinstance(table, Mapping) or name not in table:
            return missing
        table = table[name]
    return table


def _put(table: Table, path: str, value: Any) -> None:
    *way, last = path.split(".")
    for name in way:
        inner = table.get(name)
        table[name] = inner = inner if isinstance(inner, dict) else {}
        table = inner
    table[last] = value


def _drop(table: Table, path: str) -> None:
    """Remove a field, and the tables that are empty without it."""
    name, _, rest = path.partition(".")
    inner = table.get(name)
    if rest and isinstance(inner, dict):
        _drop(inner, rest)
        if inner:
            return
    table.pop(name, None)
