"""The footer: at most six keys of the panel in front, and where all others are. What can't be done now is dim."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.style import Style
from rich.text import Text
from textual.strip import Strip
from textual.widget import Widget

from loratui.actions import Action, shown

MOST = 6


class KeyLine(Widget):
    """One row. Clicking a key does what the key does."""

    COMPONENT_CLASSES = {"key-line--key", "key-line--label", "key-line--off"}
    DEFAULT_CSS = """
    KeyLine { height: 1; background: $panel; color: $text-muted; }
    KeyLine > .key-line--key { color: $accent; text-style: bold; }
    KeyLine > .key-line--label { color: $foreground; }
    KeyLine > .key-line--off { color: $foreground-disabled; text-style: strike; }
    """

    def __init__(self, keys_of: Callable[[Action], str]):
        super().__init__()
        self._keys_of = keys_of
        self._told: tuple[tuple[Action, bool], ...] = ()

    def show(self, actions: Sequence[Action], why_not: Callable[[Action], str]) -> None:
        """Show the first six of these; draws only where that says something else than before."""
        told = tuple((action, not why_not(action)) for action in actions[:MOST])
        if told != self._told:
            self._told = told
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        tail = Text()
        for keys, label in ((":", "palette"), ("?", "help")):
            tail.append(f" {keys} ", self._style("key")).append(label, self._style("label"))
        line = Text()
        for action, on in self._told:
            part = Text(" ")
            part.append(shown(self._keys_of(action)).split(" ")[0], self._style("key" if on else "off")).append(" ")
            part.append(action.label, self._style("label" if on else "off")).append(" ")
            if line.cell_len + part.cell_len + tail.cell_len + 1 > width:
                break
            part.stylize(Style(meta={"action": action.id}))
            line.append_text(part)
        line.append(" " * max(1, width - line.cell_len - tail.cell_len))
        line.append_text(tail)
        line.truncate(width)
        strip = Strip(line.render(self.app.console), line.cell_len).adjust_cell_length(width)
        return strip.apply_style(self.rich_style)

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"key-line--{part}", partial=True)

    async def on_click(self, event) -> None:
        identity = event.style.meta.get("action")
        if identity:
            await self.app.do(identity)
