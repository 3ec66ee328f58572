"""Themes: `*.toml`, one a file, read from the folder that comes with loratui and from the user's own.

A theme gives eleven colours; everything else that is drawn (`VARIABLES`) is derived from them here, unless the file
says otherwise under `[variables]`. So every theme has every variable, and a style sheet may use `$series-1` without
asking. A file that is wrong is left out and told of; whatever gets past `_read` must never fail in the style sheet,
for there it would end the app. `themes/README.md` says it all to those who write one.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from engine.config import Problem, UserError, check, fields, read_file, spell

if TYPE_CHECKING:
    from textual.theme import Theme

HEX = "#[0-9a-fA-F]{6}"
COLOUR = rf"({HEX}|ansi_(default|(bright_)?(black|red|green|yellow|blue|magenta|cyan|white)))"
AS_COLOUR = "a colour such as #7aa2f7, or one of the terminal's such as ansi_blue"
STYLE = "(none|(not )?(bold|dim|italic|underline|reverse|strike))"
NAME = r"[a-z][a-z0-9-]{0,39}"
AS_NAME = "1 to 40 lower-case letters, digits and hyphens, a letter first"

Colour = Annotated[str, Meta(pattern=rf"^{COLOUR}\Z", extra={"expected": AS_COLOUR})]
Name = Annotated[str, Meta(pattern=rf"^{NAME}\Z", extra={"expected": AS_NAME})]


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """What a theme's file holds."""

    name: Name
    dark: bool
    primary: Colour
    secondary: Colour
    accent: Colour
    success: Colour
    warning: Colour
    error: Colour
    foreground: Colour
    background: Colour
    surface: Colour
    panel: Colour
    boost: Colour
    author: str = ""
    variables: dict[str, str] = {}


COLOURS = tuple(name for name, (kind, _) in fields(File).items() if kind == Colour)

VARIABLES = {
    # lines of a chart; the raw curve behind a smoothed one; axes and their figures; what the cursor points at
    "series-1": "primary",
    "series-2": "accent",
    "series-3": "success",
    "series-4": "error",
    "series-5": "secondary",
    "series-6": "warning",
    "chart-raw": "series-1 45%",
    "chart-axis": "foreground 60%",
    "chart-grid": "foreground 20%",
    "chart-cursor": "accent",
    # a run's state: `state-` and the protocol's word for it; `waiting` is for those that follow it
    "state-running": "primary",
    "state-paused": "warning",
    "state-stalled": "warning",
    "state-done": "success",
    "state-failed": "error",
    "state-refused": "state-failed",
    "state-crashed": "state-failed",
    "state-waiting": "foreground 70%",
    "state-queued": "state-waiting",
    "state-released": "state-waiting",
    "state-stopped": "state-waiting",
    "state-elsewhere": "state-waiting",
    "picture-frame": "foreground 30%",
    "jump-background": "accent",
    "jump-foreground": "background",
    # Textual's own, where its defaults are too faint or too loud: frames, the cursor of a list with and without the
    # focus, text on a coloured button, toasts, scrollbars
    "boost": "boost",
    "border": "primary",
    "border-blurred": "foreground 30%",
    "block-cursor-background": "foreground 18%",
    "block-cursor-foreground": "foreground",
    "block-cursor-blurred-background": "foreground 9%",
    "footer-key-foreground": "accent",
    "button-color-foreground": "background",
    "panel-lighten-1": "boost",
    "scrollbar": "foreground 25%",
    "scrollbar-hover": "foreground 40%",
    "scrollbar-active": "primary",
    "scrollbar-background": "background",
    "scrollbar-background-hover": "background",
    "scrollbar-background-active": "background",
    "scrollbar-corner-color": "background",
}
"""Variable → default: a colour of the theme or another variable; `NN%`: as much of it, the rest background."""

NATIVE = {
    "chart-raw": "ansi_bright_black",
    "chart-axis": "ansi_default",
    "chart-grid": "ansi_bright_black",
    "state-waiting": "ansi_default",
    "picture-frame": "ansi_bright_black",
    "jump-foreground": "ansi_bright_white",
    "border-blurred": "ansi_bright_black",
    "block-cursor-background": "ansi_blue",
    "block-cursor-foreground": "ansi_bright_white",
    "block-cursor-blurred-background": "ansi_default",
    "button-color-foreground": "ansi_default",
    "scrollbar": "ansi_bright_black",
    "scrollbar-hover": "ansi_bright_blue",
    "text-disabled": "ansi_bright_black",
    # what Textual's style sheets use and its native themes lack
    "foreground-disabled": "ansi_bright_black",
    "surface-active": "ansi_default",
    "ansi-background": "ansi_default",
    "ansi-foreground": "ansi_default",
}
"""Defaults in the terminal's own colours, which can't be mixed: what they look like is the terminal's affair."""

_seen: dict[Path, dict[str, tuple[int, int]]] = {}
"""What `load` last found in a folder."""


def themes_folder() -> Path:
    """The folder of the themes that come with loratui: beside the packages in a checkout, inside this package once a
    wheel is installed."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    return checkout / "themes" if (checkout / "pyproject.toml").is_file() else package / "themes"


def load(folder: Path) -> tuple[list[Theme], list[Problem]]:
    """The themes that come with loratui and those of the user's `folder`, which need not exist. Where two have one
    name, the user's is taken, and that is said among the problems."""
    _seen[folder] = _stamps(folder)
    ours, problems = _read(themes_folder())
    theirs, wrong = _read(folder)
    for name in sorted(ours.keys() & theirs.keys()):
        advice = "it replaces the theme of that name that comes with loratui"
        wrong.append(Problem(where=str(theirs[name][0]), field="name", found=f"`{name}`", advice=advice))
    return [theme for _, theme in (ours | theirs).values()], problems + wrong


def variables(theme: Theme) -> dict[str, str]:
    """Every variable of ours for any theme, one of Textual's own included: what an app answers when it is asked for
    `get_theme_variable_defaults`, for its style sheets are read before a theme of ours is chosen."""
    if VARIABLES.keys() <= theme.variables.keys():
        return theme.variables
    given = {**(NATIVE if theme.ansi else {}), **theme.variables}
    generated = theme.to_color_system().generate()
    return {**given, **{name: _resolved(name, given, generated) for name in VARIABLES}}


def changed(folder: Path) -> bool:
    """Whether the themes of a folder are others than `load` last found there, by names, times and sizes."""
    return _stamps(folder) != _seen.get(folder, {})


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".toml")]
    except OSError:
        return {}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found}


def _read(folder: Path) -> tuple[dict[str, tuple[Path, Theme]], list[Problem]]:
    """Every sound theme of a folder by its name, with its file; and what is wrong with the others."""
    themes: dict[str, tuple[Path, Theme]] = {}
    problems: list[Problem] = []
    for path in sorted(folder.glob("[!.]*.toml")):
        if not path.is_file():
            continue
        file, wrong = _checked(path)
        if file and file.name in themes:
            expected = f"another name than {themes[file.name][0].name} has"
            wrong.append(Problem(where=str(path), field="name", expected=expected, found=f"`{file.name}`"))
        elif file:
            themes[file.name] = path, _theme(file)
        problems += wrong
    return themes, problems


def _checked(path: Path) -> tuple[File | None, list[Problem]]:
    try:
        file, problems = check(File, read_file(path), lambda field: str(path))
    except UserError as error:
        return None, list(error.problems)
    for name, value in file.variables.items() if file else ():
        problems += _variable(name, value, str(path))
    return (None if problems else file), problems


@functools.cache
def _known() -> frozenset[str]:
    """The variables that a file may give: ours and Textual's."""
    from textual.design import ColorSystem

    return frozenset({*VARIABLES, *NATIVE, *ColorSystem("red").generate()})


def _variable(name: str, value: str, where: str) -> list[Problem]:
    """What is wrong with one entry of `[variables]`."""
    known, place = _known(), f"variables.{name}"
    if name not in known:
        nearest = difflib.get_close_matches(name, sorted(known), n=1)
        advice = f"did you mean `{nearest[0]}`?" if nearest else "themes/README.md names them"
        return [Problem(where=where, field=place, expected="a known variable", found=f"`{name}`", advice=advice)]
    if "-style" in name:
        pattern, expected = rf"{STYLE}( {STYLE})*", "words such as bold, not bold, underline, reverse, none"
    else:
        pattern = rf"{COLOUR}( (100|\d\d?)%)?|transparent"
        expected = f"{AS_COLOUR}, perhaps with an opacity such as 40%"
    if re.fullmatch(pattern, value):
        return []
    return [Problem(where=where, field=place, expected=expected, found=spell(value))]


def _theme(file: File) -> Theme:
    from textual.theme import Theme

    colours = {name: getattr(file, name) for name in COLOURS}
    native = any(value.startswith("ansi_") for value in colours.values())
    given = {**(NATIVE if native else {}), **file.variables}
    filled = {name: _resolved(name, given, colours) for name in VARIABLES}
    return Theme(name=file.name, dark=file.dark, ansi=native, variables={**given, **filled}, **colours)


def _resolved(name: str, given: Mapping[str, str], colours: Mapping[str, str]) -> str:
    """The value of a variable: what is given, else what its default comes to."""
    if name in given or name in colours:
        return given.get(name) or colours[name]
    base, _, share = VARIABLES[name].partition(" ")
    value = _resolved(base, given, colours)
    return _mixed(value, colours["background"], int(share[:-1]) / 100) if share else value


def _mixed(colour: str, ground: str, share: float) -> str:
    """As much of a colour, the rest ground. What is not `#rrggbb`, a colour of the terminal's, stays as it is."""
    if not (re.fullmatch(HEX, colour) and re.fullmatch(HEX, ground)):
        return colour
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(ground[1:]), strict=True)
    return "#" + "".join(f"{round(ground + (part - ground) * share):02x}" for part, ground in pairs)
