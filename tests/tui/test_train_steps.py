"""Steps on the train panel: presets, folds, lists, another base, a draft that nothing loses, starting."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import tomllib

import pytest
from tui_train import PROJECT, config, go, jobs, opened, saved, type_over, write_draft

from engine import locks, tiny
from engine.host import launch
from loratui.screens import train_keeper


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
        await desk.sees("✗ expected tiny, tiny-xl, tiny-inpaint, ", "found nothing of", "that name")
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
