"""Jump labels: a letter on everything that can take the focus; typing it goes there."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from loratui.actions import bindings

KEYS = "asdfghjklqwertyuiopzxcvbnm"


class Jump(ModalScreen[Widget | None]):
    """Gives the widget whose letter was typed, or None."""

    DEFAULT_CSS = """
    Jump { background: $background 40%; }
    Jump Static { position: absolute; width: 3; height: 1; text-style: bold;
        background: $jump-background; color: $jump-foreground; }
    """
    BINDINGS = bindings("dialog")

    def __init__(self, places: list[tuple[Widget, Region]]):
        """`places`: what can be focused, and where it is on the screen."""
        super().__init__()
        self._places = dict(zip(KEYS, places, strict=False))

    def compose(self) -> ComposeResult:
        for key, (_, region) in self._places.items():
            label = Static(f" {key} ", markup=False)
            label.styles.offset = (region.x + min(2, region.width // 2), region.y)
            yield label

    def on_key(self, event: events.Key) -> None:
        if event.key != "escape":
            event.stop()
            self.dismiss(self._places[event.key][0] if event.key in self._places else None)

    def on_click(self) -> None:
        self.dismiss(None)

    def action_close(self) -> None:
        self.dismiss(None)
