"""Themes as files: what is derived, what is refused and in which words, whose is taken, and that none ends the app."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import get_args

import pytest
from textual.app import App
from textual.design import ColorSystem
from textual.theme import BUILTIN_THEMES
from textual.widgets import Button, Checkbox, Input, OptionList, Select, Static, Switch, Tree

from engine.protocol.messages import State
from loratui import themes

GREY = {name: "#8899aa" for name in themes.COLOURS} | {"background": "#000000", "foreground": "#ffffff"}
WHOLE = "\n".join(['name = "mine"', "dark = true", *(f'{name} = "{colour}"' for name, colour in GREY.items()), ""])
"""A theme of which little is said."""


@pytest.fixture
def mine(tmp_path):
    """Write a theme of the user's; all themes by name, and the problems as (file, field, expected, found, advice)."""

    def write(text: str, name: str = "mine.toml"):
        (tmp_path / name).write_text(text)
        found, problems = themes.load(tmp_path)
        told = [(os.path.basename(p.where), p.field, p.expected, p.found, p.advice) for p in problems]
        return {theme.name: theme for theme in found}, told

    return write


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """The themes that come with loratui, by name."""
    found, problems = themes.load(tmp_path_factory.mktemp("none") / "themes")
    assert problems == []
    return {theme.name: theme for theme in found}


# ---- what comes along


def test_each_theme_that_comes_along_is_sound_and_named_after_its_file(ours):
    assert set(ours) == {file.stem for file in themes.themes_folder().glob("*.toml")}
    assert len(ours) >= 9
    assert {"loratui-dark", "loratui-light", "clear-dark", "clear-light", "ansi", "transparent"} <= set(ours)


def test_every_theme_has_every_variable_and_a_colour_for_every_state(ours):
    assert {f"state-{state}" for state in get_args(State)} <= set(themes.VARIABLES)
    for theme in ours.values():
        assert set(themes.VARIABLES) <= set(theme.variables)
        assert all(re.fullmatch(themes.COLOUR, theme.variables[name]) for name in themes.VARIABLES), theme.name


def test_what_is_mixed_has_a_colour_of_its_own_where_colours_cannot_be_mixed():
    assert {name for name, default in themes.VARIABLES.items() if "%" in default} <= set(themes.NATIVE)


def test_the_page_on_themes_tells_every_variable_with_its_defaults():
    page = (themes.themes_folder() / "README.md").read_text()
    told = re.findall(r"^\| `([\w-]+)` \| ([\w%-]+(?: \d+%)?) \| (\w*) ?\|", page, re.MULTILINE)
    assert {name: default for name, default, _ in told} == themes.VARIABLES
    assert {name: native for name, _, native in told if native} == {
        name: native for name, native in themes.NATIVE.items() if name in themes.VARIABLES
    }


# ---- what is derived


def test_what_a_theme_does_not_give_is_derived_from_what_it_gives(mine):
    found, problems = mine(WHOLE + "[variables]\nseries-1 = '#804020'\nstate-failed = '#ff0000'\n")
    assert problems == []
    variables = found["mine"].variables
    assert (variables["series-1"], variables["series-2"]) == ("#804020", "#8899aa")
    assert variables["chart-raw"] == "#3a1d0e"  # 45 % of series-1 on black
    assert variables["border-blurred"] == "#4c4c4c"
    assert variables["state-crashed"] == variables["state-refused"] == "#ff0000"
    assert variables["state-queued"] == variables["state-waiting"] == "#b2b2b2"


def test_one_colour_of_the_terminal_s_makes_a_theme_that_is_drawn_in_its_own(mine):
    found, problems = mine(WHOLE.replace("#000000", "ansi_default"))
    assert problems == [] and found["mine"].ansi
    assert found["mine"].variables["block-cursor-background"] == "ansi_blue"
    assert not mine(WHOLE)[0]["mine"].ansi


@pytest.mark.parametrize("name", ["textual-dark", "textual-light", "ansi-dark", "nord"])
def test_themes_of_textual_s_own_have_our_variables_as_well(name):
    variables = themes.variables(BUILTIN_THEMES[name])
    assert set(themes.VARIABLES) <= set(variables)
    assert variables["series-1"] == BUILTIN_THEMES[name].to_color_system().generate()["primary"]


# ---- mistakes


def test_every_mistake_of_a_file_is_told_with_its_field_and_the_theme_is_left_out(mine):
    found, problems = mine(
        WHOLE.replace('"mine"', '"My theme"')
        .replace("dark = true", "drak = true")
        .replace('surface = "#8899aa"', 'surface = "blue"')
        .replace('panel = "#8899aa"', "panel = 8899")
    )
    assert "mine" not in found and "loratui-dark" in found
    assert sorted(problems) == [
        ("mine.toml", "dark", "true or false", "nothing", ""),
        ("mine.toml", "drak", "a known field", "`drak`", "did you mean `dark`?"),
        ("mine.toml", "name", themes.AS_NAME, 'the text "My theme"', ""),
        ("mine.toml", "panel", themes.AS_COLOUR, "8899", ""),
        ("mine.toml", "surface", themes.AS_COLOUR, 'the text "blue"', ""),
    ]


OPACITY = f"{themes.AS_COLOUR}, perhaps with an opacity such as 40%"
STYLE = "words such as bold, not bold, underline, reverse, none"


@pytest.mark.parametrize(
    ("line", "expected", "found", "advice"),
    [
        ("sreies-1 = '#ffffff'", "a known variable", "`sreies-1`", "did you mean `series-1`?"),
        ("zzz = '#ffffff'", "a known variable", "`zzz`", "themes/README.md names them"),
        ("series-1 = 'bleu'", OPACITY, 'the text "bleu"', ""),
        ("series-1 = '#fff'", OPACITY, 'the text "#fff"', ""),
        ("series-1 = '#ffffff 101%'", OPACITY, 'the text "#ffffff 101%"', ""),
        ("series-1 = '#ffffff; }'", OPACITY, 'the text "#ffffff; }"', ""),
        ("series-1 = 7", "text", "7", ""),
        ("link-style = 'bald'", STYLE, 'the text "bald"', ""),
        ("link-style = 'not'", STYLE, 'the text "not"', ""),
        ("block-cursor-text-style = ''", STYLE, 'the text ""', ""),
    ],
)
def test_a_variable_that_would_end_the_app_in_its_style_sheet_is_refused(mine, line, expected, found, advice):
    themes_found, problems = mine(f"{WHOLE}[variables]\n{line}\n")
    assert "mine" not in themes_found
    assert problems == [("mine.toml", f"variables.{line.split()[0]}", expected, found, advice)]


@pytest.mark.parametrize("text", ["[variables", "\x00", 'name = "mine"'])
def test_a_file_that_is_no_theme_stops_none_of_the_others(mine, text):
    found, problems = mine(text, "broken.toml")
    assert "loratui-dark" in found and problems
    assert {file for file, *_ in problems} == {"broken.toml"}
    assert "mine" in mine(WHOLE)[0]


def test_what_is_no_file_or_hidden_or_named_otherwise_is_passed_over(mine, tmp_path):
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / ".#mine.toml").write_text("an editor's lock")
    (tmp_path / "notes.txt").write_text("not a theme")
    found, problems = mine(WHOLE)
    assert "mine" in found and problems == []


# ---- whose is taken


def test_a_user_s_theme_replaces_the_one_of_its_name_that_comes_along_and_that_is_said(mine, ours):
    found, problems = mine(WHOLE.replace('"mine"', '"ansi"').replace("#000000", "#111111"))
    assert found["ansi"].background == "#111111" and len(found) == len(ours)
    advice = "it replaces the theme of that name that comes with loratui"
    assert problems == [("mine.toml", "name", "", "`ansi`", advice)]


def test_of_two_themes_of_one_name_the_first_file_s_is_taken_and_the_other_is_told(mine):
    mine(WHOLE, "a.toml")
    found, problems = mine(WHOLE.replace("#000000", "#111111"), "b.toml")
    assert found["mine"].background == "#000000"
    assert problems == [("b.toml", "name", "another name than a.toml has", "`mine`", "")]


# ---- changes


def test_a_theme_that_is_added_rewritten_renamed_or_removed_is_noticed_once(tmp_path):
    folder = tmp_path / "themes"
    themes.load(folder)
    assert not themes.changed(folder)
    folder.mkdir()
    assert not themes.changed(folder)
    for change in (
        lambda: (folder / "a.toml").write_text(WHOLE),
        lambda: os.utime(folder / "a.toml", ns=(1, 1)),
        lambda: (folder / "a.toml").rename(folder / "b.toml"),
        lambda: (folder / "b.toml").unlink(),
    ):
        change()
        assert themes.changed(folder)
        themes.load(folder)
        assert not themes.changed(folder)
    (folder / "notes.txt").write_text("not a theme")
    assert not themes.changed(folder)


# ---- in an app


class Everything(App):
    """Widgets as the screens have them, and a style sheet with every variable that Textual knows nothing of."""

    CSS = "\n".join(
        f"#one {{ color: ${name}; background: ${name}; border: round ${name}; scrollbar-color: ${name}; }}"
        for name in sorted(themes.VARIABLES.keys() - ColorSystem("red").generate().keys())
    )

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.variables(self.current_theme)

    def compose(self):
        yield Static("one", id="one")
        yield from (Input("text"), Select([("a", 1)]), OptionList("a", "b"), Checkbox("c"), Switch(), Tree("t"))
        yield from (Button("a"), Button("b", variant="primary"), Button("c", variant="error"))


async def test_an_app_with_every_variable_in_its_style_sheet_takes_every_theme(ours, mine):
    colours = ["#ffffff 40%", "transparent", "ansi_red 7%", "ansi_default", "#123456"]
    given = [f"{name} = '{colours[place % 5]}'" for place, name in enumerate(themes.VARIABLES)]
    styles = ["link-style = 'not bold underline'", "block-cursor-text-style = 'none'", "text = '#ffffff 90%'"]
    found, problems = mine("\n".join([WHOLE, "[variables]", *given, *styles]))
    assert problems == []
    app = Everything()
    async with app.run_test(size=(80, 40)) as pilot:
        for theme in [*ours.values(), found["mine"]]:
            app.register_theme(theme)
            app.theme = theme.name
            await pilot.pause()
            assert app.theme_variables["series-2"] == theme.variables["series-2"]


def test_the_module_loads_nothing_of_textual_before_a_theme_is_wanted():
    program = "import sys, loratui.themes; print(*(name for name in ('textual', 'rich') if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
