"""The themes that come along can be read and their colours told apart: in true colour, in 256, and by the colour-blind.

Contrast is WCAG 2's. Whether two colours are told apart depends on the size of what bears them, so the measure is that
of Stone, Szafir and Setlur ("An Engineering Model for Color Difference as a Function of Size", 2014): CIELAB, each axis
divided by the step that half of the viewers notice at a size in degrees of the visual field. A cell of a terminal is
about 0.25° wide, a line of braille dots about 0.1°. Their steps grow in proportion to the viewers: a distance of 1 is
noticed by a half of them, 1.5 by three quarters, 2 by all. Colour blindness is Machado, Oliveira and Fernandes' model
(2009) at full severity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from rich.color import Color, ColorSystem
from textual.color import Color as Blended

from loratui import themes

WORD, LINE = 0.25, 0.1
HALF, THREE_QUARTERS, ALL = 1.0, 1.5, 2.0

VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.072175), (0.0193339, 0.119192, 0.9503041))
WHITE = (0.95047, 1.0, 1.08883)
NOTICED = ((10.16, 1.50), (10.68, 3.08), (10.70, 5.74))
"""Per axis L*, a*, b*: the step that all notice is A + B / degrees."""

TERMINALS = {
    "vga": "000000 aa0000 00aa00 aa5500 0000aa aa00aa 00aaaa aaaaaa"
    " 555555 ff5555 55ff55 ffff55 5555ff ff55ff 55ffff ffffff",
    "xterm": "000000 cd0000 00cd00 cdcd00 0000ee cd00cd 00cdcd e5e5e5"
    " 7f7f7f ff0000 00ff00 ffff00 5c5cff ff00ff 00ffff ffffff",
}
GROUNDS = ("background", "surface", "panel", "boost")
OUTCOMES = ("success", "warning", "error")
STATES = [name for name in themes.VARIABLES if name.startswith("state-")]
SERIES = [f"series-{number}" for number in range(1, 7)]

ALL_THEMES = {theme.name: theme for theme in themes.load(Path("nowhere"))[0]}
REAL = [name for name, theme in ALL_THEMES.items() if not theme.ansi]
SAFE = [name for name in REAL if name.startswith("clear-")]


# ---- the maths


def linear(colour: str) -> tuple[float, ...]:
    """Linear RGB, 0 to 1, of `#rrggbb`."""
    parts = (part / 255 for part in bytes.fromhex(colour[1:]))
    return tuple(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)


def times(matrix, vector) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio, 1 to 21."""
    dark, light = sorted(times(XYZ, linear(colour))[1] for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def cielab(colour: str, vision: str) -> tuple[float, float, float]:
    seen = tuple(min(1.0, max(0.0, part)) for part in times(VISION[vision], linear(colour)))
    ratios = (part / white for part, white in zip(times(XYZ, seen), WHITE, strict=True))
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in ratios)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(one: str, other: str, degrees: float, vision: str = "normal") -> float:
    """How many times what half of the viewers notice."""
    pairs = zip(cielab(one, vision), cielab(other, vision), NOTICED, strict=True)
    return math.hypot(*((a - b) / (HALF / ALL * (fixed + size / degrees)) for a, b, (fixed, size) in pairs))


def in_256(colour: str) -> str:
    """What a terminal of 256 colours is sent instead."""
    return Color.parse(colour).downgrade(ColorSystem.EIGHT_BIT).get_truecolor().hex


@pytest.fixture(params=["true colour", "256 colours"])
def depth(request) -> Callable[[str], str]:
    """What becomes of a colour on its way to the terminal."""
    return str if request.param == "true colour" else in_256


def colours(name: str) -> dict[str, str]:
    """Every variable of a theme, Textual's and ours."""
    theme = ALL_THEMES[name]
    return theme.to_color_system().generate() | theme.variables


def on(colour: str, ground: str) -> str:
    """A colour as it is drawn on a ground: `auto 60%`, `#rrggbbaa`, `#rrggbb`."""
    below = Blended.parse(ground)
    if colour.startswith("auto"):
        return (below + below.get_contrast_text(float(colour[5:-1]) / 100)).hex6
    return (below + Blended.parse(colour)).hex6


def close(names, shown: Callable[[str], str], degrees: float, enough: float, visions=("normal",)) -> list[str]:
    """The pairs of names whose colours, as they are shown, are not told apart."""
    return [
        f"{vision}: {one} {shown(one)} and {other} {shown(other)}: {found:.2f} < {enough}"
        for vision in visions
        for one, other in combinations(names, 2)
        if (found := distance(shown(one), shown(other), degrees, vision)) < enough
    ]


def faint(pairs, depth) -> list[str]:
    """Those of (what, colour, ground, ratio) that have less contrast than they should."""
    return [
        f"{what}: {depth(colour)} on {depth(ground)}: {found:.2f} < {ratio}"
        for what, colour, ground, ratio in pairs
        if (found := contrast(depth(colour), depth(ground))) < ratio
    ]


def test_the_maths_agrees_with_published_values():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert cielab("#ff0000", "normal") == pytest.approx((53.24, 80.09, 67.20), abs=0.02)
    assert distance("#ff0000", "#ff0000", LINE) == 0
    assert distance("#808080", "#868686", WORD) < distance("#808080", "#868686", 1)
    reds_and_greens = distance("#cc4444", "#7f8a2a", WORD), distance("#cc4444", "#7f8a2a", WORD, "deuteranopia")
    assert reds_and_greens[0] > 3 * reds_and_greens[1]


# ---- themes of real colours


@pytest.mark.parametrize("name", REAL)
def test_text_can_be_read_on_every_ground(name, depth):
    all_of = colours(name)
    grounds = [all_of[ground] for ground in GROUNDS]
    pairs = [
        (text, on(all_of[text], ground), ground, ratio)
        for text, ratio in {"foreground": 4.5, "text": 4.5, "text-muted": 3, "foreground-muted": 3}.items()
        for ground in grounds
    ]
    coloured = ("text-primary", "text-accent", "text-success", "text-warning", "text-error", "accent", *STATES)
    pairs += [(text, all_of[text], ground, 4.5) for text in coloured for ground in grounds[:2]]
    pairs += [("key", all_of["footer-key-foreground"], all_of["panel"], 4.5)]
    pairs += [("jump", all_of["jump-foreground"], all_of["jump-background"], 4.5)]
    for button in ("primary", "success", "error"):
        pairs += [(f"{button} button", all_of["button-color-foreground"], all_of[button], 3)]
    assert faint(pairs, depth) == []


@pytest.mark.parametrize("name", REAL)
def test_the_row_under_the_cursor_is_seen_and_its_text_and_states_can_be_read(name, depth):
    all_of = colours(name)
    cursor, resting = all_of["block-cursor-background"], all_of["block-cursor-blurred-background"]
    pairs = [("text", all_of["block-cursor-foreground"], cursor, 4.5), ("text", all_of["foreground"], resting, 4.5)]
    pairs += [(state, all_of[state], row, 3) for state in STATES for row in (cursor, resting)]
    pairs += [("row", cursor, all_of[ground], 1.15) for ground in ("background", "surface")]
    pairs += [("row without the focus", resting, all_of["background"], 1.08)]
    assert faint(pairs, depth) == []


@pytest.mark.parametrize("name", REAL)
def test_frames_and_the_lines_of_charts_stand_out_from_the_ground(name, depth):
    all_of = colours(name)
    pairs = [
        (line, all_of[line], all_of["background"], 3) for line in (*SERIES, "border", "chart-axis", "chart-cursor")
    ]
    pairs += [(line, all_of[line], all_of["background"], 1.4) for line in ("border-blurred", "picture-frame")]
    pairs += [("chart-raw", all_of["chart-raw"], all_of["background"], 1.7)]
    assert faint(pairs, depth) == []


@pytest.mark.parametrize("name", REAL)
def test_states_and_the_lines_of_charts_are_told_apart(name, depth):
    def shown(word: str) -> str:
        return depth(colours(name)[word])

    assert close(OUTCOMES, shown, WORD, ALL) == []
    assert close(("state-running", "state-done", "state-failed"), shown, WORD, ALL) == []
    assert close(SERIES, shown, LINE, HALF) == []


# ---- for every kind of colour vision


@pytest.mark.parametrize("name", SAFE)
def test_states_and_the_first_lines_are_told_apart_by_the_colour_blind(name, depth):
    def shown(word: str) -> str:
        return depth(colours(name)[word])

    exact = depth is str
    assert close(OUTCOMES, shown, WORD, ALL if exact else THREE_QUARTERS, VISION) == []
    assert close(SERIES[:4], shown, LINE, THREE_QUARTERS if exact else HALF, VISION) == []


def test_two_themes_are_for_every_kind_of_colour_vision_one_dark_and_one_light():
    assert sorted((name, ALL_THEMES[name].dark) for name in SAFE) == [("clear-dark", True), ("clear-light", False)]


@pytest.mark.parametrize("vision", ["deuteranopia", "protanopia"])
def test_the_default_theme_is_not_enough_for_the_colour_blind(vision):
    assert close(OUTCOMES, colours("loratui-dark").__getitem__, WORD, ALL, [vision])


# ---- themes in the terminal's own colours


def test_the_ansi_theme_has_no_colour_but_the_sixteen_and_the_default():
    theme = ALL_THEMES["ansi"]
    assert theme.ansi
    used = [getattr(theme, name) for name in themes.COLOURS] + list(theme.variables.values())
    assert {value for value in used if not value.startswith("ansi_")} == set()
    assert not any("#" in value for value in colours("ansi").values())


@pytest.mark.parametrize("terminal", TERMINALS)
def test_the_ansi_theme_can_be_read_in_the_palettes_of_old_terminals(terminal):
    palette = [f"#{colour}" for colour in TERMINALS[terminal].split()]

    def shown(value: str) -> str:
        return palette[7] if value == "ansi_default" else palette[Color.parse(value.removeprefix("ansi_")).number]

    all_of = ALL_THEMES["ansi"].variables
    pairs = [(name, shown(all_of[name]), palette[0], 4) for name in (*STATES, *SERIES[:5])]
    pairs += [(state, shown(all_of[state]), shown(all_of["block-cursor-background"]), 2) for state in STATES]
    text = shown(all_of["block-cursor-foreground"])
    pairs += [("text", text, shown(all_of["block-cursor-background"]), 4.5)]
    assert faint(pairs, str) == []
    assert close(SERIES, lambda line: shown(all_of[line]), LINE, HALF) == []


def test_the_transparent_theme_leaves_the_ground_to_the_terminal_and_can_be_read_on_dark_and_light(depth):
    theme, all_of = ALL_THEMES["transparent"], colours("transparent")
    assert {getattr(theme, ground) for ground in (*GROUNDS, "foreground")} == {"ansi_default"}
    hues = [all_of[name] for name in (*STATES, *SERIES, "accent") if all_of[name].startswith("#")]
    pairs = [
        (hue, hue, ground, 3) for hue in hues for ground in ("#000000", "#1e1e2e", "#282c34", "#fdf6e3", "#ffffff")
    ]
    pairs += [(hue, hue, all_of["block-cursor-background"], 3) for hue in hues]
    pairs += [("cursor", "#ffffff", all_of["block-cursor-background"], 4.5)]
    assert faint(pairs, depth) == []
    assert close(SERIES, lambda line: depth(all_of[line]), LINE, HALF) == []
