"""The generation job: pictures that depend on nothing but their request."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from engine import files, protocol
from engine.config import Request, to_toml

SETTINGS = {
    "kind": "generate",
    "model": {"base": "tiny"},
    "picture": {"prompt": "a cat", "out": "cat.png", "steps": 2, "width": 32, "height": 32, "seed": 5},
    "runtime": {"threads": 1, "precision": "fp32", "device": "cpu"},
}


@pytest.fixture
def generate(tmp_path, workspace, undisturbed):
    """Write a generation job: `generate("name", {"picture": {"count": 2}})`."""

    def write(name: str, *changes: dict):
        request = Request()
        for table in (SETTINGS, {"picture": {"out": str(tmp_path / name / "cat.png")}}, *changes):
            request.lay(table, "test")
        run = type(undisturbed.run)(tmp_path / name)
        run.directory.mkdir()
        (run.directory / protocol.CONFIG).write_text(to_toml(request.checked()))
        return run

    return write


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_picture_does_not_depend_on_how_many_were_asked_for(generate):
    several, one = generate("several", {"picture": {"count": 2}}), generate("one", {"picture": {"seed": 6}})
    assert (several.start(), one.start()) == (protocol.DONE, protocol.DONE)
    assert several.end.outputs == [str(several.directory / f"cat-000{number}.png") for number in (1, 2)]
    first, second = map(pixels, several.end.outputs)
    assert np.array_equal(second, pixels(one.directory / "cat.png"))
    assert not np.array_equal(first, second)


def test_everything_that_is_wrong_with_a_request_is_told_at_once(generate, tmp_path):
    for name in ("no.safetensors", "empty.safetensors"):
        (tmp_path / name).write_text("" if name.startswith("empty") else "no adapter")
    uses = [{"path": str(tmp_path / name)} for name in ("no.safetensors", "empty.safetensors")]
    adapters = generate("adapters", {"adapters": uses})
    assert adapters.start() == protocol.REFUSED
    assert [event.where for event in adapters.events(protocol.Refused)] == [use["path"] for use in uses]
    sizes = generate("sizes", {"picture": {"width": 33, "height": 35}})
    assert sizes.start() == protocol.REFUSED
    assert [event.field for event in sizes.events(protocol.Refused)] == ["width", "height"]


def test_a_job_that_was_told_to_stop_draws_nothing(generate):
    run, stop = generate("stopped"), threading.Event()
    stop.set()
    assert run.start(stop=stop) == protocol.INTERRUPTED
    assert run.end.state == "stopped"
    assert not list(run.directory.glob("*.png"))


def test_a_full_disk_names_the_picture(generate, monkeypatch):
    run = generate("full")

    def full(path) -> None:
        if path.suffix == ".png":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    assert run.start() == protocol.FAILED
    assert run.end.cause == f"the disk is full: {run.directory / 'cat.png'}"
    assert not run.leftovers()
