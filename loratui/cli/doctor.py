"""`loratui doctor`: what this installation can do here, what it can't, and what to do about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loratui.doctor import Finding

SIGNS = {"ok": "✓", "absent": "·", "note": "!", "broken": "✗"}
PLAIN_SIGNS = {"ok": "ok", "absent": "-", "note": "!", "broken": "x"}
STYLES = {"ok": "green", "absent": "dim", "note": "yellow", "broken": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts and findings as one JSON object.")] = False,
) -> None:
    """Look at Python, torch, the devices, the disks and the terminal, and say what to do where something is amiss.

    Ends with 1 if loratui can't work as things are, else with 0.
    """
    from dataclasses import asdict

    from loratui.doctor import findings, gather

    if sys.stderr.isatty():
        typer.echo("Trying torch and the disks: a few seconds …", err=True)
    facts = gather()
    found = list(findings(facts))
    if as_json:
        import json

        typer.echo(json.dumps(facts | {"findings": [asdict(finding) for finding in found]}, indent=2, allow_nan=False))
    else:
        from rich.console import Console

        console = Console()
        console.print(table(found, unicode=facts["terminal"]["unicode"]))
    if any(finding.level == "broken" for finding in found):
        raise typer.Exit(1)


def table(found: list[Finding], unicode: bool) -> RenderableType:
    """The findings below their groups' names, then one line that sums them up. Never relies on colour alone."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    signs = SIGNS if unicode else PLAIN_SIGNS
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    group = ""
    for finding in found:
        if finding.group != group:
            group = finding.group
            grid.add_row("", Text(group, style="bold"), "")
        value = Text(finding.value)
        if finding.advice:
            value.append(f"\n{'→' if unicode else '->'} {finding.advice}", style=STYLES[finding.level])
        grid.add_row(Text(signs[finding.level], style=STYLES[finding.level]), Text(finding.name), value)
    return Group(grid, Text(), Text(summary(found)))


def summary(found: list[Finding]) -> str:
    """One sentence: whether loratui works here."""
    broken = [finding.name.strip() for finding in found if finding.level == "broken"]
    if broken:
        return f"loratui can't work here yet: see {', '.join(broken)}."
    noted = any(finding.level == "note" for finding in found)
    return f"loratui works here{'; what is marked ! is worth a look' if noted else ''}."
