"""What every panel is: a frame with its number and name, actions that can say why they can't be done, a foldable side.

A panel `x` has a method `do_<verb>` for each action `x.<verb>` of the table. Ask the app for everything through
`bench`; whatever takes longer than a frame belongs into a worker.
"""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any, ClassVar

from textual.containers import Container
from textual.widget import Widget

from loratui import actions

if TYPE_CHECKING:
    from loratui.bench import Bench


class Panel(Container):
    """One of the app's panels. Its widgets of class `side` fold away on a narrow screen; Tab brings them over."""

    DEFAULT_CSS = """
    Panel { height: 1fr; layout: horizontal; }
    Panel .side { height: 1fr; width: 42%; max-width: 90; }
    Panel.-narrow .side { display: none; }
    Panel.-narrow.-side .side { display: block; width: 1fr; max-width: 100%; }
    Panel.-narrow.-side .main { display: none; }
    Panel .main { width: 1fr; height: 1fr; }
    Panel .framed { border: round $border-blurred; border-title-color: $text-muted; }
    Panel .framed:focus-within, Panel .framed:focus { border: round $border; border-title-color: $text; }
    """
    name_: ClassVar[str] = ""
    """One of actions.PANELS."""
    narrow_below: ClassVar[int] = 100
    """Columns below which the side folds away."""

    @property
    def bench(self) -> Bench:
        """What the app offers to its panels."""
        return self.app  # type: ignore[return-value]

    @property
    def title(self) -> str:
        """Number and name, for a frame."""
        return f"{actions.PANELS.index(self.name_) + 1} {actions.TARGETS[self.name_]}"

    def why_not(self, verb: str) -> str:
        """Why an action can't be done now, as a sentence; empty where it can."""
        return ""

    def copied(self) -> tuple[str, str]:
        """What `copy` takes here: the text, and what it is called."""
        return "", ""

    def shown(self) -> None:
        """The panel was brought to the front."""

    def hidden(self) -> None:
        """Another panel was brought to the front: what only serves the eye can rest."""

    def remembered(self) -> dict[str, Any]:
        """What the next start should find again: selection, filters. Plain JSON values."""
        return {}

    def recall(self, state: dict[str, Any]) -> None:
        """Take up what was remembered, as far as it still makes sense. Called once, after mounting."""

    async def action_do(self, identity: str) -> None:
        """Do an action of the table, or say why not."""
        action = actions.BY_ID[identity]
        reason = self.why_not(action.verb)
        if reason:
            self.bench.say(f"{action.label}: {reason}", "warning")
            return
        method = getattr(self, f"do_{action.verb}")
        if inspect.iscoroutinefunction(method):
            self.run_worker(method, group=identity, exclusive=True)
        else:
            method()

    def fold_over(self) -> bool:
        """On a narrow screen, bring the folded side over or put it back. False where nothing is folded."""
        if not self.has_class("-narrow") or not self.query(".side"):
            return False
        self.toggle_class("-side")
        wanted = "side" if self.has_class("-side") else "main"
        there = [widget for widget in self.query(f".{wanted}, .{wanted} *") if _could_focus(widget, wanted)]
        for widget in sorted(there, key=lambda widget: not widget.has_class("start"))[:1]:
            widget.focus()
        return True


def _could_focus(widget: Widget, column: str) -> bool:
    """Whether a widget could take the focus if its column were shown, which it will be only after the next layout."""
    inside = itertools.takewhile(lambda node: not node.has_class(column), widget.ancestors_with_self)
    return widget.focusable and all(node.display for node in inside)
