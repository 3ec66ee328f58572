"""Small questions: yes or no before something is lost, a line of text, a picture or text at full size.

The answer that loses nothing is the default. All text is data, never markup.
"""

from __future__ import annotations

from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from loratui.actions import bindings

FRAME = """
    {name} {{ align: center middle; background: $background 60%; }}
    {name} .box {{ width: 72; max-width: 95%; height: auto; max-height: 90%; padding: 1 2; background: $surface;
        border: round $border; border-title-color: $text; }}
    {name} Button {{ margin: 1 2 0 0; min-width: 10; }}
    {name} Horizontal {{ height: auto; }}
    {name} Static {{ height: auto; }}
"""


class Confirm(ModalScreen[bool]):
    """Ask before something is lost. Enter on the button that has the focus, which is Cancel; `y` and `n` answer too."""

    DEFAULT_CSS = FRAME.format(name="Confirm")
    BINDINGS = [
        *bindings("dialog"),
        Binding("y", "answer(True)", show=False),
        Binding("n", "answer(False)", show=False),
        Binding("left,h,up,k", "app.focus_previous", show=False),
        Binding("right,l,down,j", "app.focus_next", show=False),
    ]

    def __init__(self, title: str, text: str, yes: str):
        super().__init__()
        self._title, self._text, self._yes = title, text, yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            yield Static(self._text, markup=False)
            with Horizontal():
                yield Button("Cancel", id="no")
                yield Button(f"{self._yes} (y)", id="yes", variant="error")

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)

    def action_close(self) -> None:
        self.dismiss(False)


class Ask(ModalScreen[str | None]):
    """A line of text; `check` says what is wrong with it, and nothing is taken before it says nothing."""

    DEFAULT_CSS = (
        FRAME.format(name="Ask")
        + """
    Ask Input { margin-top: 1; }
    Ask #wrong { color: $text-error; }
    """
    )
    BINDINGS = bindings("dialog")

    def __init__(self, title: str, text: str = "", value: str = "", check: Callable[[str], str] | None = None):
        super().__init__()
        self._title, self._text, self._value, self._check = title, text, value, check

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            if self._text:
                yield Static(self._text, markup=False)
            field = Input(self._value)
            field.cursor_blink = False
            yield field
            yield Static("", id="wrong", markup=False)

    @on(Input.Changed)
    def _changed(self) -> None:
        self.query_one("#wrong", Static).update("")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        wrong = self._check(event.value) if self._check else ""
        if wrong:
            self.query_one("#wrong", Static).update(f"✗ {wrong}")
        else:
            self.dismiss(event.value)

    def action_close(self) -> None:
        self.dismiss(None)


class Reader(ModalScreen[None]):
    """Text to read at full size: problems, messages, a whole caption. Closed by Escape, q or Enter."""

    DEFAULT_CSS = """
    Reader { align: center middle; background: $background 60%; }
    Reader VerticalScroll { width: 110; max-width: 95%; height: auto; max-height: 90%; padding: 1 2;
        background: $surface; border: round $border; border-title-color: $text; }
    """
    BINDINGS = [
        *bindings("dialog"),
        Binding("q,enter", "close", show=False),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]

    def __init__(self, title: str, text: str):
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = Content(self._title)
            yield Static(self._text, markup=False)

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_close(self) -> None:
        self.dismiss(None)
