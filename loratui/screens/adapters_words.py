"""How a row of the list of adapters is drawn, and what is said about a file: functions of its header alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text

from engine.protocol.browse import AdapterHeader
from loratui import figures
from loratui.answers import ranks
from loratui.widgets.columns import Column, clean, fit, header, row

COLUMNS = (
    Column("file", flex=3),
    Column("family", width=10),
    Column("rank", width=6),
    Column("size", width=8, align="right"),
    Column("from", flex=2, needs=90),
    Column("age", width=10, align="right", needs=46),
)
BLENDING = (
    Column("blend", width=7, align="right"),
    *(replace(column, needs=64) if column.title == "family" else column for column in COLUMNS),
)
"""With the weights of what is in the blend; names matter more than families then."""
MOST_RANKS = 3
KNOWN = (
    ("base", ("ss_sd_model_name", "modelspec.title", "ss_base_model_version")),
    ("steps", ("ss_steps", "ss_max_train_steps")),
    ("epochs", ("ss_num_epochs",)),
    ("images", ("ss_num_train_images",)),
    ("made", ("modelspec.date",)),
    ("licence", ("modelspec.license",)),
)
"""What people look for first, and the keys that may hold it."""


def name_of(found: AdapterHeader) -> str:
    return clean(found.path.rpartition("/")[2])


def adapters_header(width: int, blending: bool) -> Text:
    columns = BLENDING if blending else COLUMNS
    return header(columns, fit(columns, width))


def adapter_row(found: AdapterHeader, width: int, now: float, weight: str | None = None) -> Text:
    """One file. What can't be read, or is of no known kind, has a sign and says so.

    weight: in the blend, empty for a file that is not in it; None where there is no blend.
    """
    columns = COLUMNS if weight is None else BLENDING
    stem = name_of(found).removesuffix(".safetensors")
    family, kind = found.family or "?", "token" if found.format == "embedding" else ranks(found.ranks)
    if found.problem or not found.format:
        stem, family, kind = f"! {stem}", "unreadable" if found.problem else "unknown", "–"
    cells = [stem, family, kind, figures.size(found.bytes), origin(found), figures.age(found.modified, now)]
    return row(columns, fit(columns, width), cells if weight is None else [Text(weight, style="bold"), *cells])


def origin(found: AdapterHeader) -> str:
    """The run that wrote it, or the folder that it was found under."""
    if found.run:
        return found.run if found.step is None else f"{found.run}, step {found.step}"
    return found.folder.rstrip("/").rpartition("/")[2]


def details(found: AdapterHeader, report: Sequence[str], everything: bool, now: float) -> str:
    """Several lines; with `everything`, all metadata behind them. `report`: what reading the tensors has told."""
    lines = [figures.at_home(found.path), f"{figures.size(found.bytes)} · {figures.age(found.modified, now)}", ""]
    if found.problem:
        return "\n".join(map(clean, [*lines, f"✗ {found.problem}"]))
    parts = " + ".join(f"{count} {part}" for part, count in found.modules.items())
    if found.format == "pickle":
        lines.append("a PyTorch file, read without running what is in it")
    elif not found.format:
        lines.append(f"? not an adapter that is understood: {found.tensors} tensors")
    else:
        alphas = " α" + "/".join(figures.number(alpha) for alpha in found.alphas[:MOST_RANKS]) if found.alphas else ""
        shown = " ".join(filter(None, (ranks(found.ranks) if found.ranks else "", alphas.strip())))
        lines.append(" · ".join(filter(None, (found.family or "family unknown", found.format, shown))))
        lines.append(f"modules {parts}" if parts else f"{found.tensors} tensors")
    lines += [f"trigger {found.trigger}"] if found.trigger else []
    lines += [f"from {origin(found)}"] if origin(found) else []
    for label, keys in KNOWN:
        value = next((found.metadata[key] for key in keys if found.metadata.get(key)), "")
        if value and value != "None":
            lines.append(f"{label} {value}")
    lines += ["", *report] if report else []
    if everything:
        lines += ["", *(f"{key}: {value}" for key, value in sorted(found.metadata.items()))]
    elif found.metadata:
        lines += ["", f"i: all {len(found.metadata)} entries of its metadata"]
    return "\n".join(map(clean, lines))
