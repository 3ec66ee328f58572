"""Two adapters side by side: norms, distance and cosine of every layer, to scroll through."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.protocol.operations import Difference, LayerDifference
from loratui import figures
from loratui.actions import bindings
from loratui.answers import cosine
from loratui.widgets.columns import Column, clean, fit, header, row
from loratui.widgets.virtual_list import VirtualList

COLUMNS = (
    Column("layer", flex=1),
    Column("‖first‖", width=8, align="right", needs=52),
    Column("‖second‖", width=8, align="right", needs=52),
    Column("distance", width=8, align="right", needs=42),
    Column("cosine", width=7, align="right"),
)


class Comparison(ModalScreen[None]):
    """The whole and its layers, those that differ most first. Closed by Escape or q."""

    DEFAULT_CSS = """
    Comparison { align: center middle; background: $background 60%; }
    Comparison .box { width: 120; max-width: 96%; height: 90%; padding: 0 1; background: $surface;
        border: round $border; border-title-color: $text; border-subtitle-color: $text-muted; }
    Comparison Static { height: auto; padding: 0 0 1 0; }
    Comparison VirtualList { height: 1fr; background: $surface; }
    """
    BINDINGS = [*bindings("dialog"), Binding("q", "close", show=False)]

    def __init__(self, title: str, told: Difference):
        super().__init__()
        self._title, self._told = title, told
        self._layers = sorted(told.layers, key=lambda layer: -layer.distance)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(f"{len(self._layers):,} layers, the farthest first")
            yield Static(summary(self._told), markup=False)
            yield VirtualList(self._row, header=lambda width: header(COLUMNS, fit(COLUMNS, width)))

    def on_mount(self) -> None:
        listed = self.query_one(VirtualList)
        listed.set_count(len(self._layers), 0)
        listed.focus()

    def _row(self, index: int, width: int) -> Text:
        return layer_row(self._layers[index], width)

    def action_close(self) -> None:
        self.dismiss(None)


def summary(told: Difference) -> str:
    """Both updates as one vector each."""
    return (
        f"cosine {cosine(told.cosine)}   distance {figures.number(told.distance)}   "
        f"‖first‖ {figures.number(told.first)}   ‖second‖ {figures.number(told.second)}"
    )


def layer_row(layer: LayerDifference, width: int) -> Text:
    """A layer; the end of its name is what tells it from others, so its beginning is cut."""
    widths = fit(COLUMNS, width)
    name = clean(f"{layer.part}.{layer.path}")
    name = name if len(name) <= widths[0] else f"…{name[len(name) - widths[0] + 1 :]}"
    numbers = [figures.number(value) for value in (layer.first, layer.second, layer.distance)]
    return row(COLUMNS, widths, [name, *numbers, cosine(layer.cosine)])
