"""Class images that the base draws for itself: what decides them, and that work done is kept."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
import torch
from PIL import Image

from engine.config import Prior
from engine.training import prior

SETTINGS = Prior(weight=1.0, images=6, prompt="a cat on a red background", steps=2, guidance_scale=3.0)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path))


def draw(family, settings=SETTINGS, seed=1, tick=lambda: None):
    told = []
    return prior.draw_missing(family, settings, 64, 1, seed, told.append, tick), told


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_all_are_drawn_once_as_different_pictures_of_the_prompt(tiny):
    folder, told = draw(tiny)
    found = digests(folder)
    assert sorted(found) == [f"{number:05d}.png" for number in range(6)]
    assert len(set(found.values())) == 6 and told == [4, 6]
    assert Image.open(folder / "00000.png").size == (64, 64)
    items = prior.items(folder, SETTINGS, 64)
    assert [item.sha256 for item in items] == [found[name] for name in sorted(found)]
    assert {(item.caption, item.is_reg, item.bucket) for item in items} == {(SETTINGS.prompt, True, (64, 64))}


def test_what_was_drawn_is_kept_and_only_what_is_missing_is_drawn_to_the_same_bits(tiny):
    folder, _ = draw(tiny)
    before = digests(folder)
    steps = []
    draw(tiny, tick=lambda: steps.append(1))
    assert not steps
    (folder / "00005.png").unlink()
    draw(tiny, tick=lambda: steps.append(1))
    assert digests(folder) == before and len(steps) == 2  # the second batch alone


def test_drawing_can_be_ended_and_goes_on_to_the_same_bits(tiny):
    class Enough(Exception):
        pass

    whole = digests(draw(tiny)[0])
    for path in draw(tiny)[0].iterdir():
        path.unlink()
    calls = []

    def tick():
        calls.append(1)
        if len(calls) == 4:
            raise Enough

    with pytest.raises(Enough):
        draw(tiny, tick=tick)
    folder = prior.folder(tiny, SETTINGS, 64, 1, 1)
    assert sorted(path.name for path in folder.iterdir()) == [f"{number:05d}.png" for number in range(4)]
    assert digests(draw(tiny)[0]) == whole


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "a dog"},
        {"images": 7},
        {"steps": 3},
        {"guidance_scale": 1.0},
    ],
)
def test_every_setting_that_decides_them_has_a_folder_of_its_own(tiny, changed):
    here = prior.folder(tiny, SETTINGS, 64, 1, 1)
    assert prior.folder(tiny, msgspec.structs.replace(SETTINGS, **changed), 64, 1, 1) != here
    assert prior.folder(tiny, SETTINGS, 128, 1, 1) != here != prior.folder(tiny, SETTINGS, 64, 2, 1)
    assert prior.folder(tiny, SETTINGS, 64, 1, 2) != here
    assert prior.folder(tiny, msgspec.structs.replace(SETTINGS, weight=0.5), 64, 1, 1) == here


def test_they_are_drawn_by_the_bare_base_without_touching_torchs_generator(tiny):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    draw(tiny)
    assert torch.equal(torch.get_rng_state(), state)
