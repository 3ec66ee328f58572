"""Files that are damaged, hostile or for something else: every operation refuses them in words and leaves no trace."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine import operate as process
from engine import protocol

STEM = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
GOOD = {f"{STEM}.lora_down.weight": torch.ones(2, 64), f"{STEM}.lora_up.weight": torch.ones(64, 2)}


class Harm:
    """Pickles as a call that would leave a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def cut(path: Path) -> None:
    save_file(GOOD, path)
    path.write_bytes(path.read_bytes()[:-100])


def not_a_number(path: Path) -> None:
    save_file(GOOD | {f"{STEM}.lora_up.weight": torch.full((64, 2), torch.nan)}, path)


def of_two_ranks(path: Path) -> None:
    save_file(GOOD | {f"{STEM}.lora_up.weight": torch.ones(64, 3)}, path)


def terabytes(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1 << 40, 4], "data_offsets": [0, 16 << 40]}
    header = json.dumps({f"{STEM}.lora_down.weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def token_twice(path: Path) -> None:
    entry = '"<s1>":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f"{{{entry},{entry}}}".encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def hostile(path: Path) -> None:
    torch.save([Harm(path.parent / "harm")], path)


BAD = (cut, not_a_number, of_two_ranks, terabytes, token_twice, hostile)


def requests(folder: Path, bad: str) -> dict[str, dict]:
    """A request of each operation that reads adapters, with this one among them."""
    good, out = str(folder / "good.safetensors"), str(folder / "out.safetensors")
    uses = [{"path": good}, {"path": bad}]
    return {
        "inspect": {"path": bad},
        "convert": {"path": bad, "out": out},
        "compose": {"adapters": uses, "out": out},
        "interpolate": {"first": good, "second": bad, "out": str(folder / "line")},
        "resize": {"path": bad, "out": out, "rank": 1},
        "diff": {"first": good, "second": bad},
        "merge": {"base": "tiny", "adapters": uses, "out": str(folder / "merged")},
    }


def state(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def refused(name: str, request: dict, folder: Path) -> str:
    """What an operation says that ends with 2 and leaves everything as it was."""
    before, events = state(folder), []
    assert process.operate(name, json.dumps(request).encode(), events.append) == protocol.REFUSED
    assert state(folder) == before
    problems = [event for event in events if isinstance(event, protocol.Refused)]
    assert problems and all(problem.expected and problem.found and problem.advice for problem in problems)
    return " ".join(problem.text() for problem in problems)


@pytest.mark.parametrize("name", requests(Path(), ""))
@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_file_is_refused_by_name_and_nothing_is_left(tmp_path, name, make):
    save_file(GOOD, tmp_path / "good.safetensors")
    bad = tmp_path / ("bad.pt" if make is hostile else "bad.safetensors")
    make(bad)
    assert bad.name in refused(name, requests(tmp_path, str(bad))[name], tmp_path)


@pytest.mark.parametrize("make", [cut, terabytes, token_twice, hostile], ids=lambda make: make.__name__)
def test_metadata_of_a_bad_file_is_not_edited(tmp_path, make):
    bad = tmp_path / "bad.safetensors"
    make(bad)
    request = {"path": str(bad), "set": ["title=x"], "force": True}
    assert bad.name in refused("edit_metadata", request, tmp_path)


@pytest.mark.parametrize("name", ["compose", "interpolate", "diff", "merge"])
def test_adapters_of_other_bases_are_refused_together(tmp_path, name):
    """One for the tiny base, one for SD1: the same layers in other sizes."""
    save_file(GOOD, tmp_path / "good.safetensors")
    other = {f"{STEM}.lora_down.weight": torch.ones(2, 1280), f"{STEM}.lora_up.weight": torch.ones(1280, 2)}
    save_file(other, tmp_path / "other.safetensors")
    said = refused(name, requests(tmp_path, str(tmp_path / "other.safetensors"))[name], tmp_path)
    assert "mid_block" in said or "family" in said
