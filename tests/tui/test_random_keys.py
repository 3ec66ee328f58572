"""A monkey at the keyboard: random keys, words and resizes over every panel, none of which may crash the app.

The keys follow from a seed, so that what fails fails again: the failure names the seed and the last keys.
"""

from __future__ import annotations

import os
import random

import pytest

from engine.config.settings import App, Settings
from loratui import actions

PRESSES = 500
"""About a minute of them."""
MONKEYS = int(os.environ.get("LORATUI_MONKEYS", "1"))
KEYS = sorted({key for action in actions.ACTIONS for key in action.keys.split(",") if key})
WORDS = ("0", "-1", "1e-4", "nan", "cat", "[/foo]", "…", "ünï", "'", '"', "\\", "~", "0.5", "true", "/", ".")
SIZES = ((60, 20), (80, 24), (100, 30), (120, 40), (200, 50), (250, 80), (30, 8))
NAMED = {" ": "space", "/": "slash", ".": "full_stop", "-": "minus", "[": "left_square_bracket", "\\": "backslash"}
STAY = Settings(app=App(keys={"app.quit": "", "app.suspend": ""}))
"""Quitting and suspending are for other tests."""


@pytest.mark.parametrize("seed", range(MONKEYS))
async def test_no_keys_and_no_sizes_bring_the_app_down(open_desk, record, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what is written by name lands here
    images = record.images(tmp_path / "images" / "10_ohwx cat")
    record.run("my-cat", "dreambooth [/foo]")
    record.run("my-cat", "rank 64", state="failed", cause="out of memory [best quality]", steps=31)
    record.run("other", "lines", state="crashed", steps=77)
    record.live("my-cat", "pivotal r16")
    record.waiting("my-cat", "rank 32")
    draft = f'preset = "dreambooth"\n[config.model]\nbase = "tiny"\n[[config.dataset.subsets]]\npath = "{images}"\n'
    (record.project("my-cat") / "draft.toml").write_text(draft)
    chance, pressed = random.Random(seed), []
    async with open_desk(settings=STAY) as desk:
        desk.app.open_project("my-cat")
        for _ in range(PRESSES):
            what = chance.random()
            if what < 0.03:
                await desk.pilot.resize_terminal(*chance.choice(SIZES))
                continue
            if what < 0.13:
                keys = [NAMED.get(letter, letter) for letter in chance.choice(WORDS)]
            elif what < 0.2:
                keys = ["escape"]
            elif what < 0.3:
                keys = [chance.choice("12345")]
            else:
                keys = [chance.choice(KEYS)]
            pressed += keys
            try:
                await desk.pilot.press(*keys)
            except Exception as error:
                raise AssertionError(f"seed {seed}, after {pressed[-30:]}") from error
            assert desk.app._exception is None, f"seed {seed}, after {pressed[-30:]}"
        for _ in range(6):
            await desk.press("escape")
        await desk.until(lambda: len(desk.app.screen_stack) == 1, "the panels again")
