"""Beside the form: what the run comes to, and everything that keeps it from starting. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from engine.config import Problem
from engine.protocol.browse import RunPlan
from loratui import figures
from loratui.screens.train_rows import advice, words
from loratui.widgets.columns import clean
from loratui.widgets.form_lines import Line
from loratui.widgets.form_rows import Looks

LABEL = 11
SHAPES = 6
"""Buckets that are named."""


def side_lines(base: str, plan: RunPlan | None, trouble: str, problems: Sequence[Problem], looks: Looks) -> list[Line]:
    """What the panel's side says: the arithmetic, then all problems. `base`: what the base is, in words; `trouble`: why
    there is no arithmetic."""
    found: list[Line] = []
    if plan is not None and plan.text:
        found += [Text(clean(plan.text)), Text("")]
    if base:
        found.append(_row("base", base))
    if plan is not None:
        found += _figures(plan)
        found += _disk(plan, looks)
    if trouble:
        found.append(Text(clean(f"✗ the arithmetic can't be made: {trouble}"), looks.wrong))
    if problems:
        found += [Text(""), Text(f"✗ {len(problems)} to mend before it can start", looks.wrong + Style(bold=True))]
    for problem in problems:
        found += [Text(""), *_problem(problem, looks)]
    return found


def _figures(plan: RunPlan) -> list[Line]:
    """The rows of the arithmetic; those that say nothing are left out."""
    rows = []
    if plan.images:
        rows.append(("images", f"{plan.images:,}"))
    if plan.class_images:
        rows.append(("class", f"{plan.class_images:,} images for prior preservation"))
    elif plan.class_images_to_draw:
        rows.append(("class", f"{plan.class_images_to_draw:,} images to draw first"))
    if plan.steps:
        rows.append(("length", f"{plan.steps:,} steps · {figures.number(plan.epochs, 3)} epochs"))
    if plan.steps_per_epoch:
        rows.append(("epoch", f"{plan.per_epoch:,} images · {figures.number(plan.steps_per_epoch, 4)} steps"))
    if plan.views_per_image:
        rows.append(("views", f"{figures.number(plan.views_per_image, 3)} of each image"))
    rows += [("" if index else "buckets", shape) for index, shape in enumerate(plan.buckets[:SHAPES])]
    if len(plan.buckets) > SHAPES:
        rows.append(("", f"and {len(plan.buckets) - SHAPES} shapes more"))
    if plan.adapters:
        rows.append(("adapters", _times(plan.adapters, plan.adapter_bytes)))
    if plan.states:
        rows.append(("states", _times(plan.states, plan.state_bytes)))
    if plan.samples:
        rows.append(("samples", f"{plan.samples:,} pictures"))
    return [_row(label, text) for label, text in rows]


def _disk(plan: RunPlan, looks: Looks) -> list[Line]:
    free = figures.size(plan.disk_free)
    if plan.disk_bytes is None:
        return [_row("disk", f"{free} free")] if plan.disk_free else []
    head, body = _row("disk", f"{figures.size(plan.disk_bytes)} of {free} free")
    if plan.disk_bytes > plan.disk_free:
        body.append("  ! it does not fit", looks.wrong)
    return [(head, body)]


def _times(count: int, each: int | None) -> str:
    return f"{count:,}" + (f" × {figures.size(each)}" if each else "")


def _row(label: str, text: str) -> tuple[Text, Text]:
    return Text(f"{label:<{LABEL}}", style="dim"), Text(clean(text))


def _problem(problem: Problem, looks: Looks) -> list[Line]:
    found: list[Line] = [(Text("✗ ", looks.wrong), Text(clean(problem.field or problem.where), style="bold"))]
    found.append((Text("  "), Text(clean(words(problem)))))
    if told := advice(problem):
        found.append((Text("  → "), Text(clean(told), style="dim")))
    return found
