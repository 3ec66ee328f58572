"""Lines of text that are told again and again, and painted only where they say something else.

Styles of a `Text` may be theme variables, written `$state-done`: they are looked up as the lines are drawn, so that the
texts are made without an app, and a new theme needs no new texts.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Span, Text
from textual.strip import Strip

from loratui.widgets.painting import PaintsChanges, theme_style


class Lines(PaintsChanges):
    """Shows texts, one below the other. What is too wide is cut with an ellipsis, or wrapped where `wrap` says so."""

    ALLOW_SELECT = False

    def __init__(self, *, wrap: bool = False, id: str | None = None, classes: str | None = None):
        super().__init__(id=id, classes=classes)
        self._wrap = wrap
        self._texts: list[Text] = []
        self._strips: list[Strip] | None = None
        self._width = 0
        """Of the strips."""

    def tell(self, texts: Sequence[Text]) -> None:
        """Show these in place of what was shown."""
        if list(texts) != self._texts:
            self._texts, self._strips = list(texts), None
            self.repaint()

    def height_at(self, width: int) -> int:
        """Lines that the texts take at a width."""
        return sum(len(self._fitted(text, width)) for text in self._texts)

    def line(self, y: int) -> Strip:
        width = self.size.width
        if self._strips is None or width != self._width:
            self._width, style = width, self.rich_style
            lines = [self._coloured(line) for text in self._texts for line in self._fitted(text, width)]
            strips = [Strip(line.render(self.app.console)) for line in [*lines, Text(end="")]]
            self._strips = [strip.adjust_cell_length(width).apply_style(style) for strip in strips]
        return self._strips[min(y, len(self._strips) - 1)]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips = None

    def _fitted(self, text: Text, width: int) -> list[Text]:
        if self._wrap and width > 0:
            return list(text.wrap(self.app.console, width))
        fitted = text.copy()
        fitted.truncate(max(0, width), overflow="ellipsis")
        return [fitted]

    def _coloured(self, text: Text) -> Text:
        spans = [Span(span.start, span.end, self._looked_up(span.style)) for span in text.spans]
        # a text's own style is a span too: what has no spans is rendered without any style
        whole = [Span(0, len(text.plain), self._looked_up(text.style))] if text.style else []
        return Text(text.plain, spans=[*whole, *spans], end="")

    def _looked_up(self, style: str | Style) -> str | Style:
        if isinstance(style, str) and style.startswith("$"):
            return theme_style(self, style[1:])
        return style
