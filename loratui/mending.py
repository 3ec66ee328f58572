"""Mends for the terminal driver: what would end the app through no fault of anybody's.

Textual 8.2.8's input thread decodes strictly, and dies of a mouse report in the old encoding, whose bytes past column
95 are no UTF-8. tmux sends such reports when a client attaches (Textualize/textual#6668).
"""

from __future__ import annotations

import codecs


def forgiving_decoder() -> None:
    """Let the driver's decoder put U+FFFD in the place of what is no UTF-8. The parser passes over it."""
    from textual.drivers import linux_driver

    linux_driver.getincrementaldecoder = _forgiving


def _forgiving(encoding: str):
    return lambda errors="replace": codecs.getincrementaldecoder(encoding)(errors)
