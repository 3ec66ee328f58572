"""The form of the train panel: what it shows, and its errors as one types."""

from __future__ import annotations

import functools
import random
from dataclasses import replace

import msgspec
import pytest
from tui_train import PROJECT, config, go, opened, type_over, write_draft

from engine.config import PRESETS, Train, leaves
from engine.protocol.browse import RunPlan
from loratui import draft_fields
from loratui.draft import Setup
from loratui.screens import train_keeper
from loratui.screens.train_rows import View, help_lines, rows
from loratui.screens.train_side import side_lines
from loratui.widgets.form import looks_of
from loratui.widgets.form_rows import Looks, draw


@pytest.fixture
def draft(record, tmp_path, monkeypatch):
    monkeypatch.setattr(train_keeper, "PATIENCE", 0.02)
    return functools.partial(write_draft, record, tmp_path / "images")


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_every_leaf_of_the_schema_has_a_row():
    keys = {row.key for row in rows(Setup(PROJECT), [], View(advanced=True), {})}
    assert {name.partition("[]")[0] for name, _, _ in leaves(Train)} <= keys


def test_what_is_folded_is_counted_and_what_is_wrong_or_changed_is_not_folded():
    view = View()
    made = Setup(PROJECT, changes={"model": {"clip_skip": 2}, "optimizer": {"eps": "tiny"}})
    shown = {row.key: row for row in rows(made, made.checked[1], view, {})}
    assert "model.clip_skip" in shown
    assert "optimizer.eps" in shown
    assert "2 advanced" in shown["model/advanced"].label
    assert shown["optimizer"].wrong == "1"
    assert shown["model.clip_skip"].note == "* was 1"


JUNK = (None, True, -1, 2.5, 1e300, "", "[/foo]\x1b[31m\n", [], [1], ["a"], {}, {"a": 1}, [{}], [{"path": 3}], [[1]])


def test_whatever_a_draft_holds_its_form_can_be_drawn():
    """A draft is a file that people edit."""
    chance = random.Random(7)
    for _ in range(300):
        junk = Setup(PROJECT, chance.choice(list(PRESETS)), chance.choice(["tiny", "sd1", "another"]))
        for leaf in chance.sample(list(draft_fields.leaves().values()), 6):
            junk = junk.with_value(leaf.path, chance.choice(JUNK))
        junk = replace(junk, changes=junk.changes | {chance.choice(["adapter", "name", "foo"]): chance.choice(JUNK)})
        problems = junk.checked[1]
        shown = rows(junk, problems, View(advanced=True), {})
        assert problems
        assert len({row.key for row in shown}) == len(shown)
        for row in shown:
            assert draw(row, 70, Looks()).cell_len <= 70
            help_lines(junk, problems, row.key, Looks())


async def test_without_a_project_the_panel_says_what_to_do(open_desk, record):
    record.project("one")
    record.project("two")
    async with open_desk(panel="train") as desk:
        await desk.sees("no project is open")
        await desk.press("S")
        await desk.until(lambda: "start: no project is open" in desk.said(), "the reason")


async def test_the_form_shows_the_presets_values_with_ranges_and_the_scale(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.sees("preset dreambooth · 1 change", "1…1,024", "scale α/r 1", "the embedded tiny base, 64 px")
        await desk.sees("* was 1")  # prior.weight
        await desk.sees("this run", "4 images × 1 repeat = 4 per epoch", "300 steps")


async def test_the_help_of_the_field_at_the_cursor_is_below(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await go(desk, "optimizer.lr_unet")
        await desk.sees("learning rate of the denoiser's factors", "a number from 0 to 10", "dreambooth: 0.001")


async def test_names_and_prompts_are_never_markup(open_desk, draft):
    draft(sampling={"prompts": ["a [best quality] cat"]}, name="[/foo]")
    async with open_desk(panel="train") as desk:
        await desk.sees("[/foo]")
        await go(desk, "sampling.prompts")
        await desk.press("j")
        await desk.sees("a [best quality] cat")


@pytest.mark.parametrize("size", [(60, 20), (250, 80)])
async def test_it_fits_small_and_large_screens(open_desk, draft, size):
    draft()
    async with open_desk(size=size, panel="train") as desk:
        await opened(desk)
        await desk.sees("rank", "1…1,024")
        assert ("this run" in desk.text()) == (size[0] >= 100)
        if size[0] < 100:
            await desk.press("tab")
            await desk.sees("this run", "4 images")
            await desk.press("tab")
            await desk.sees("1…1,024")


# --- typing -----------------------------------------------------------------------------------------------------------


async def test_an_invalid_value_is_told_beside_its_field_as_one_types_and_escape_takes_it_back(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "adapter.rank")
        await type_over(desk, "0")
        await desk.sees("✗ expected a whole number from 1", "Adapter  * 1  ✗ 1")
        await desk.write("x")
        await desk.sees('found the text "0x"')
        await desk.press("escape")
        await desk.no_longer_sees("✗ expected")
        assert "adapter" not in config(desk)


async def test_an_invalid_value_may_be_kept_and_is_still_wrong_after_a_restart(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "adapter.rank")
        await type_over(desk, "many")
        await desk.press("enter")
        await desk.until(lambda: config(desk).get("adapter") == {"rank": "many"}, "the draft on disk")
    async with open_desk(panel="train") as desk:
        await desk.sees("✗ expected a whole number", "✗ adapter.rank")


async def test_rules_between_fields_are_told_as_one_types(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "training.epochs")
        await type_over(desk, "5")
        await desk.sees("✗ expected a length either in steps")
        await desk.press("enter")
        await go(desk, "training.steps")
        await type_over(desk, "0")
        await desk.no_longer_sees("✗ expected")
        await desk.press("enter")
        await desk.sees("5 epochs")
        assert config(desk)["training"] == {"epochs": 5, "steps": 0}


async def test_in_a_text_field_every_character_types(open_desk, draft):
    draft(prior={"weight": 1.0})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "prior.prompt")
        text = "1 jl qSv/?:; [/b] e"
        await desk.press("e")
        for letter in text:
            await desk.pilot.press("space" if letter == " " else letter)
        await desk.press("enter")
        await desk.until(lambda: config(desk)["prior"].get("prompt") == text, "the text in the draft")


async def test_up_and_down_keep_what_was_typed_and_go_on(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "training.steps")
        await type_over(desk, "400")
        await desk.press("down")
        await desk.until(lambda: desk.panel.pane.key == "training.epochs", "the next row")
        await desk.until(lambda: config(desk)["training"] == {"steps": 400}, "the draft on disk")
        await desk.sees("* was 300")


async def test_the_presets_value_is_no_change(open_desk, draft):
    draft(training={"steps": 400})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "training.steps")
        await type_over(desk, "300")
        await desk.press("enter")
        await desk.until(lambda: "training" not in config(desk), "no change left in the draft")


async def test_switches_turn_and_choices_go_round(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "dataset.buckets")
        await desk.press("enter")
        await desk.until(lambda: config(desk)["dataset"].get("buckets") is True, "the switch on")
        await go(desk, "schedule.kind")
        for key, expected in (("right", "constant"), ("space", "linear"), ("left", "constant"), ("h", None)):
            await desk.press(key)
            await desk.until(lambda e=expected: config(desk).get("schedule", {}).get("kind") == e, f"{expected}")


async def test_a_click_goes_to_a_row_and_another_one_edits_it(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        fields = desk.panel.pane.form.fields
        row = next(y for y, line in enumerate(desk.text().splitlines()) if " rank " in line)
        offset = (10, row - fields.region.y)
        await desk.pilot.click(fields, offset=offset)
        await desk.until(lambda: desk.panel.pane.key == "adapter.rank", "the cursor at the row")
        assert not desk.panel.pane.form.typing
        await desk.pilot.click(fields, offset=offset)
        await desk.until(lambda: desk.panel.pane.form.typing == "adapter.rank", "typing")


async def test_leaving_a_field_by_mouse_keeps_what_was_typed(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "adapter.rank")
        await type_over(desk, "4")
        await desk.pilot.click("#this-run")
        await desk.until(lambda: config(desk).get("adapter") == {"rank": 4}, "the draft on disk")


async def test_typing_goes_on_where_its_row_went(open_desk, draft):
    """What is typed may unfold rows above and hide rows below; the input stays over its own field."""
    draft(adapter={"rank": 4, "alpha": 2.0}, prior={}, training={"epochs": 3})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("v")
        while desk.panel.pane.key != "training.epochs":
            await desk.press("j")
        before = len(desk.panel.pane.form._rows)
        await type_over(desk, "0")  # as the preset has it, so that nothing is wrong with the length any more
        form = desk.panel.pane.form
        assert len(form._rows) == before - 1
        assert form._rows[form.editor.region.y - form.region.y].key == "training.epochs"


def test_a_run_that_does_not_fit_on_the_disk_is_marked():
    def told(free: int) -> str:
        plan = RunPlan(text="4 images", disk_bytes=3 << 30, disk_free=free)
        return str(side_lines("tiny", plan, "", [], Looks()))

    assert "3.0 GB of 1.0 GB free  ! it does not fit" in told(1 << 30)
    assert "!" not in told(4 << 30)


async def test_what_differs_and_what_is_wrong_have_colours_of_the_theme(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        looks = looks_of(desk.panel)
        assert looks.changed.color
        assert looks.wrong.color
        assert looks.changed != looks.wrong


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_the_look_of_the_train_panel(open_desk, draft, snapshot, size, monkeypatch):
    draft(adapter={"rank": 32, "alpha": "many"}, sampling={"prompts": ["an ohwx cat [best quality]"]})
    monkeypatch.setattr("loratui.app.parts", lambda *_: [])
    async with open_desk(size=size, panel="train") as desk:
        await opened(desk)
        await go(desk, "adapter.rank")
        keeper = desk.panel.keeper
        keeper.plan = msgspec.structs.replace(keeper.plan, disk_free=80 << 30)
        desk.panel._show()
        await snapshot(desk)
