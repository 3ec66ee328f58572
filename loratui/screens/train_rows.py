"""From a run in the making to the rows of its form, and to the words below them. Pure functions.

The schema says what rows there are. The few fields that mean more than their type says are named at the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from rich.text import Text

from engine.config import Problem, fields
from loratui import figures
from loratui.draft import SUBSETS, Setup, place
from loratui.draft_fields import Leaf, leaves, limits, spelled
from loratui.widgets.columns import clean
from loratui.widgets.form_lines import Line
from loratui.widgets.form_rows import FormRow, Looks

BASE, ALPHA, RANK, PROJECT = "model.base", "adapter.alpha", "adapter.rank", "project"
ELSEWHERE = {SUBSETS: "edited in the dataset panel: 2", PROJECT: "the open project"}
"""Fields that are not edited here, and what is said of that."""
TOP = "Run"
"""Heading of the fields at the config's root."""
ADVANCED = "/advanced"
SHORT = 28
"""Characters of a path that are shown."""


@dataclass
class View:
    """What of the form is unfolded."""

    folded: set[str] = field(default_factory=set)
    """Sections."""
    unfolded: set[str] = field(default_factory=set)
    """Sections whose advanced fields are shown."""
    advanced: bool = False
    """Whether those of all sections are."""
    changes: bool = False
    """Show nothing but what differs from the preset, and what is wrong."""

    def reveal(self, leaf: Leaf) -> None:
        """Unfold what hides a field."""
        self.changes = False
        self.folded.discard(leaf.section)
        if leaf.advanced:
            self.unfolded.add(leaf.section)


def sections() -> list[str]:
    return list(dict.fromkeys(leaf.section for leaf in leaves().values()))


def rows(
    setup: Setup, problems: Sequence[Problem], view: View, facts: Mapping[str, str], always: str = ""
) -> list[FormRow]:
    """The rows of the form. `facts`: field → what else is known of it. `always`: a field that is shown anyhow."""
    placed: dict[str, list[Problem]] = {}
    for problem in problems:
        placed.setdefault(place(problem.field), []).append(problem)
    found = []
    for section in sections():
        mine = [leaf for leaf in leaves().values() if leaf.section == section]
        found += _section(section, mine, _Sight(setup, placed, view, facts, always))
    return found


@dataclass(frozen=True)
class _Sight:
    """What the rows of a section are made from."""

    setup: Setup
    placed: Mapping[str, list[Problem]]
    view: View
    facts: Mapping[str, str]
    always: str

    def needed(self, leaf: Leaf) -> bool:
        return self.setup.changed(leaf.path) or leaf.path in self.placed or leaf.path == self.always

    def shown(self, leaf: Leaf) -> bool:
        if self.view.changes:
            return self.needed(leaf)
        return not leaf.advanced or self.view.advanced or leaf.section in self.view.unfolded or self.needed(leaf)


def _section(section: str, mine: list[Leaf], sight: _Sight) -> list[FormRow]:
    shown = [leaf for leaf in mine if sight.shown(leaf)]
    wrong = sum(len(sight.placed.get(key, [])) for key in (section, *(leaf.path for leaf in mine)))
    if sight.view.changes and not shown and not wrong:
        return []
    folded = section in sight.view.folded and not sight.view.changes
    changed = len(sight.setup.changed_paths(section))
    head = FormRow(
        section,
        f"{'▸' if folded else '▾'} {section.capitalize() or TOP}",
        "section",
        note=f"* {changed}" if changed else "",
        wrong=str(wrong) if wrong else "",
    )
    if folded:
        return [head] + [row for leaf in mine if leaf.path == sight.always for row in _field(leaf, sight)]
    found = [head, *(row for leaf in shown for row in _field(leaf, sight))]
    hidden = len(mine) - len(shown)
    unfolded = section in sight.view.unfolded and not sight.view.advanced
    if not sight.view.changes and (hidden or unfolded):
        label = f"▸ {hidden} advanced" if hidden else "▾ advanced"
        found.append(FormRow(section + ADVANCED, label, "more"))
    return found


def _field(leaf: Leaf, sight: _Sight) -> list[FormRow]:
    setup, problems = sight.setup, sight.placed.get(leaf.path, [])
    value = setup.value(leaf.path)
    items = value if leaf.way in ("lines", "tables") and isinstance(value, list) else []
    own = [problem for problem in problems if _index(problem.field, leaf.path) not in range(len(items))]
    row = FormRow(
        leaf.path,
        leaf.name.replace("_", " "),
        value=spelled(value) if value != "" else "–",
        note=f"* was {spelled(setup.start(leaf.path)) or 'empty'}" if setup.changed(leaf.path) else "",
        aside=_aside(leaf, sight),
        wrong=words(own[0]) if own else "",
    )
    return [row, *(_item(leaf, index, item, problems) for index, item in enumerate(items))]


def _aside(leaf: Leaf, sight: _Sight) -> str:
    """What stands beside a value that is sound: what is known of it, or what it may be."""
    told = sight.facts.get(leaf.path) or ELSEWHERE.get(leaf.path, "") or limits(leaf.kind)
    if leaf.path == ALPHA:
        rank, alpha = sight.setup.value(RANK), sight.setup.value(ALPHA)
        if isinstance(rank, int) and isinstance(alpha, int | float) and rank > 0:
            told = f"scale α/r {figures.number(alpha / rank, 3)}  {told}"
    return told


def _item(leaf: Leaf, index: int, item: Any, problems: Sequence[Problem]) -> FormRow:
    wrong = [problem for problem in problems if _index(problem.field, leaf.path) == index]
    first, rest = item, ""
    if isinstance(item, dict):
        (_, first), *others = _ordered(leaf, item) or [("", "")]
        rest = " · ".join(f"{key.replace('_', ' ')} {spelled(value)}" for key, value in others)
    return FormRow(
        f"{leaf.path}[{index}]",
        str(index + 1),
        "item",
        value=_short(spelled(first)),
        aside=rest,
        wrong=words(wrong[0]) if wrong else "",
    )


def _ordered(leaf: Leaf, item: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The values of a table in the schema's order, what tells it from others first."""
    order = list(fields(leaf.item)) if leaf.item else []
    return sorted(item.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))


def _index(dotted: str, path: str) -> int:
    """Which item of the list at `path` a dotted name leads into; -1 for none."""
    inside = dotted.removeprefix(path)
    number = inside[1:].partition("]")[0] if inside.startswith("[") else ""
    return int(number) if number.isdigit() else -1


def _short(text: str) -> str:
    """The end of a long path, which is what tells it from others."""
    if len(text) <= SHORT or not text.startswith("/"):
        return text
    parent, name = PurePath(text).parts[-2:]
    return f"…/{parent}/{name}" if len(parent) + len(name) + 3 <= SHORT else f"…/{name}"


def words(problem: Problem) -> str:
    """A problem without its place: `expected …, found …`."""
    if not problem.expected:
        return problem.found or problem.advice
    return f"expected {problem.expected}" + (f", found {problem.found}" if problem.found else "")


def advice(problem: Problem) -> str:
    """What to do about a problem, where that is more than the help of its field."""
    leaf = leaves().get(place(problem.field))
    return "" if leaf and problem.advice == leaf.help else problem.advice


def counted(count: int, what: str) -> str:
    """1 change, 2 changes."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def field_of(key: str) -> Leaf | None:
    """The field that a row is about; None for a heading."""
    return leaves().get(key.partition("[")[0])


def help_lines(setup: Setup, problems: Sequence[Problem], key: str, looks: Looks) -> list[Line]:
    """What is to be said of the row at the cursor."""
    leaf = field_of(key)
    mine = [problem for problem in problems if place(problem.field) == (leaf.path if leaf else key)]
    if leaf is None:
        name = key.removesuffix(ADVANCED)
        changed = len(setup.changed_paths(name))
        said = (
            f"{name.capitalize() or TOP}: {'1 change' if changed == 1 else f'{changed} changes'}; ⏎ folds and unfolds"
        )
        found = [Text(said)]
    else:
        index = _index(key, leaf.path)
        if index >= 0:
            mine = [problem for problem in mine if _index(problem.field, leaf.path) in (index, -1)]
        value = setup.value(leaf.path)
        if isinstance(value, list) and index in range(len(value)):
            found = [Text.assemble((key, "bold"), "  ", clean(_whole(leaf, value[index])))]
        else:
            found = [Text.assemble((leaf.path, "bold"), "  ", clean(leaf.help))]
        found.append(Text(_expected(setup, leaf), style="dim"))
    for problem in mine:
        found.append((Text("✗ ", looks.wrong), Text(clean(words(problem)), looks.wrong)))
        if told := advice(problem):
            found.append((Text("  → "), Text(clean(told), style="dim")))
    return found


def _expected(setup: Setup, leaf: Leaf) -> str:
    start = setup.start(leaf.path)
    if leaf.path in ELSEWHERE:
        return ELSEWHERE[leaf.path]
    if start is None:
        return leaf.expected
    return clean(f"{leaf.expected} · {setup.preset}: {spelled(start) or 'empty'}")


def _whole(leaf: Leaf, item: Any) -> str:
    if isinstance(item, dict):
        return " · ".join(f"{key} {spelled(value)}" for key, value in _ordered(leaf, item))
    return spelled(item)
