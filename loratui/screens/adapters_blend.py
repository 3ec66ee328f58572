"""The blend in the making: which adapters are in it and how strongly, what it will be, and how it is drawn.

Everything here is known from the files' headers. What a file really holds is the operation's to say: the figures of a
blend are expectations, right for LoRA and LoCon, which add up rank by rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from engine.protocol.browse import AdapterHeader
from loratui import figures
from loratui.widgets.columns import clean, cut
from loratui.widgets.sparkline import bar

STEP, MOST = 0.05, 10.0
"""Of a weight."""
SHOWN = 8
"""Parts that are drawn; of the others there is a count."""


@dataclass(frozen=True)
class Part:
    """An adapter in the blend, with what its header said of it."""

    path: str
    weight: float = 1.0
    family: str = ""
    ranks: list[int] = field(default_factory=list)
    bytes: int = 0

    @property
    def name(self) -> str:
        stem = self.path.rpartition("/")[2]
        return clean(stem.removesuffix(".safetensors").removesuffix(".pt"))


def part_of(found: AdapterHeader, weight: float = 1.0) -> Part:
    return Part(found.path, weight, found.family, list(found.ranks), found.bytes)


class Blend:
    """Parts by their paths, in the order in which they were put in."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, path: str) -> bool:
        return path in self._parts

    @property
    def parts(self) -> list[Part]:
        return list(self._parts.values())

    def toggle(self, found: AdapterHeader) -> None:
        """Put a file in at full weight, or take it out."""
        if self._parts.pop(found.path, None) is None:
            self._parts[found.path] = part_of(found)

    def clear(self) -> None:
        self._parts.clear()

    def forget(self, path: str) -> None:
        """A file is no longer there."""
        self._parts.pop(path, None)

    def note(self, found: AdapterHeader) -> bool:
        """Take in what a header says now. Whether that is something else than before."""
        before = self._parts.get(found.path)
        if before is None:
            return False
        self._parts[found.path] = part_of(found, before.weight)
        return self._parts[found.path] != before

    def weight(self, path: str) -> float | None:
        """Of a file; None where it is not in the blend."""
        part = self._parts.get(path)
        return part.weight if part else None

    def weigh(self, path: str, weight: float) -> None:
        """Give a file of the blend another weight."""
        weight = min(max(round(weight, 4), -MOST), MOST)
        self._parts[path] = replace(self._parts[path], weight=weight)

    def uses(self) -> list[dict[str, Any]]:
        """As a request has them."""
        return [{"path": part.path, "weight": part.weight} for part in self.parts]

    def why_not(self) -> str:
        """Why it can't be written, as far as headers tell."""
        if not self._parts:
            return "the blend is empty: space puts a file in"
        families = sorted({part.family for part in self.parts if part.family})
        if len(families) > 1:
            return f"{' and '.join(families)} do not go together"
        if not any(part.weight for part in self.parts):
            return "all weights are 0"
        return ""

    @property
    def ranks(self) -> tuple[int, int]:
        """Least and largest rank of a layer that all parts adapt, composed exactly; zeros where none has any."""
        known = [part.ranks for part in self.parts if part.ranks and part.weight]
        return sum(map(min, known)), sum(map(max, known))

    @property
    def bytes(self) -> int:
        """About as large as its parts together, whose factors it holds."""
        return sum(part.bytes for part in self.parts if part.weight)

    def outlook(self) -> str:
        """What it will be, composed exactly: `rank 20 · ≈ 33 kB`."""
        low, high = self.ranks
        rank = f"rank {low}" if low == high else f"rank {low}–{high}"
        return " · ".join(filter(None, (rank if high else "", f"≈ {figures.size(self.bytes)}")))

    # --- session ------------------------------------------------------------------------------------------------------

    def remembered(self) -> list[dict[str, Any]]:
        return [asdict(part) for part in self.parts]

    def recall(self, saved: Any) -> None:
        """Take up what was remembered; what makes no sense is left out."""
        for one in saved if isinstance(saved, list) else ():
            if isinstance(one, Mapping) and isinstance(one.get("path"), str):
                self._recall(one)

    def _recall(self, one: Mapping[str, Any]) -> None:
        weight, ranks, size = one.get("weight"), one.get("ranks"), one.get("bytes")
        self._parts[one["path"]] = Part(
            one["path"],
            min(max(float(weight), -MOST), MOST) if isinstance(weight, int | float) else 1.0,
            str(one.get("family") or ""),
            [rank for rank in ranks if isinstance(rank, int)] if isinstance(ranks, list) else [],
            size if isinstance(size, int) else 0,
        )


def spelled(weight: float) -> str:
    """A weight with its sign: `+0.70`, `−0.125`."""
    digits = f"{abs(weight):.4f}".rstrip("0")
    whole, _, rest = digits.partition(".")
    return f"{'−' if weight < 0 else '+'}{whole}.{rest:0<2}"


def parsed(text: str) -> float | None:
    """A typed weight; None for what is none."""
    try:
        weight = float(text.strip().replace("−", "-").replace(",", "."))
    except ValueError:
        return None
    return weight if abs(weight) <= MOST else None


def wrong_weight(text: str) -> str:
    """What is wrong with a typed weight."""
    return "" if parsed(text) is not None else f"a number from {-MOST:g} to {MOST:g}"


def blend_lines(blend: Blend, width: int) -> list[Text]:
    """A line a part, with its name, weight and a bar, and one of what the blend will be."""
    parts = blend.parts
    shown = parts[: SHOWN - 1] if len(parts) > SHOWN else parts
    widest = max((cell_len(part.name) for part in shown), default=0)
    names = min(widest, max(8, width - 20))
    scale = max((abs(part.weight) for part in parts), default=1.0) or 1.0
    lines = [_line(part, names, max(4, min(20, width - names - 11)), max(1.0, scale)) for part in shown]
    if len(parts) > len(shown):
        lines.append(Text(f"… and {len(parts) - len(shown)} more", style="dim"))
    why_not = blend.why_not()
    return [*lines, Text(f"✗ {why_not}", style="$state-failed") if why_not else Text(f"→ {blend.outlook()}")]


def _line(part: Part, names: int, room: int, scale: float) -> Text:
    name = cut(part.name, names)
    line = Text(f"{name}{' ' * (names - cell_len(name))} {spelled(part.weight):>8}  ")
    drawn = bar(abs(part.weight) / scale, room)
    drawn.stylize("$state-failed" if part.weight < 0 else "$state-running")
    return line.append_text(drawn)


def default_name(parts: Iterable[Part]) -> str:
    """What a blend of these may be called."""
    return "-".join(part.name.replace("/", "-").strip(". ") for part in parts)[:60].strip("-. ") or "blend"
