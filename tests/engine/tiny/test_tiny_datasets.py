"""Data sets of unseen subjects and of a style: what ships, what is written, and that it is always the same."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.ruler import background
from engine import tiny
from engine.tiny import datasets
from engine.tiny.datasets import COLOURS, HELD_OUT, SUBJECTS, folder
from engine.tiny.drawings import Emoji

PACKAGE = os.environ.get("LORATUI_TWEMOJI", "")


def made_up(*names: str) -> Emoji:
    """Emoji of random opaque blocks with a transparent rim."""
    drawings = np.zeros((len(names), 64, 64, 4), np.uint8)
    drawings[:, 8:56, 8:56] = np.random.default_rng(0).integers(0, 256, (len(names), 6, 6, 4)).repeat(8, 1).repeat(8, 2)
    return Emoji(names, ("Objects",) * len(names), drawings)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", SUBJECTS)
def test_each_shipped_subject_has_four_captioned_pictures_on_the_colours_that_they_name(name):
    assert name in tiny.UNSEEN and SUBJECTS[name] not in tiny.UNSEEN
    assert sorted(path.name for path in folder(name).iterdir()) == sorted(
        f"{colour}.{suffix}" for colour in COLOURS for suffix in ("png", "txt")
    )
    for colour in COLOURS:
        with Image.open(folder(name) / f"{colour}.png") as image:
            assert (image.size, image.mode, background(image)) == ((64, 64), "RGB", colour)
        assert (folder(name) / f"{colour}.txt").read_text().strip() == f"a ohwx {name} on a {colour} background"


@pytest.mark.skipif(not PACKAGE, reason="LORATUI_TWEMOJI does not name emoji-datasource-twitter-16.0.0.tgz")
def test_the_shipped_subjects_are_written_again_to_the_byte(tmp_path):
    emoji = Emoji.read(Path(PACKAGE))
    for name in SUBJECTS:
        datasets.make_subject(emoji, name, tmp_path)
    shipped = contents(datasets.FOLDER)
    del shipped[datasets.ATTRIBUTION]
    assert contents(tmp_path) == shipped


def test_every_unseen_subject_is_written_on_all_colours_each_to_train_on_or_held_out(tmp_path):
    emoji = made_up(*tiny.UNSEEN)
    made = list(datasets.make_subjects(emoji, tmp_path))
    assert len(made) == 2 * len(tiny.UNSEEN)
    for part, colours in (("train", COLOURS), ("held_out", HELD_OUT)):
        for colour in colours:
            with Image.open(tmp_path / part / "alarm_clock" / f"{colour}.png") as image:
                assert image.tobytes() == emoji.on("alarm clock", colour).tobytes()
            words = (tmp_path / part / "alarm_clock" / f"{colour}.txt").read_text()
            assert words == f"a ohwx alarm clock on a {colour} background\n"
    files = contents(tmp_path)
    assert len(files) == 2 * len(tiny.UNSEEN) * len(tiny.COLOURS) + 1
    assert b"CC-BY 4.0" in files["ATTRIBUTION.md"]
    list(datasets.make_subjects(emoji, tmp_path))
    assert contents(tmp_path) == files


def test_a_style_is_learned_from_some_emoji_and_measured_with_others(tmp_path):
    learned = [f"thing {number}" for number in range(100)]
    noto = made_up(*learned[10:])
    list(datasets.make_style(noto, learned, tmp_path))
    stems = {part: {path.stem for path in (tmp_path / part).glob("*.png")} for part in ("train", "held_out")}
    assert {part: len(names) for part, names in stems.items()} == {"train": 24, "held_out": 24}
    assert not stems["train"] & stems["held_out"]
    captions = [path.read_text() for path in sorted((tmp_path / "train").glob("*.txt"))]
    assert captions[0] == f"a {sorted(stems['train'])[0].replace('_', ' ')} in noto style on a white background\n"
    assert b"Apache License 2.0" in (tmp_path / "ATTRIBUTION.md").read_bytes()
