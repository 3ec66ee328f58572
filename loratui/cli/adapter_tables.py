"""What `loratui adapter` prints for people: tables of layers, in short by part, or every one of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.protocol.operations import Composed, Difference, Fitted, Layer


def show(table: Table) -> None:
    """Print a table on stdout, as wide as it needs to be where no terminal limits it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = console.measure(table, options=console.options.update(width=10_000)).maximum
    console.print(table)


def columned(*columns: str) -> Table:
    """First column left, all others right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(columns[0]), overflow="fold")
    for name in columns[1:]:
        table.add_column(Text(name), justify="right", no_wrap=True)
    return table


def made(answer: Composed, layers: bool) -> Table:
    """Ranks, energy kept and error. energy: share of ‖ΔW‖²; sv_fro: the same as sd-scripts counts it, of ‖ΔW‖."""
    if layers:
        table = columned("layer", "rank", "energy kept", "sv_fro", "error")
        for layer in answer.layers:
            table.add_row(
                Text(f"{layer.part}.{layer.path}"),
                str(layer.rank),
                f"{layer.energy:.4%}",
                f"{layer.sv_fro:.4f}",
                f"{layer.error:.2e}",
            )
        return table
    table = columned("part", "layers", "ranks", "energy kept", "sv_fro", "error", "worst error")
    for part, members in _by_part(answer.layers).items():
        table.add_row(
            Text(part),
            str(len(members)),
            _span([layer.rank for layer in members]),
            f"{_mean(layer.energy for layer in members):.4%}",
            f"{_mean(layer.sv_fro for layer in members):.4f}",
            f"{_mean(layer.error for layer in members):.2e}",
            f"{max(layer.error for layer in members):.2e}",
        )
    return table


def _by_part(layers: Iterable[Layer]) -> dict[str, list[Layer]]:
    parts: dict[str, list[Layer]] = {}
    for layer in layers:
        parts.setdefault(layer.part, []).append(layer)
    return parts


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def difference(answer: Difference, layers: bool) -> Table:
    """Norms of both ΔW, of their difference, and the cosine between them."""
    table = columned("layer" if layers else "", "‖ΔW₁‖", "‖ΔW₂‖", "distance", "cosine")
    for layer in answer.layers if layers else ():
        table.add_row(Text(f"{layer.part}.{layer.path}"), *_figures(layer))
    table.add_row("all layers", *_figures(answer))
    return table


def _figures(found) -> list[str]:
    cosine = "–" if found.cosine is None else f"{found.cosine:+.4f}"
    return [f"{found.first:.4g}", f"{found.second:.4g}", f"{found.distance:.4g}", cosine]


def weights(answer: Fitted) -> Table:
    """Learned weights: a block a row, an adapter a column; what they began with comes first."""
    table = columned("", *(Path(path).stem for path in answer.adapters))
    for block, values in [("before", answer.before), *answer.weights.items()]:
        table.add_row(Text(block), *(f"{value:+.3f}" for value in values))
    return table
