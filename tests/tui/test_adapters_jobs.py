"""What the panel of adapters makes of files: blends, conversions, comparisons, extractions and merges, as real jobs."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tui_recordings import NOW

from engine import protocol
from engine.config.settings import App, Settings
from engine.protocol.operations import Composed, Difference, LayerDifference
from engine.protocol.operations import Layer as LayerReport
from loratui import answers
from loratui.screens.adapters_compare import Comparison
from loratui.widgets.painting import theme_style

BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1"


def adapter(path: Path, rank: int, seed: int, family: str = "sd_v1", width: int = 64) -> Path:
    """A small kohya file of two layers, whose alpha is half its rank."""
    draw = np.random.default_rng(seed)
    tensors = {}
    for layer in ("to_q", "to_k"):
        tensors[f"{BLOCK}_{layer}.lora_down.weight"] = draw.normal(size=(rank, width)).astype(np.float32)
        tensors[f"{BLOCK}_{layer}.lora_up.weight"] = draw.normal(size=(width, rank)).astype(np.float32)
        tensors[f"{BLOCK}_{layer}.alpha"] = np.array(rank / 2, np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"ss_base_model_version": family})
    return path


def delta(path: Path, layer: str) -> np.ndarray:
    tensors = load_file(path)
    up, down = (tensors[f"{BLOCK}_{layer}.lora_{side}.weight"].astype(np.float64) for side in ("up", "down"))
    return float(tensors.get(f"{BLOCK}_{layer}.alpha", len(down))) / len(down) * up @ down


@pytest.fixture
def library(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "library"
    adapter(folder / "cat.safetensors", 4, 1)
    adapter(folder / "grain [b].safetensors", 8, 2)
    return Settings(app=App(adapters=[str(folder)]))


@pytest.fixture
def cat(tmp_path) -> Path:
    return tmp_path / "library" / "cat.safetensors"


@pytest.fixture
def grain(tmp_path) -> Path:
    return tmp_path / "library" / "grain [b].safetensors"


async def at(desk, path: Path) -> None:
    """Bring the cursor to a file."""
    desk.panel.go_to(str(path))
    await desk.until(lambda: desk.panel.copied()[0] == str(path), f"the cursor on {path.name}")


async def typed(desk, text: str) -> None:
    """Replace what the dialog's line holds, and take it."""
    field = desk.app.screen.query_one("Input")
    field.value = text
    await desk.press("enter")


# --- the blend


async def test_space_and_plus_and_minus_make_a_blend_whose_outlook_is_told(open_desk, library, cat, grain):
    async with open_desk(settings=library, panel="adapters") as desk:
        await at(desk, cat)
        assert "blend is empty" in desk.panel.why_not("save")
        assert "space puts it in" in desk.panel.why_not("heavier")
        await desk.press("space", "minus", "minus")
        await desk.sees("+0.90", "rank 4", "blend of 1")
        await at(desk, grain)
        await desk.press("space", "plus")
        await desk.sees("+1.05", "grain [b]", "→ rank 12")
        await desk.press("equals_sign")
        await desk.sees("Weight of grain")
        await typed(desk, "lots")
        await desk.sees("a number from -10 to 10")
        await typed(desk, "-0.3")
        await desk.sees("−0.30")
        assert desk.panel.blend.uses()[1] == {"path": str(grain), "weight": -0.3}
        await desk.press("space")
        await desk.sees("→ rank 4")
        await desk.press("C")
        await desk.no_longer_sees("rank 4")


async def test_adapters_of_two_families_do_not_blend(open_desk, library, cat, tmp_path):
    other = adapter(tmp_path / "library" / "xl.safetensors", 4, 3, "sdxl_base_v1-0")
    async with open_desk(settings=library, panel="adapters") as desk:
        for path in (cat, other):
            await at(desk, path)
            await desk.press("space")
        await desk.sees("sd1 and sdxl do not go together")
        assert "do not go together" in desk.panel.why_not("save") == desk.panel.why_not("merge")


async def test_the_blend_is_found_again_at_the_next_start(open_desk, library, cat):
    async with open_desk(settings=library, panel="adapters") as desk:
        await at(desk, cat)
        await desk.press("space", "plus")
        await desk.sees("+1.05")
        desk.app.remember()
    async with open_desk(settings=library) as desk:
        await desk.press("5")
        await desk.sees("+1.05", "→ rank 4")


async def test_a_saved_blend_is_the_weighted_sum_and_the_cursor_goes_to_it(open_desk, library, cat, grain, record):
    home = record.project("my-cat") / "adapters"
    async with open_desk(settings=library, panel="adapters") as desk:
        desk.app.open_project("my-cat")
        for path, weight in ((cat, 0.7), (grain, -0.3)):
            await at(desk, path)
            await desk.press("space")
            desk.panel.blend.weigh(str(path), weight)
        await desk.press("B")
        await desk.sees("Save the blend", "rank 12")
        assert desk.app.screen.query_one("Input").value.startswith(f"{home}/")
        await typed(desk, str(home / "sum.safetensors"))
        await desk.sees("Rank or energy", "exact, rank 12")
        await typed(desk, "-3")
        await desk.sees("a rank from 1 to 4096")
        await typed(desk, "")
        out = home / "sum.safetensors"
        await desk.until(lambda: desk.panel.copied()[0] == str(out), "the cursor on the new file")
        await desk.sees("✓ sum", "2 layers, r12")
    for layer in ("to_q", "to_k"):
        expected = 0.7 * delta(cat, layer) - 0.3 * delta(grain, layer)
        np.testing.assert_allclose(delta(out, layer), expected, atol=1e-4)


async def test_a_blend_at_a_rank_overwrites_after_a_question_alone(open_desk, library, cat, tmp_path):
    out = tmp_path / "library" / "taken.safetensors"
    shutil.copy(cat, out)
    async with open_desk(settings=library, panel="adapters") as desk:
        await at(desk, cat)
        await desk.press("space", "B")
        await desk.sees("Save the blend")
        await typed(desk, str(out))
        await desk.sees("Overwrite this file?", "taken.safetensors")
        await desk.press("n")
        await desk.no_longer_sees("Overwrite")
        assert not desk.panel.tasks.last and out.read_bytes() == cat.read_bytes()
        await desk.press("B")
        await desk.sees("Save the blend")
        await typed(desk, str(out))
        await desk.sees("Overwrite this file?")
        await desk.press("y")
        await desk.sees("Rank or energy")
        await typed(desk, "2")
        await desk.sees("✓ taken", "r2", "error up to")
    assert load_file(out)[f"{BLOCK}_to_q.lora_down.weight"].shape == (2, 64)


# --- other operations


async def test_two_files_are_compared_layer_by_layer(open_desk, library, cat, grain):
    async with open_desk(settings=library, panel="adapters") as desk:
        for path in (cat, grain):
            await at(desk, path)
            await desk.press("space")
        await desk.press("v")
        await desk.until(lambda: isinstance(desk.app.screen, Comparison), "the comparison")
        first, second = (
            np.concatenate([delta(path, layer).ravel() for layer in ("to_q", "to_k")]) for path in (cat, grain)
        )
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        await desk.sees(f"cosine {cosine:+.3f}", "2 layers", "attn1.to_q")
        await desk.press("escape")
        await desk.no_longer_sees("2 layers, the farthest first")


async def test_a_file_is_compared_with_one_that_is_chosen(open_desk, library, cat):
    async with open_desk(settings=library, panel="adapters") as desk:
        await at(desk, cat)
        await desk.press("v")
        await desk.sees("Compare cat.safetensors with", "grain [b].safetensors")
        await desk.press("enter")
        await desk.until(lambda: isinstance(desk.app.screen, Comparison), "the comparison")


async def test_a_file_goes_to_another_format_and_back_unchanged(open_desk, library, cat, tmp_path):
    folder = tmp_path / "library"
    async with open_desk(settings=library, panel="adapters") as desk:
        for source, to in ((cat, "peft"), (folder / "cat-peft.safetensors", "kohya")):
            await at(desk, source)
            await desk.press("c")
            await desk.sees("Convert cat", "the first programs")
            await typed_choice(desk, to)
            await desk.sees(f"Convert to {to}")
            made = folder / f"{source.stem}-{to}.safetensors"
            await typed(desk, str(made))
            await desk.until(lambda made=made: desk.panel.copied()[0] == str(made), "the cursor on the new file")
    back = folder / "cat-peft-kohya.safetensors"
    for layer in ("to_q", "to_k"):
        np.testing.assert_array_equal(delta(back, layer), delta(cat, layer))


async def typed_choice(desk, letters: str) -> None:
    desk.app.screen.query_one("Input").value = letters
    await desk.pilot.pause()
    await desk.until(lambda: desk.app.screen._found[0].value == letters, f"{letters} on top")
    await desk.press("enter")


async def test_extract_and_merge_ask_for_their_models_and_start_a_job(open_desk, library, cat, tmp_path):
    tuned, base = tmp_path / "tuned.safetensors", tmp_path / "base.safetensors"
    for path in (tuned, base):
        save_file({"a": np.zeros(2, np.float32)}, path)
    async with open_desk(settings=library, panel="adapters") as desk:
        await at(desk, cat)
        await desk.press("x")
        await desk.sees("Extract from which model?", "ΔW = tuned − base")
        await typed(desk, str(tmp_path / "nothing.safetensors"))
        await desk.sees("there is nothing of that name")
        await typed(desk, str(tuned))
        await desk.sees("Tuned from which base?")
        await typed(desk, str(base))
        await desk.sees("Write the adapter to")
        await desk.press("enter")
        await desk.sees("Rank or energy")
        await desk.press("enter")
        await desk.until(lambda: desk.panel.tasks.last.state == "refused", "what it says of files that are no models")
        assert "✗ tuned-extracted" in desk.text() and str(tmp_path) in desk.said()
        await desk.press("m")
        await desk.sees("Merge into which base?", "cat.safetensors at 1")
        await typed(desk, str(base))
        await desk.sees("Write the merged model to", "A .safetensors file")
        await desk.press("enter")
        await desk.until(lambda: desk.panel.tasks.last.name == "base-cat", "the second job")
        await desk.until(lambda: desk.panel.tasks.last.state == "refused", "what it says of a file that is no model")


# --- jobs that go on


async def test_a_job_left_from_before_is_followed_with_its_progress_and_can_be_stopped(open_desk, record):
    said = [
        protocol.Stage(t=NOW - 8, name="compose", total=96, unit="layers"),
        protocol.Progress(t=NOW, stage="compose", done=24, total=96),
    ]
    identity = record.operation("my-cat", "warm [/foo]", *said)
    async with open_desk(panel="adapters") as desk:
        desk.app.open_project("my-cat")
        await desk.sees("● warm [/foo]", "composing layers", "24/96", "24 s left")
        await desk.press("X")
        await desk.sees("Stop warm [/foo]?", "nothing is written")
        await desk.press("y")
        control = record.workspace / "projects" / "my-cat" / "runs" / identity / protocol.CONTROL
        await desk.until(lambda: b'"stop"' in control.read_bytes(), "the command")
        record.append(identity, protocol.End(t=NOW, state="stopped", code=130))
        await desk.sees("■ warm [/foo]", "nothing was written")


async def test_a_job_without_steps_is_told_in_the_monitor_and_in_projects(open_desk, record):
    said = [
        protocol.Stage(t=NOW - 8, name="compose", total=96, unit="layers"),
        protocol.Progress(t=NOW, stage="compose", done=24, total=96),
    ]
    identity = record.operation("my-cat", "warm", *said)
    async with open_desk(panel="adapters") as desk:
        desk.app.open_project("my-cat")
        await desk.sees("24/96")
        await desk.press("o")
        await desk.sees("composing layers", "24/96", "● running")
        assert "step" not in desk.text()
        layers = [LayerReport(part="unet", path="a", rank=12)]
        answer = msgspec.json.encode(Composed(out="/a/warm.safetensors", bytes=2048, layers=layers))
        record.append(
            identity,
            protocol.Answer(t=NOW, operation="compose", result=msgspec.Raw(answer)),
            protocol.End(t=NOW, state="done", code=0, outputs=["/a/warm.safetensors"]),
        )
        await desk.sees("1 layers, r12", "/a/warm.safetensors")
        await desk.press("5")
        await desk.sees("✓ warm", "1 layers, r12")


@pytest.mark.parametrize("size", [(60, 20), (200, 50)], ids=["60x20", "200x50"])
async def test_blend_and_jobs_fit_on_small_and_large_screens(open_desk, library, cat, grain, record, size):
    record.operation("my-cat", "warm [/foo]", protocol.Stage(t=NOW, name="read"))
    async with open_desk(size=size, settings=library, panel="adapters") as desk:
        desk.app.open_project("my-cat")
        for path in (cat, grain):
            await at(desk, path)
            await desk.press("space")
        await desk.sees("● warm [/foo]", "reading the adapters", "blend of 2: rank 12", "+1.00")
        if size[0] < 100:
            await desk.press("tab")
        await desk.sees("→ rank 12", "grain [b]")


# --- words


def test_answers_are_told_in_a_line():
    layers = [LayerReport(part="unet", path=name, rank=rank, error=0.02) for name, rank in (("a", 4), ("b", 8))]
    told = answers.in_a_line(Composed(out="/x", bytes=2048, layers=layers))
    assert told == "2 layers, r4–8, 2 kB, error up to 2.00%"
    layer = LayerDifference(part="unet", path="a", first=1.0, second=0.0, distance=1.0)
    difference = Difference(first=1.0, second=0.0, distance=1.0, cosine=None, layers=[layer])
    assert answers.in_a_line(difference) == "cosine –, distance 1"
    assert answers.in_a_line(None) == ""
    assert answers.decoded(protocol.Answer(operation="not-yet", result=msgspec.Raw(b"{}"))) is None
    assert answers.decoded(protocol.Answer(operation="diff", result=msgspec.Raw(b"{}"))) is None


async def test_a_failed_job_is_told_in_its_colour_and_its_problems_in_full(open_desk, record):
    identity = record.operation("my-cat", "warm", protocol.Stage(t=NOW, name="read"))
    async with open_desk(panel="adapters") as desk:
        desk.app.open_project("my-cat")
        await desk.sees("● warm")
        refused = protocol.Refused(t=NOW, where="/a [/foo]", expected="an adapter", found="a cake", advice="eat it")
        record.append(identity, refused, protocol.End(t=NOW, state="refused", code=2, cause="no"))
        await desk.sees("✗ warm", "/a [/foo]")
        assert "a cake" in desk.said() and "eat it" in desk.said()
        line = desk.panel.query_one("#tasks").line(0)
        wanted = theme_style(desk.panel, "state-refused").color.get_truecolor()
        assert next(iter(line)).style.color.get_truecolor() == wanted
