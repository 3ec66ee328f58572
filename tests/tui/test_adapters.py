"""The panel of adapters: what files there are and what they say of themselves."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tui_recordings import NOW

from engine.config.settings import App, Settings
from engine.protocol.browse import AdapterHeader
from engine.protocol.operations import Inspected, InspectedLayer, InspectedPart, Loading
from loratui.screens import adapters_side
from loratui.screens.adapters import AdaptersPanel
from loratui.screens.adapters_report import Report, Reports, heard, inspect, report_lines
from loratui.screens.adapters_side import Side


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


async def filtered(desk, words: str) -> None:
    """Narrow the list, and go back to it."""
    await desk.press("slash")
    await desk.write(words)
    await desk.press("enter")


async def test_the_file_at_the_cursor_is_told_in_full_and_i_shows_all_metadata(open_desk, library):
    async with open_desk(settings=library, panel="adapters") as desk:
        await desk.sees("film-grain")
        await filtered(desk, "film")
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


async def test_news_while_the_panel_is_being_made_ask_nothing_of_it_and_forget_nothing(open_desk, library, monkeypatch):
    compose = AdaptersPanel.compose

    def interrupted(panel):
        panel.app.news()
        panel.app.remember()
        yield from compose(panel)

    async with open_desk(settings=library, panel="adapters") as desk:
        await desk.sees("3 files")
        await filtered(desk, "film")
        await desk.sees("1 file")
        desk.app.remember()
    monkeypatch.setattr(AdaptersPanel, "compose", interrupted)
    async with open_desk(settings=library) as desk:
        await desk.sees("1 file", "film-grain")


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
        await desk.press("space", "minus")
        side = desk.panel.query_one(Side)
        await desk.until(lambda: side._reports.of(desk.panel.selected), "what reading the tensors told")
        await desk.calm()
        await snapshot(desk)


# --- what the tensors tell


async def test_the_file_at_the_cursor_is_read_and_told_where_it_loads(open_desk, library):
    async with open_desk(settings=library, panel="adapters") as desk:
        await filtered(desk, "film")
        await desk.sees("loads in ✓ diffusers ✓ A1111 ✓ Forge ✓ ComfyUI", "‖ΔW‖ 0: it changes nothing")


async def test_only_a_file_that_the_cursor_stays_on_is_read_and_only_once(open_desk, library, monkeypatch):
    asked: list[str] = []

    async def inspect(path: str) -> Report:
        asked.append(path)
        return Report(problem="expected an adapter, found [/foo]")

    monkeypatch.setattr("loratui.screens.adapters_report.inspect", inspect)
    monkeypatch.setattr(adapters_side, "PAUSE", 0.2)
    async with open_desk(settings=library, panel="adapters") as desk:
        await desk.sees("3 files")
        await desk.press("down", "up", "down", "up", "end")
        await desk.until(lambda: asked, "the first question")
        await desk.sees("✗ expected an adapter, found [/foo]")
        assert asked == [desk.panel.selected.path]
        await desk.press("up", "down")
        await desk.sees("found [/foo]")
        assert len(asked) == 1


async def test_nothing_is_read_while_another_panel_is_in_front(open_desk, library, monkeypatch):
    asked: list[str] = []

    async def inspect(path: str) -> Report:
        asked.append(path)
        return Report(problem="read")

    monkeypatch.setattr("loratui.screens.adapters_report.inspect", inspect)
    monkeypatch.setattr(adapters_side, "PAUSE", 3600.0)
    async with open_desk(settings=library, panel="adapters") as desk:
        await desk.sees("film-grain")
        await desk.press("end")
        await desk.sees("loads in …")
        side = desk.panel.query_one(Side)
        assert side._reading
        await desk.press("1")
        await desk.until(lambda: not side._reading, "the reading given up")
        assert not asked
        monkeypatch.setattr(adapters_side, "PAUSE", 0.0)
        await desk.press("5")
        await desk.sees("✗ read")


def test_an_app_that_ends_waits_for_no_engine_and_leaves_none(tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    program = f"sleep 1000 & echo $$ > '{pid}'; wait"
    monkeypatch.setattr("loratui.screens.adapters_report.engine_command", lambda *_: ["sh", "-c", program])

    async def app() -> asyncio.Task:
        reading = asyncio.create_task(inspect("/a"))
        while not (pid.exists() and pid.read_text().endswith("\n")):
            await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading], timeout=1.0)
        return reading

    loop = asyncio.new_event_loop()
    reading = loop.run_until_complete(app())
    loop.close()
    assert reading.cancelled()
    deadline = time.monotonic() + 20
    with pytest.raises(ProcessLookupError):  # it is reaped once nobody has its pipes
        while time.monotonic() < deadline:
            os.kill(int(pid.read_text()), 0)
            time.sleep(0.01)


def inspected(**facts) -> Inspected:
    plain = {"path": "/a", "bytes": 9, "format": "kohya", "family": "sd1", "tokens": {}, "metadata": {}}
    part = InspectedPart(layers=2, ranks=[4], alphas=[4.0], kinds={"LoRA": 2})
    return Inspected(**plain | {"parts": {"unet": part}, "notices": [], "loads": [], "layers": []} | facts)


def test_a_report_says_who_loads_a_file_and_which_keys_would_not_match():
    loads = [Loading(program="diffusers", loads=True, note="LoRA loads"), Loading(program="Forge", loads=True, note="")]
    odd = Loading(program="ComfyUI", loads=False, note="passes over 1 of 12 keys: [/foo]", unmatched=["[/foo]"])
    lines = report_lines(Report(inspected(loads=[*loads, odd])))
    assert lines == ["loads in ✓ diffusers ✓ Forge", "✗ ComfyUI passes over 1 of 12 keys: [/foo]"]
    assert report_lines(None) == ["loads in …"]


def test_a_report_says_what_becomes_of_tokens():
    vectors = {"<s1>": {"text_encoder": [1, 768]}}
    (inside,) = report_lines(Report(inspected(tokens=vectors)))
    (alone,) = report_lines(Report(inspected(tokens=vectors, parts={}, format="embedding")))
    assert "<s1>: inside" in inside and "a separate file" in alone


def test_a_report_sums_norms_and_ranks_up():
    layers = [
        InspectedLayer(
            part="unet", path=path, kind="LoRA", rank=4, scale=1.0, shape=[8, 8], norm=norm, effective_rank=rank
        )
        for path, norm, rank in (("a.to_q", 3.0, 2.0), ("b.to_k", 4.0, 3.0))
    ]
    lines = report_lines(Report(inspected(layers=layers)))
    assert lines == ["‖ΔW‖ 5; most, 4, in b.to_k", "effective rank 2.5, by layer 2.0 to 3.0"]


def test_a_file_that_changed_is_read_again():
    reports, before = Reports(), AdapterHeader(path="/a", bytes=1, modified=1.0)
    reports._kept["/a", 1.0, 1] = Report(problem="old")
    assert reports.of(before) and reports.of(AdapterHeader(path="/a", bytes=1, modified=2.0)) is None


def test_what_an_engine_says_that_is_no_report_is_none():
    assert heard(b"") is None and heard(b"Traceback\n{}\n") is None
    refused = b'{"event":"refused","where":"/a","expected":"an adapter","found":"nothing"}\n'
    assert "expected an adapter" in heard(refused).problem
