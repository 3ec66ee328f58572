"""What the terminal says about itself, from its environment alone.

Nothing is asked of the terminal: a reply that comes late would end up as keys in the user's shell. So what it can draw
beyond text is a guess, and is called one wherever it is shown.
"""

from __future__ import annotations

import locale
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

# By TERM_PROGRAM, then by TERM: the picture protocols that these programs are known for.
_PROGRAMS = {"ghostty": "kitty", "WezTerm": "kitty", "kitty": "kitty", "iTerm.app": "iterm", "WarpTerminal": "kitty"}
_TERMS = {"xterm-kitty": "kitty", "xterm-ghostty": "kitty", "foot": "sixel", "mlterm": "sixel", "contour": "sixel"}


@dataclass(frozen=True)
class Terminal:
    """A terminal as its environment describes it."""

    interactive: bool
    """Whether a person sees the output: it is not a pipe or a file."""
    columns: int
    rows: int
    term: str
    program: str
    """The terminal program's own name (TERM_PROGRAM), or "" where it gives none."""
    colours: str
    """"truecolor", "256", "16" or "none"; what Rich will use."""
    encoding: str
    locale: str
    unicode: bool
    multiplexer: str
    """"tmux", "screen", "zellij" or ""."""
    remote: bool
    """Whether the shell was reached by SSH."""
    pictures_guess: str
    """"kitty", "sixel", "iterm" or "half-blocks"."""


def look(environ: Mapping[str, str], output: TextIO = sys.stdout) -> Terminal:
    """Describe the terminal behind `output`. The size is 80×24 where nothing tells it."""
    size = shutil.get_terminal_size()
    encoding = (output.encoding or "ascii").lower()
    multiplexer = _multiplexer(environ)
    return Terminal(
        interactive=output.isatty(),
        columns=size.columns,
        rows=size.lines,
        term=environ.get("TERM", ""),
        program=environ.get("TERM_PROGRAM", ""),
        colours=_colours(environ),
        encoding=encoding,
        locale=locale.setlocale(locale.LC_CTYPE),
        unicode=encoding.replace("-", "").replace("_", "") == "utf8",
        multiplexer=multiplexer,
        remote="SSH_CONNECTION" in environ or "SSH_TTY" in environ,
        pictures_guess="half-blocks" if multiplexer else _pictures(environ),
    )


def _colours(environ: Mapping[str, str]) -> str:
    from rich.console import Console

    console = Console(force_terminal=True, _environ=environ)
    if console.no_color:
        return "none"
    return {"truecolor": "truecolor", "256": "256", "standard": "16"}.get(console.color_system or "", "none")


def _multiplexer(environ: Mapping[str, str]) -> str:
    if environ.get("TMUX"):
        return "tmux"
    if environ.get("STY"):
        return "screen"
    return "zellij" if "ZELLIJ" in environ else ""


def _pictures(environ: Mapping[str, str]) -> str:
    by_program = _PROGRAMS.get(environ.get("TERM_PROGRAM", ""), "")
    by_term = _TERMS.get(environ.get("TERM", ""), "")
    return by_program or by_term or ("kitty" if "KITTY_WINDOW_ID" in environ else "half-blocks")
