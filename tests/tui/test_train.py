"""The train panel: a form from the schema, its errors as one types, presets, the draft, starting."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import tomllib

import msgspec
import pytest
from tui_train import PROJECT, config, go, jobs, opened, saved, type_over, write_draft

from engine import locks, tiny
from engine.config import Train, leaves
from engine.host import launch
from engine.protocol.browse import RunPlan
from loratui.draft import Setup
from loratui.screens import train_keeper
from loratui.screens.train_rows import View, rows
from loratui.screens.train_side import side_lines
from loratui.widgets.form import looks_of
from loratui.widgets.form_rows import Looks


@pytest.fixture
def draft(record, tmp_path, monkeypatch):
    monkeypatch.setattr(train_keeper, "PATIENCE", 0.02)
    return functools.partial(write_draft, record, tmp_path / "images")


@pytest.fixture
def nothing_starts(record, workspace):
    """This process plays the runner: what is queued stays there."""
    held = locks.take(launch.runner_lock(workspace))
    yield
    held.release()


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


# --- steps ------------------------------------------------------------------------------------------------------------


async def test_reset_and_undo(open_desk, draft):
    draft(adapter={"rank": 4, "alpha": 2.0})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "adapter.rank")
        await desk.press("x")
        await desk.until(lambda: config(desk)["adapter"] == {"alpha": 2.0}, "rank reset")
        await desk.press("u")
        await desk.until(lambda: config(desk)["adapter"].get("rank") == 4, "rank back")
        await desk.press("u")
        await desk.until(lambda: "undo: nothing was changed" in desk.said(), "the reason")


async def test_a_section_is_reset_after_asking(open_desk, draft):
    draft(adapter={"rank": 4, "alpha": 2.0, "nonsense": 3})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.sees("✗ adapter.nonsense")
        while desk.panel.pane.key != "adapter":
            await desk.press("j")
        await desk.press("x")
        await desk.sees("Reset adapter?", "adapter.rank, adapter.alpha")
        await desk.press("y")
        await desk.until(lambda: "adapter" not in config(desk), "the section reset")
        await desk.no_longer_sees("nonsense")


async def test_another_preset_asks_nothing_where_nothing_was_changed(open_desk, draft):
    draft(prior={})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("p")
        await desk.sees("Preset", "as it is", "adapter.rank 16")
        await desk.write("style")
        await desk.press("enter")
        await desk.sees("preset style · 0 changes")
        await desk.until(lambda: saved(desk)["preset"] == "style", "the preset in the draft")


@pytest.mark.parametrize(("answer", "rank"), [("keep", 64), ("drop", 16)])
async def test_another_preset_asks_what_becomes_of_changes(open_desk, draft, answer, rank):
    draft(adapter={"rank": 64}, name="fluffy")
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("p")
        await desk.sees("as it is")
        await desk.write("style")
        await desk.press("enter")
        await desk.sees("You changed", "adapter.rank")
        await desk.write(answer)
        await desk.press("enter")
        await desk.until(lambda: saved(desk)["preset"] == "style", "the preset in the draft")
        assert desk.panel.keeper.setup.value("adapter.rank") == rank
        assert config(desk)["name"] == "fluffy"
        await desk.press("u")
        await desk.until(lambda: saved(desk)["preset"] == "dreambooth", "the preset before")
        assert config(desk)["adapter"] == {"rank": 64}


async def test_finding_unfolds_what_hides_a_field(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "optimizer.beta1")
        await desk.press("left")  # it has no other values: nothing happens
        assert desk.panel.pane.key == "optimizer.beta1"
        await desk.sees("beta1", "decay of the first moment")


async def test_only_changes_can_be_shown(open_desk, draft):
    draft(adapter={"dropout": 0.25})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("v")
        await desk.sees("* was 0", "0.25")
        assert "accumulate" not in desk.text()
        await desk.press("v")
        await desk.sees("accumulate")


async def test_folds_and_the_cursor_are_found_again(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        while desk.panel.pane.key != "model":
            await desk.press("j")
        await desk.press("left")
        await desk.sees("▸ Model")
        await desk.press("A")
        await desk.sees("dropout")
        desk.app.remember()
    async with open_desk(panel="train") as desk:
        await desk.sees("▸ Model", "dropout")
        assert desk.panel.pane.key == "model"
        await desk.press("right")
        await desk.sees("▾ Model", "clip skip")


async def test_prompts_are_edited_as_lines_and_told_when_one_is_wrong(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "sampling.prompts")
        await desk.press("enter")
        await desk.sees("sampling.prompts", "one a line")
        await desk.write("a cat")
        await desk.press("enter")
        await desk.write("a dog --q 3")
        await desk.sees("✗ [1] unknown option --q")
        await desk.press("ctrl+o")
        assert len(desk.app.screen_stack) == 2
        await desk.press("backspace", "backspace", "backspace")
        await desk.write("s 3")
        await desk.press("ctrl+o")
        await desk.until(lambda: config(desk)["sampling"]["prompts"] == ["a cat", "a dog --s 3"], "the prompts")


async def test_tables_are_edited_as_toml_and_told_when_they_are_wrong(open_desk, draft):
    draft(adapter={"sets": [{"targets": "text_encoder", "rank": 4, "alpha": 4.0}]})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "adapter.sets")
        await desk.press("enter")
        await desk.sees("[[sets]]", 'targets = "text_encoder"')
        await desk.press("ctrl+end", "enter")
        await desk.write("[[sets]]")
        await desk.sees("✗ [1].targets expected text that is not empty")
        await desk.press("escape")
        await desk.no_longer_sees("[[sets]]")
        assert len(config(desk)["adapter"]["sets"]) == 1


async def test_folders_are_listed_and_lead_to_their_panel(open_desk, draft, monkeypatch):
    images = draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        shown = []
        monkeypatch.setattr(desk.app, "show_panel", shown.append)
        await go(desk, "dataset.subsets")
        await desk.sees(f"/{images.name}", "edited in the dataset panel: 2")
        await desk.press("j")
        await desk.sees("class_tokens ohwx cat")
        await desk.press("enter")
        assert shown == ["dataset"]


# --- the base ---------------------------------------------------------------------------------------------------------


async def test_another_base_brings_its_own_values_and_says_what_it_is(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        assert desk.panel.keeper.setup.value("adapter.rank") == 8
        await go(desk, "model.base")
        await type_over(desk, "x")
        desk.panel.pane.form.editor.value = str(tiny.FOLDER)
        await desk.press("enter")
        await desk.sees("Stable Diffusion 1.x")
        assert desk.panel.keeper.setup.value("adapter.rank") == 16


async def test_a_base_that_is_none_is_told_beside_its_field(open_desk, draft):
    draft(model={"base": "/nowhere/model.safetensors"})
    async with open_desk(size=(200, 50), panel="train") as desk:
        await desk.sees("✗ expected tiny, a diffusers folder", "found nothing of that name")
        await opened(desk)
        assert sum("model.base" in line for line in desk.text().splitlines()) == 1


async def test_of_several_answers_about_bases_the_one_about_the_present_base_counts(open_desk, draft, monkeypatch):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        call, late = desk.app.call, asyncio.Event()

        async def slow(method, params):
            if method == "bases.resolve" and params.base == "/late":
                await late.wait()
            return await call(method, params)

        monkeypatch.setattr(desk.app, "call", slow)
        keeper = desk.panel.keeper
        keeper.apply(keeper.setup.with_value("model.base", "/late"))
        await desk.sees("looking what it is …")
        keeper.apply(keeper.setup.with_value("model.base", "tiny"))
        await desk.sees("the embedded tiny base")
        late.set()
        await opened(desk)
        assert keeper.problems() == []


# --- the draft --------------------------------------------------------------------------------------------------------


async def test_what_was_entered_survives_the_app(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await go(desk, "training.steps")
        await type_over(desk, "777")
        await desk.press("enter")
    async with open_desk(panel="train") as desk:
        await desk.sees("777", "* was 300")


async def test_a_host_that_dies_loses_no_step(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        os.kill(desk.app._link._client.hello.pid, signal.SIGKILL)
        await go(desk, "training.steps")
        await type_over(desk, "555")
        await desk.press("enter")
        await desk.until(lambda: config(desk).get("training") == {"steps": 555}, "the step in the draft")
        await desk.sees("555 steps ·")


async def test_what_another_panel_writes_is_seen_on_coming_back(open_desk, draft):
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("1")
        draft(adapter={"rank": 3})
        await desk.press("3")
        await desk.until(lambda: desk.panel.keeper.setup.value("adapter.rank") == 3, "the new rank")


async def test_a_draft_that_cannot_be_read_is_told_and_kept(open_desk, draft, record):
    draft()
    path = record.project(PROJECT) / "draft.toml"
    path.write_text("this is = no [ draft")
    async with open_desk(panel="train") as desk:
        await desk.until(lambda: "draft.toml can't be read" in desk.said(), "the problem")
        await go(desk, "training.steps")
        await type_over(desk, "12")
        await desk.press("enter")
        await desk.until(lambda: config(desk) == {"training": {"steps": 12}}, "a new draft")
        assert "no [ draft" in (path.parent / "draft-unreadable-1.toml").read_text()


# --- starting ---------------------------------------------------------------------------------------------------------


async def test_start_queues_the_run_first_and_opens_the_monitor(open_desk, draft, record, monkeypatch):
    record.waiting(PROJECT, "earlier one")
    images = draft(adapter={"rank": 4}, name="fluffy")
    async with open_desk(panel="train") as desk:
        await opened(desk)
        opened_runs = []
        monkeypatch.setattr(desk.app, "open_run", opened_runs.append)
        desk.panel.do_start()
        desk.panel.do_start()  # a key that repeats
        await desk.until(lambda: opened_runs, "the monitor")
        (job,) = [path for path in jobs(desk) if "fluffy" in path.name]
        assert opened_runs == [job.name]
        written = tomllib.loads((job / "config.toml").read_text())
        assert (written["project"], written["name"], written["adapter"]["rank"]) == (PROJECT, "fluffy", 4)
        assert written["training"]["steps"] == 300
        assert written["dataset"]["subsets"][0]["path"] == str(images)
        await desk.until(lambda: desk.app.board.waiting()[:1] and desk.app.board.waiting()[0].id == job.name, "first")
        assert job.name in desk.said()


async def test_queue_puts_the_run_last_and_stays(open_desk, draft, record):
    earlier = record.waiting(PROJECT, "earlier one")
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("Q")
        await desk.until(lambda: len(desk.app.board.waiting()) == 2, "two that wait")
        assert desk.app.board.waiting()[0].id == earlier
        assert desk.panel.name_ == "train"


async def test_a_run_with_problems_is_not_started_and_the_first_of_them_is_shown(open_desk, draft, nothing_starts):
    draft(dataset={"subsets": [{"path": "/nowhere"}]}, optimizer={"eps": 7.0})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.sees("✗ 2", "✗ dataset.subsets[0].path", "✗ optimizer.eps")
        await desk.press("S")
        await desk.until(lambda: "not started: 2 problems. dataset.subsets[0].path" in desk.said(), "the refusal")
        assert desk.panel.pane.key == "dataset.subsets"
        assert jobs(desk) == []


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
        await desk.pilot.pause()
        snapshot(desk)
