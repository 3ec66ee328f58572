"""Config files and the train panel: what is written is what would run, and what is opened is what the file says."""

from __future__ import annotations

import functools
import os
import tomllib

import pytest
from textual.widgets import Input
from tui_train import PROJECT, config, go, opened, saved, type_over, write_draft

from engine.config import Train, to_toml
from loratui import requests
from loratui.screens import train_files, train_keeper


@pytest.fixture
def draft(record, tmp_path, monkeypatch):
    monkeypatch.setattr(train_keeper, "PATIENCE", 0.02)
    return functools.partial(write_draft, record, tmp_path / "images")


async def answer(desk, title: str, text: str):
    """Type a text into the dialog of this title, over what is there."""
    await desk.sees(title)
    field = desk.app.screen.query_one(Input)
    field.value = text
    if title == "Open a config":
        await desk.until(lambda: [entry.value for entry in desk.app.screen._found][:1] == [text], f"{text} offered")
    return await desk.press("enter")


async def test_what_is_written_can_be_opened_again_and_is_the_same_config(open_desk, draft, tmp_path):
    draft("style", adapter={"rank": 64, "dropout": 0.25}, sampling={"prompts": ["a [best quality] cat"]}, name="b]x")
    path = tmp_path / "run.toml"
    async with open_desk(panel="train") as desk:
        await opened(desk)
        written = desk.panel.keeper.setup.checked[0]
        await desk.press("W")
        await answer(desk, "Write the config to", str(path))
        await desk.until(lambda: f"wrote {path}" in desk.said(), "the file")
        assert to_toml(requests.from_file(path).checked(Train)) == to_toml(written)
        assert "# width of the low-rank bottleneck" in path.read_text()
        draft()
        await desk.press("1", "3")
        await desk.until(lambda: desk.panel.keeper.setup.value("adapter.rank") == 8, "another draft")
        await desk.press("O")
        await answer(desk, "Open a config", str(path))
        await desk.until(lambda: "is in the form" in desk.said(), "the file in the form")
        assert to_toml(desk.panel.keeper.setup.checked[0]) == to_toml(written)
        await desk.press("u")
        await desk.until(lambda: "name" not in config(desk), "the draft before")


async def test_the_name_offered_is_that_of_the_project_here(open_desk, draft, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draft()
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("W")
        await desk.sees("Write the config to")
        await desk.press("enter")
        await desk.until((tmp_path / f"{PROJECT}.toml").exists, "the file")
        assert list(tmp_path.glob(".*.tmp")) == []


async def test_a_file_is_not_overwritten_unasked(open_desk, draft, tmp_path):
    draft()
    path = tmp_path / "run.toml"
    path.write_text("mine")
    path.chmod(0o640)
    async with open_desk(panel="train") as desk:
        await opened(desk)
        for key, text in (("enter", "mine"), ("y", "")):
            await desk.press("W")
            await answer(desk, "Write the config to", str(path))
            await desk.sees("Overwrite this file?")
            await desk.press(key)
            await desk.no_longer_sees("Overwrite this file?")
            await desk.until(lambda t=text: (path.read_text() == "mine") == bool(t), f"{key}")
        assert path.stat().st_mode & 0o777 == 0o640


async def test_what_is_no_config_is_not_written(open_desk, draft):
    draft(adapter={"rank": 0})
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("W")
        await desk.until(lambda: "not written: 1 problem. adapter.rank" in desk.said(), "the refusal")
        assert desk.panel.pane.key == "adapter.rank"


def test_a_path_to_write_to_is_looked_at(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    assert train_files.wrong_target(str(tmp_path / "run.yaml")) == "the name of a .toml file"
    assert "is a folder" in train_files.wrong_target(str(tmp_path / "folder.toml"))
    assert "there is no folder" in train_files.wrong_target(str(tmp_path / "none" / "run.toml"))
    assert train_files.wrong_target(str(tmp_path / "run.toml")) == ""


async def test_a_file_in_yaml_has_its_paths_taken_from_its_folder(open_desk, draft, tmp_path):
    draft()
    (tmp_path / "there" / "pictures").mkdir(parents=True)
    path = tmp_path / "there" / "run.yaml"
    path.write_text(
        "name: from-yaml\nmodel: {base: tiny}\ndataset: {subsets: [{path: pictures}]}\n"
        "prior: {weight: 0.0}\noptimizer: {lr_unet: 2e-4}\n"
    )
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("O")
        await answer(desk, "Open a config", str(path))
        await desk.until(lambda: config(desk).get("name") == "from-yaml", "the file in the draft")
        assert config(desk)["dataset"]["subsets"][0]["path"] == str(path.parent / "pictures")
        assert config(desk)["optimizer"]["lr_unet"] == 2e-4
        assert desk.panel.keeper.setup.checked[0].project == PROJECT


async def test_unknown_fields_are_told_and_wrong_values_stay_in_their_fields(open_desk, draft, tmp_path):
    draft()
    path = tmp_path / "odd.json"
    path.write_text('{"model": {"base": "tiny"}, "adapter": {"rnak": 4, "rank": null, "alpha": "[/foo]"}, "zoo": 1}')
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("O")
        await answer(desk, "Open a config", str(path))
        await desk.sees("2 unknown fields", "✗ adapter.rnak", "did you mean `rank`?", "✗ zoo")
        await desk.press("q")
        await desk.sees('found the text "null"', "[/foo]")
        assert "zoo" not in config(desk)
        await desk.press("u")
        await desk.until(lambda: "adapter" not in config(desk), "the draft before")
        assert saved(desk)["preset"] == "dreambooth"


@pytest.mark.parametrize("text", ["this is [ no toml", 'kind = "generate"\n', "x = nan\n"])
async def test_a_file_that_is_no_training_config_changes_nothing_else(open_desk, draft, tmp_path, text):
    draft(adapter={"rank": 5})
    path = tmp_path / "bad.toml"
    path.write_text(text)
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("O")
        await answer(desk, "Open a config", str(path))
        if "nan" in text:
            await desk.sees("1 unknown field")
        else:
            await desk.until(lambda: "bad.toml" in desk.said(), "what is wrong with it")
            assert config(desk)["adapter"] == {"rank": 5}


async def test_a_file_is_found_by_going_down_folders(open_desk, draft, tmp_path, monkeypatch):
    draft()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "run.toml").write_text('name = "deep"\n[model]\nbase = "tiny"\n')
    monkeypatch.chdir(tmp_path)
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("O")
        await desk.sees("configs/")
        await desk.write("conf")
        await desk.press("enter")
        await desk.sees("run.toml")
        await desk.press("enter")
        await desk.until(lambda: config(desk).get("name") == "deep", "the file in the draft")


async def test_files_at_the_end_of_a_very_long_path_are_told_apart(open_desk, draft, tmp_path, monkeypatch):
    draft()
    deep = tmp_path / ("a-rather-long-name-" * 4) / ("of-a-folder-" * 4)
    (deep / "older").mkdir(parents=True)
    for name in ("cat.toml", "dog.toml"):
        (deep / name).write_text(f'name = "{name[:3]}"\n[model]\nbase = "tiny"\n')
    monkeypatch.chdir(deep)
    async with open_desk(size=(80, 24), panel="train") as desk:
        await opened(desk)
        await desk.press("O")
        await desk.sees(" cat.toml ", " dog.toml ", " older/ ")
        await desk.write("dog")
        await desk.until(lambda: [entry.text for entry in desk.app.screen._found] == ["dog.toml"], "one left")
        await desk.press("enter")
        await desk.until(lambda: config(desk).get("name") == "dog", "the file in the draft")


def test_folders_and_config_files_are_offered_spelled_as_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sub").mkdir()
    for name in ("a.toml", "b.YAML", "c.png", ".hidden.toml"):
        (tmp_path / name).touch()
    assert [entry.value for entry in train_files.offered("~/x")] == ["~/a.toml", "~/b.YAML", "~/sub/"]
    assert train_files.offered("/nowhere/at/all/") == []


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "run.toml"
    path.write_text("mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        train_files.write(path, "new")
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.toml"]


def test_what_is_written_says_that_it_is_a_training(tmp_path):
    table = {"model": {"base": "tiny"}, "dataset": {"subsets": [{"path": "/x"}]}, "prior": {"weight": 0.0}}
    assert tomllib.loads(train_files.config_text(table))["kind"] == "train"


async def test_a_field_typed_after_opening_is_a_step_of_its_own(open_desk, draft, tmp_path):
    draft()
    path = tmp_path / "run.toml"
    path.write_text('[model]\nbase = "tiny"\n[training]\nsteps = 11\n')
    async with open_desk(panel="train") as desk:
        await opened(desk)
        await desk.press("O")
        await answer(desk, "Open a config", str(path))
        await desk.until(lambda: config(desk)["training"]["steps"] == 11, "the file in the draft")
        await go(desk, "training.steps")
        await type_over(desk, "12")
        await desk.press("enter")
        await desk.until(lambda: config(desk)["training"]["steps"] == 12, "the step")
        await desk.press("u")
        await desk.until(lambda: config(desk)["training"]["steps"] == 11, "the file's again")
