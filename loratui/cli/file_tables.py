"""What `loratui adapter inspect` and `convert` print for people. Names and texts of files are never markup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rich.table import Table
from rich.text import Text

from engine.protocol.operations import Inspected, Loading
from loratui import figures
from loratui.cli.adapter_tables import columned

LONGEST = 200
"""Characters of a metadata text that are shown."""


def summary(answer: Inspected) -> Iterator[str]:
    """Lines about the whole file."""
    family = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}.get(answer.family, "a base of other sizes")
    yield f"{answer.path}: {answer.format}, {family}, {figures.size(answer.bytes)}"
    for token, encoders in answer.tokens.items():
        said = ", ".join(f"{count}×{width} for {part}" for part, (count, width) in encoders.items())
        yield f"token {printable(token)}: {said}"


def parts(answer: Inspected) -> Table:
    """Layers, ranks, alphas and kinds of each part, and the norm of all that it changes, if that is soon known."""
    made = columned("part", "layers", "ranks", "alphas", "‖ΔW‖", "kinds")
    for name, part in answer.parts.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in part.kinds.items())
        size = "" if part.norm is None else f"{part.norm:.4g}"
        made.add_row(Text(name), str(part.layers), _listed(part.ranks), _listed(part.alphas), size, Text(kinds))
    return made


def layers(answer: Inspected) -> Table:
    """Norm and spectrum of every layer. Energy: the share of ‖ΔW‖² that the first singular values hold."""
    made = columned("layer", "kind", "shape", "rank", "scale", "‖ΔW‖", "effective rank", "90 %", "99 %", "σ")
    for layer in answer.layers:
        known = layer.norm is not None
        made.add_row(
            Text(f"{layer.part}.{layer.path}"),
            Text(layer.kind),
            "×".join(map(str, layer.shape)),
            str(layer.rank),
            f"{layer.scale:g}",
            f"{layer.norm:.4g}" if known else "",
            f"{layer.effective_rank:.2f}" if known else "",
            str(layer.ranks.get("0.9", "")),
            str(layer.ranks.get("0.99", "")),
            " ".join(f"{value:.3g}" for value in layer.values[:4]) + (" …" if len(layer.values) > 4 else ""),
        )
    return made


def loads(found: Iterable[Loading]) -> Table:
    """What other programs make of the file."""
    made = columned("program", "", "what it does")
    for loading in found:
        made.add_row(Text(loading.program), "✓" if loading.loads else "✗", Text(printable(loading.note)))
    return made


def entries(metadata: Mapping[str, str]) -> Iterator[str]:
    """The metadata, an entry a line; without the rank of each layer, which cloneofsimo's files have there."""
    for name, text in sorted(metadata.items()):
        if not name.endswith(":rank"):
            short = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
            yield f"{printable(name)} = {printable(short)}"


def printable(text: str) -> str:
    """Text out of a file without what could steer a terminal."""
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in text)


def _listed(values: list, most: int = 8) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:most])
    return shown + (f" … {values[-1]:g}" if len(values) > most else "")
