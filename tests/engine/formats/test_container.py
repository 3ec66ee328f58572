from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from engine.errors import UserError
from engine.formats.container import TensorInfo, pack_header, read_header

TENSORS = {
    "b.weight": torch.zeros(2, 3, dtype=torch.float16),
    "a.weight": torch.zeros(5, dtype=torch.float16),
    "z.alpha": torch.tensor(1.5),
}
LAYOUT = {"b.weight": TensorInfo("F16", (2, 3)), "a.weight": TensorInfo("F16", (5,)), "z.alpha": TensorInfo("F32", ())}


def raw_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@given(st.dictionaries(st.text(), st.text(), max_size=1))
def test_a_packed_header_equals_that_of_the_safetensors_library(metadata: dict[str, str]):
    theirs = save(TENSORS, metadata)
    assert pack_header(LAYOUT, metadata) == theirs[: 8 + struct.unpack("<Q", theirs[:8])[0]]


def test_the_order_of_the_metadata_does_not_change_a_header():
    forward = {str(number): "x" for number in range(20)}
    backward = dict(reversed(forward.items()))
    assert pack_header(LAYOUT, forward) == pack_header(LAYOUT, backward)


def test_a_header_is_read_as_the_library_wrote_it(tmp_path: Path):
    save_file(TENSORS, tmp_path / "file.safetensors", {"ss_seed": "42"})
    header = read_header(tmp_path / "file.safetensors")
    assert header.metadata == {"ss_seed": "42"}
    assert header.tensors == LAYOUT


def entry(shape: object = (2,), dtype: object = "F32", offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"{not json", b"", "no JSON"),
        (b'{"a": ' + b"[" * 100_000, b"", "no JSON"),
        ({"__metadata__": {"a": 1}}, b"", "metadata that is not a table of texts"),
        ({"a": entry(dtype="F99")}, bytes(8), "in place of dtype, shape and offsets"),
        ({"a": entry(shape=[-2])}, bytes(8), "in place of dtype, shape and offsets"),
        ({"a": [1, 2]}, bytes(8), "in place of dtype, shape and offsets"),
        ({"a": entry(shape=[3])}, bytes(8), "8 bytes for a tensor of 12"),
        ({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12), "begins at byte 4, not 8"),
        ({"a": entry(offsets=[4, 12])}, bytes(12), "begins at byte 4, not 0"),
        ({"a": entry()}, bytes(20), "12 bytes behind the last tensor"),
        ({"a": entry()}, bytes(5), "the file was cut short"),
    ],
)
def test_a_damaged_file_is_refused_by_what_is_wrong_with_it(tmp_path: Path, header: object, data: bytes, words: str):
    path = raw_file(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(UserError, match=words) as caught:
        read_header(path)
    assert caught.value.problems[0].where == str(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"abc", "3 bytes of something else"),
        (struct.pack("<Q", 2**63) + b"{}", "10 bytes of something else"),
        (b"PK\x03\x04 and the rest of a checkpoint", "as PyTorch writes"),
        (b"\x80\x02}q\x00X\x05\x00\x00\x00", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "stranger.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_header(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(UserError, match="No such file"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="name the file inside the folder"):
        read_header(tmp_path)
