"""The six movements that lists and logs have in common, as actions.

A widget that mixes this in has `move(delta)`, `page(delta)`, `first()` and `last()`, and binds keys to these names.
"""

from __future__ import annotations


class Movement:
    """Actions `up`, `down`, `page_up`, `page_down`, `first` and `last`."""

    def action_up(self) -> None:
        self.move(-1)

    def action_down(self) -> None:
        self.move(1)

    def action_page_up(self) -> None:
        self.page(-1)

    def action_page_down(self) -> None:
        self.page(1)

    def action_first(self) -> None:
        self.first()

    def action_last(self) -> None:
        self.last()
