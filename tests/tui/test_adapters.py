"""The panel of adapters: what files there are and what they say of themselves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tui_recordings import NOW

from engine.config.settings import App, Settings


def adapter(path: Path, rank: int = 8, metadata: dict[str, str] | None = None) -> Path:
    """A small kohya file with two modules of the denoiser and one of the text encoder."""
    names = (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    )
    tensors = {}
    for name in names:
        tensors[f"{name}.lora_down.weight"] = np.zeros((rank, 64), np.float32)
        tensors[f"{name}.lora_up.weight"] = np.zeros((64, rank), np.float32)
        tensors[f"{name}.alpha"] = np.array(rank / 2, np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        tensors, path, metadata={"ss_network_dim": str(rank), "ss_network_alpha": str(rank / 2)} | (metadata or {})
    )
    return path


@pytest.fixture
def library(tmp_path) -> Settings:
    folder = tmp_path / "library"
    adapter(folder / "film-grain.safetensors", 4, {"ss_base_model_version": "sd_v1", "modelspec.title": "grain [/foo]"})
    adapter(folder / "deep" / "cat-rank.safetensors", 16)
    (folder / "broken-thing.safetensors").write_bytes(b"not a header at all")
    return Settings(app=App(adapters=[str(folder)]))


async def test_files_of_the_library_are_listed_with_what_their_headers_say(open_desk, library):
    async with open_desk(settings=library, panel="adapters") as desk:
        await desk.sees("3 files", "film-grain", "r4", "cat-rank", "r16", "! broken-thing", "unreadable")


async def test_files_of_the_open_projects_runs_come_with_their_run_and_step(open_desk, record):
    identity = record.run("my-cat", "dreambooth")
    folder = record.workspace / "projects" / "my-cat" / "runs" / identity
    adapter(folder / "dreambooth.safetensors")
    adapter(folder / "checkpoints" / "dreambooth-step000100.safetensors")
    async with open_desk(size=(180, 40), panel="adapters") as desk:
        desk.app.open_project("my-cat")
        await desk.sees("my-cat · 2 files", "dreambooth", "step 100")


async def test_the_file_at_the_cursor_is_told_in_full_and_i_shows_all_metadata(open_desk, library):
    async with open_desk(settings=library, panel="adapters") as desk:
        await desk.sees("film-grain")
        await desk.press("slash")
        await desk.write("film")
        await desk.press("enter")
        await desk.sees("kohya", "2 unet", "base grain [/foo]")
        await desk.press("i")
        await desk.sees("all metadata", "ss_network_alpha: 2.0")


async def test_a_filter_narrows_by_words_and_without_words(open_desk, library):
    async with open_desk(settings=library, panel="adapters") as desk:
        await desk.sees("3 files")
        await desk.press("slash")
        await desk.write("-cat")
        await desk.sees("2 files")
        await desk.press("escape")
        await desk.sees("3 files")


async def test_a_file_is_trashed_after_a_question_whose_default_is_no(open_desk, library, tmp_path, workspace):
    path = tmp_path / "library" / "film-grain.safetensors"
    async with open_desk(settings=library, panel="adapters") as desk:
        desk.panel.go_to(str(path))
        await desk.until(lambda: desk.panel.copied()[0] == str(path), "the cursor on the file")
        await desk.press("d")
        await desk.sees("Trash this file?", "film-grain.safetensors")
        await desk.press("enter")
        await desk.no_longer_sees("Trash this file?")
        assert path.exists()
        await desk.press("d")
        await desk.sees("Trash this file?")
        await desk.press("y")
        await desk.sees("2 files")
        assert not path.exists()
        assert list((workspace / "trash").rglob("film-grain*"))


async def test_without_files_the_panel_says_where_they_would_come_from(open_desk):
    async with open_desk(panel="adapters") as desk:
        await desk.sees("0 files", "none: runs leave theirs here")


async def test_a_library_folder_that_is_gone_is_said(open_desk, tmp_path):
    async with open_desk(settings=Settings(app=App(adapters=[str(tmp_path / "gone")])), panel="adapters") as desk:
        await desk.sees("! gone", "unreadable", "expected a folder")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_look_of_the_adapters_panel(open_desk, library, snapshot, size, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "library").rglob("*.safetensors"):
        os.utime(path, (NOW - 7200, NOW - 7200))
    async with open_desk(size=size, settings=library, panel="adapters") as desk:
        desk.panel.go_to(str(tmp_path / "library" / "film-grain.safetensors"))
        await desk.sees("3 files", "film-grain")
        await desk.until(lambda: "film-grain" in desk.panel.copied()[0], "the cursor on the file")
        desk.app.devices = None
        desk.app.news()
        await desk.pilot.pause()
        snapshot(desk)
