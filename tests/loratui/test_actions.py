"""The table of actions and the programs that go by it agree."""

from __future__ import annotations

import importlib

import pytest

from loratui import actions
from loratui.screens import everywhere

WIDGETS = {
    "list": ("virtual_list", "VirtualList"),
    "chart": ("line_chart", "LineChart"),
    "grid": ("sample_grid", "SampleGrid"),
    "log": ("log_view", "LogView"),
}


@pytest.mark.parametrize("name", actions.PANELS)
def test_every_action_of_a_panel_has_its_method_and_every_method_its_action(name):
    panel = getattr(importlib.import_module(f"loratui.screens.{name}"), f"{name.title()}Panel")
    verbs = {action.verb for action in actions.of(name)}
    assert verbs == {method.removeprefix("do_") for method in dir(panel) if method.startswith("do_")}


def test_every_action_of_the_app_has_its_function():
    verbs = {action.verb for action in actions.of("app")} - set(actions.PANELS)
    assert all(callable(getattr(everywhere, verb)) for verb in verbs)


@pytest.mark.parametrize("target", WIDGETS)
def test_widgets_bind_the_keys_of_the_table(target):
    module, name = WIDGETS[target]
    widget = getattr(importlib.import_module(f"loratui.widgets.{module}"), name)
    bound = {binding.id: binding.key for binding in widget.BINDINGS}
    assert bound == {action.id: action.keys for action in actions.of(target)}
    assert all(hasattr(widget, f"action_{binding.action}") for binding in widget.BINDINGS)
    assert target == widget.TARGET


@pytest.mark.parametrize("target", actions.TARGETS)
def test_no_key_means_two_things_in_one_place(target):
    keys = [key for action in actions.of(target) for key in action.keys.split(",") if key]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", actions.PANELS)
def test_a_panel_takes_no_key_away_from_the_app(name):
    taken = {key for action in actions.of("app") for key in action.keys.split(",") if key}
    assert not taken & {key for action in actions.of(name) for key in action.keys.split(",") if key}


def test_nothing_hangs_on_a_key_that_terminals_and_tmux_eat():
    eaten = {"ctrl+s", "ctrl+b", "ctrl+a", *(f"f{number}" for number in range(1, 25))}
    assert all(set(action.keys.split(",")) - eaten for action in actions.ACTIONS if action.keys)


@pytest.mark.parametrize("name", actions.PANELS)
def test_the_footer_has_room_for_what_it_is_to_show(name):
    assert 1 <= sum(action.footer for action in actions.of(name)) <= 6


def test_users_remap_actions_and_hear_of_those_that_do_not_exist():
    keys, problems = actions.keymap({"app.quit": "ctrl+x, Q", "app.jump": "", "monitor.pausse": "p"}, "settings.toml")
    assert keys == {"app.quit": "ctrl+x,Q", "app.jump": actions.NEVER}
    assert [problem.field for problem in problems] == ["app.keys.monitor.pausse"]
    assert "monitor.pause" in problems[0].advice


def test_keys_are_shown_as_people_read_them():
    assert actions.shown("slash") == "/"
    assert actions.shown("up,k") == "↑ k"
    assert actions.shown("ctrl+p") == "^p"
    assert actions.shown(actions.NEVER) == ""
