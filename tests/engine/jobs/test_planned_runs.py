"""What was planned of a run is what the run says, and what it leaves on the disk."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from PIL import Image

from engine import protocol
from engine.host.plans import run_plan
from engine.protocol.browse import RunPlan
from engine.training import disk


@pytest.fixture(autouse=True)
def own_workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path))


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures in several shapes, a copy among them, and one of class images."""

    def save(folder: Path, count: int) -> dict:
        folder.mkdir()
        for number in range(count):
            size = [(64, 64), (100, 50), (50, 90)][number % 3]
            Image.effect_noise(size, 60 + number).convert("RGB").save(folder / f"{number}.png")
        return {"path": str(folder)}

    own = save(tmp_path / "3_ohwx cat", 23) | {"flip": True, "crops": 2}
    (tmp_path / "3_ohwx cat" / "copy.png").write_bytes((tmp_path / "3_ohwx cat" / "2.png").read_bytes())
    return [own, save(tmp_path / "reg", 2) | {"is_reg": True}]


def planned(run) -> RunPlan:
    return run_plan(protocol.workspace(), tomllib.loads((run.directory / protocol.CONFIG).read_text()))


LENGTHS = [{"steps": 50}, {"steps": 0, "epochs": 3}]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dataset", [{}, {"hold_out": 0.0, "buckets": False}, {"resolution": "auto"}])
def test_a_dry_run_says_what_was_planned(submit, pictures, tmp_path, length, dataset):
    asked = {"dataset": {"subsets": pictures, "hold_out": 0.3, **dataset}, "training": {"batch": 4, **length}}
    run = submit(tmp_path / "job", asked)
    assert run.start(dry_run=True) == protocol.DONE
    [made] = run.events(protocol.PlanMade)
    told = planned(run)
    assert told.problems == []
    assert (told.text, told.steps, told.epochs) == (made.text, made.steps, made.epochs)
    assert (told.images, told.class_images) == (made.images, made.class_images)


def test_a_run_leaves_what_was_planned(submit, pictures, tmp_path):
    changes = {
        "dataset": {"subsets": pictures, "hold_out": 0.3},
        "training": {"steps": 5, "batch": 2, "accumulate": 1, "validate_every": 0},
        "sampling": {"prompts": ["ohwx cat", "a dog --w 32 --h 64"], "every": 2, "steps": 1},
        "saving": {"every": 2},
    }
    run = submit(tmp_path / "job", changes)
    told = planned(run)
    assert run.start() == protocol.DONE
    adapters = [*run.directory.glob("*.safetensors"), *run.checkpoints.glob("*.safetensors")]
    assert len(adapters) == told.adapters
    assert adapters[0].stat().st_size == pytest.approx(told.adapter_bytes, rel=0.05)
    states = list(run.checkpoints.glob("*.state"))
    assert len(states) == told.states
    assert sum(file.stat().st_size for file in states[0].iterdir()) == pytest.approx(told.state_bytes, rel=0.02)
    assert len(list((run.directory / protocol.SAMPLES).glob("*.png"))) == told.samples
    latents = sum(file.stat().st_size for file in (tmp_path / "cache" / "latents").rglob("*.safetensors"))
    drawn = 4 * (32 * 32 + 32 * 64) * disk.PIXEL
    files = told.adapters * told.adapter_bytes + told.states * told.state_bytes
    assert latents == pytest.approx(told.disk_bytes - files - drawn, rel=0.1)
