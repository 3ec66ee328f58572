"""An adapter in several files is one adapter, and files that only look like its parts are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from engine.errors import UserError
from engine.formats.companions import read_whole
from engine.formats.reading import read_adapter

FILES = Path(__file__).parents[2] / "fixtures" / "cloneofsimo"


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """A UNet and a text encoder of SD2 that were made for each other, and a token of its width."""
    shutil.copyfile(FILES / "lora_illust.pt", tmp_path / "cat.pt")
    shutil.copyfile(FILES / "lora_kiriko.text_encoder.pt", tmp_path / "cat.text_encoder.pt")
    torch.save({"<cat>": torch.ones(1024)}, tmp_path / "cat.ti.pt")
    return tmp_path / "cat.pt"


def test_the_files_beside_an_adapter_come_along(cat):
    whole = read_whole(cat)
    assert {part: len(modules) for part, modules in whole.parts.items()} == {"unet": 128, "text_encoder": 92}
    assert whole.tokens["<cat>"]["text_encoder"].shape == (1, 1024) and whole.family == "sd2"
    assert whole.notices == ("cat.text_encoder.pt is a part of it", "cat.ti.pt is a part of it")
    (first, *_) = read_adapter(cat.with_name("cat.text_encoder.pt")).parts["text_encoder"].items()
    assert torch.equal(whole.parts["text_encoder"][first[0]].up, first[1].up)


def test_a_companion_that_is_named_itself_is_not_taken_twice(cat):
    text = cat.with_name("cat.text_encoder.pt")
    assert read_whole(cat, named=[cat, text]).parts.keys() == {"unet"}
    assert read_whole(text, named=[cat, text]).parts.keys() == {"text_encoder"}


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("cat.ti.pt", "lora_kiriko2.ti.pt", "one for sd1 beside cat.pt, which is for sd2"),
        ("cat.text_encoder.pt", "lora_illust.pt", "holds the same as another file: unet"),
    ],
)
def test_what_is_part_of_another_adapter_is_refused(cat, name, source, said):
    shutil.copyfile(FILES / source, cat.with_name(name))
    with pytest.raises(UserError, match=said) as refused:
        read_whole(cat)
    assert refused.value.problems[0].where == str(cat.with_name(name))


def test_all_that_is_wrong_with_the_files_is_told_at_once(cat):
    for file in cat.parent.iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError) as refused:
        read_whole(cat)
    assert [Path(problem.where).name for problem in refused.value.problems] == [
        "cat.pt",
        "cat.text_encoder.pt",
        "cat.ti.pt",
    ]
