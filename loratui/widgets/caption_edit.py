"""A caption being written: one line, wrapped, however long. Enter saves, Escape gives up.

It holds the text until its owner says `close`, so that a caption that could not be saved is still there. Line breaks
can't be typed or pasted; characters that would steer the terminal are left out of what is opened.
"""

from __future__ import annotations

import re
import unicodedata

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Static, TextArea

_BREAKS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


def on_one_line(text: str) -> str:
    """`text` without line breaks, and without characters that a terminal obeys."""
    text = _BREAKS.sub(" ", text).replace("\t", " ")
    return "".join(letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cs"))


class _Line(TextArea):
    """The text itself. Tab stays inside, so that nobody leaves a half-written caption by accident."""

    BINDINGS = [
        Binding("enter", "save", show=False, priority=True),
        Binding("escape", "give_up", show=False, priority=True),
        Binding("tab,shift+tab", "stay", show=False, priority=True),
    ]

    class Done(Message):
        """Enter or Escape was pressed."""

        def __init__(self, save: bool):
            super().__init__()
            self.save = save

    def __init__(self) -> None:
        super().__init__(compact=True, highlight_cursor_line=False)
        self.cursor_blink = False

    def action_save(self) -> None:
        self.post_message(self.Done(True))

    def action_give_up(self) -> None:
        self.post_message(self.Done(False))

    def action_stay(self) -> None:
        pass

    async def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self.insert(on_one_line(event.text))


class CaptionEdit(Vertical):
    """The text, what there is to know about it above, and how long it is below. It is displayed while it is open."""

    DEFAULT_CSS = """
    CaptionEdit { display: none; height: 1fr; background: $surface; }
    CaptionEdit.-open { display: block; }
    CaptionEdit #note { height: auto; max-height: 50%; padding: 0 1; color: $text-warning; display: none; }
    CaptionEdit #note.-some { display: block; }
    CaptionEdit _Line { height: 1fr; }
    CaptionEdit #length { height: auto; padding: 0 1; color: $text-muted; }
    CaptionEdit #length.-long { color: $text-error; }
    """
    KEYS = "⏎ save · esc give up"

    class Typed(Message):
        """The text is another now."""

        def __init__(self, text: str):
            super().__init__()
            self.text = text

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, CaptionEdit.Typed)

    class Saved(Message):
        """Enter was pressed on this text. The editor stays open until `close`."""

        def __init__(self, text: str):
            super().__init__()
            self.text = text

    class GivenUp(Message):
        """Escape was pressed."""

    def compose(self) -> ComposeResult:
        yield Static("", id="note", markup=False)
        yield _Line()
        yield Static(self.KEYS, id="length", markup=False)

    @property
    def is_open(self) -> bool:
        return self.has_class("-open")

    @property
    def text(self) -> str:
        return self.query_one(_Line).text

    def open(self, text: str, note: str = "") -> None:
        """Write on from `text`, with the cursor at its end. `note` stands above it."""
        line = self.query_one(_Line)
        line.load_text(on_one_line(text))
        line.move_cursor(line.document.end)
        self.add_class("-open")
        self.tell(note)
        self.measured("")
        line.focus()

    def resume(self) -> None:
        """Go on writing."""
        self.query_one(_Line).focus()

    def close(self) -> None:
        self.remove_class("-open")

    def tell(self, note: str) -> None:
        """Say something above the text; an empty note takes the last one away."""
        place = self.query_one("#note", Static)
        place.update(note)
        place.set_class(bool(note), "-some")

    def measured(self, length: str, too_long: bool = False) -> None:
        """Say how long the text is."""
        place = self.query_one("#length", Static)
        place.set_class(too_long, "-long")
        place.update(f"{length} · {self.KEYS}" if length else self.KEYS)

    @on(TextArea.Changed)
    def _changed(self, event: TextArea.Changed) -> None:
        event.stop()
        if self.is_open:
            self.post_message(self.Typed(event.text_area.text))

    @on(_Line.Done)
    def _done(self, event: _Line.Done) -> None:
        event.stop()
        self.post_message(self.Saved(self.text) if event.save else self.GivenUp())
