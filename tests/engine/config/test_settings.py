"""`settings.toml`: the app's section and that of the runs, each with its mistakes, neither spoiling the other."""

from __future__ import annotations

import tomllib

import pytest

from engine.config import check, describe, help_of, json_schema, leaves, to_toml
from engine.config.settings import App, Settings, read_app, read_settings

SOUND = """
retries = 2

[hooks]
on_done = ["true"]

[app]
theme = "blueprint"
mouse = false
pictures = "kitty"
adapters = ["~/adapters", "shared"]

[app.keys]
"runs.stop" = "S, ctrl+x"
quit = ""
"""


@pytest.fixture
def written(tmp_path):
    """Write the settings of a workspace; its folder."""

    def write(text: str):
        (tmp_path / "settings.toml").write_text(text)
        return tmp_path

    return write


def told(problems) -> list[tuple[str, str, str]]:
    return [(problem.field, problem.expected, problem.found) for problem in problems]


def test_the_app_and_the_runs_find_their_settings_in_one_file(written):
    workspace = written(SOUND)
    app = App(
        theme="blueprint",
        mouse=False,
        pictures="kitty",
        adapters=["~/adapters", "shared"],
        keys={"runs.stop": "S, ctrl+x", "quit": ""},
    )
    assert read_app(workspace) == (app, [])
    settings, problems = read_settings(workspace)
    assert problems == []
    assert (settings.retries, settings.hooks.on_done, settings.app) == (2, ["true"], app)


def test_a_workspace_without_settings_has_the_defaults_of_the_app(tmp_path):
    assert read_app(tmp_path) == (App(), [])
    assert App().theme == "loratui-dark" and App().mouse and App().pictures == "auto"
    assert App().adapters == [] and App().keys == {}


def test_every_mistake_of_the_app_is_told_with_its_place_expectation_and_finding(written):
    workspace = written(
        "[app]\ntheme = ''\nmouse = 'no'\npictures = 'braille'\nadapters = ['']\nthemes = 'dark'\n"
        "[app.keys]\nquit = ['q']\n'runs.stop' = 3\n"
    )
    app, problems = read_app(workspace)
    assert app == App()
    assert {problem.where for problem in problems} == {str(workspace / "settings.toml")}
    assert sorted(told(problems)) == [
        ("app.adapters[0]", "text that is not empty", 'the text ""'),
        ("app.keys.quit", "text", '["q"]'),
        ("app.keys.runs.stop", "text", "3"),
        ("app.mouse", "true or false", 'the text "no"'),
        ("app.pictures", 'one of "auto", "half-blocks", "kitty", "sixel"', 'the text "braille"'),
        ("app.theme", "text that is not empty", 'the text ""'),
        ("app.themes", "a known field", "`themes`"),
    ]
    assert next(problem.advice for problem in problems if problem.field == "app.themes") == "did you mean `theme`?"


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [("app = 1\n", "app", "a table of fields"), ("[app]\nkeys = ['q']\n", "app.keys", "a table, each text")],
)
def test_a_value_where_a_table_belongs_is_told_as_such(written, text, field, expected):
    assert [problem[:2] for problem in told(read_app(written(text))[1])] == [(field, expected)]


def test_a_mistake_of_the_app_leaves_the_settings_of_the_runs_in_force(written):
    settings, problems = read_settings(written(SOUND.replace('"kitty"', "3")))
    assert [problem.field for problem in problems] == ["app.pictures"]
    assert (settings.retries, settings.hooks.on_done, settings.app) == (2, ["true"], App())


def test_a_mistake_of_the_runs_leaves_the_app_as_it_was_set(written):
    workspace = written(SOUND.replace("on_done", "on_dnoe"))
    assert read_settings(workspace)[0] is None
    app, problems = read_app(workspace)
    assert app.theme == "blueprint"
    assert [problem.field for problem in problems] == ["hooks.on_dnoe"]


def test_a_misspelt_section_is_answered_with_the_one_that_is_meant(written):
    _, (problem,) = read_app(written("[ap]\ntheme = 'x'\n"))
    assert (problem.field, problem.advice) == ("ap", "did you mean `app`?")


def test_a_file_that_is_no_toml_is_told_once_and_both_go_on(written):
    workspace = written("[app\n")
    app, problems = read_app(workspace)
    assert app == App()
    assert [problem.expected for problem in problems] == ["well-formed TOML"]
    assert read_settings(workspace) == (None, problems)


@pytest.mark.parametrize("comments", [False, True])
def test_settings_are_read_back_as_they_were_written(comments):
    keys = {"runs.stop": "S, ctrl+x", "quit": "", 'a "b" \\ =': "x\u2028y\n# no comment"}
    settings = Settings(retries=3, app=App(theme="ansi", adapters=["a", "b"], keys=keys))
    text = to_toml(settings, comments)
    assert check(Settings, tomllib.loads(text), lambda field: "test") == (settings, [])
    assert ('# keys of an action by its id, parted by commas; "": the action has no key: a table' in text) == comments


def test_every_setting_of_the_app_says_what_it_is_for_and_what_it_takes():
    found = {name: kind for name, kind, _ in leaves(App)}
    assert list(found) == ["theme", "mouse", "pictures", "adapters", "keys"]
    assert all(help_of(kind) and describe(kind) for kind in found.values())
    assert describe(found["keys"]) == "a table, each text"


def test_the_json_schema_has_the_keys_as_texts_by_free_names():
    keys = json_schema(Settings)["$defs"]["App"]["properties"]["keys"]
    assert keys["type"] == "object" and keys["additionalProperties"] == {"type": "string"}
