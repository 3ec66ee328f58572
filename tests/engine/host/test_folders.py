"""Folders of any size and in any condition are listed, a page at a time, as training would see them."""

from __future__ import annotations

import os
import time

import pytest
from PIL import Image

from engine.formats.container import TensorInfo, pack_header
from engine.host import folders
from engine.protocol.messages import FolderRef


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    for name in ("_listings", "_metadata", "_headers", "_pictures"):
        monkeypatch.setattr(folders, name, folders.Kept(100))


def adapter(path, metadata=None, tensors=2):
    infos = {f"lora_unet_{number}": TensorInfo("F32", (4,)) for number in range(tensors)}
    path.write_bytes(pack_header(infos, metadata or {}) + bytes(16 * tensors))


def picture(path, size=(40, 30), **options):
    Image.new("RGB", size, "red").save(path, **options)


def old(path):
    """Let a folder look as if nobody had touched it for an hour, so that its listing can be kept."""
    os.utime(path, (time.time() - 3600,) * 2)


def listed(path, **page):
    return folders.images(FolderRef(path=str(path), **page))


def test_adapters_are_listed_by_their_headers_in_natural_order(tmp_path):
    for number in (10, 9, 1):
        adapter(tmp_path / f"cat-{number}.safetensors", {"ss_network_dim": str(number)}, tensors=number)
    (tmp_path / ".hidden.safetensors").touch()
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "other.txt").touch()
    found = folders.adapters(FolderRef(path=str(tmp_path)))
    assert found.total == 3
    assert [one.tensors for one in found.adapters] == [1, 9, 10]
    first = found.adapters[0]
    file = (tmp_path / "cat-1.safetensors").stat()
    assert (first.path, first.bytes, first.modified) == (
        str(tmp_path / "cat-1.safetensors"),
        file.st_size,
        file.st_mtime,
    )
    assert first.metadata == {"ss_network_dim": "1"}


def test_what_is_wrong_with_one_adapter_is_said_of_it(tmp_path):
    adapter(tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(whole[:-1])
    (tmp_path / "c.safetensors").write_bytes(b"")
    (tmp_path / "d.safetensors").symlink_to("nowhere")
    os.mkfifo(tmp_path / "e.safetensors")
    (tmp_path / "f.safetensors").write_bytes(b"\x80\x02}")
    problems = [one.problem for one in folders.adapters(FolderRef(path=str(tmp_path))).adapters]
    assert problems[0] == ""
    for problem, word in zip(
        problems[1:], ("cut short", "empty", "no such file", "no regular file", "pickle"), strict=True
    ):
        assert word in problem
    assert str(tmp_path) not in problems[1]


def test_long_metadata_is_cut_in_a_list(tmp_path):
    adapter(tmp_path / "a.safetensors", {"ss_tag_frequency": "x" * 500_000, "short": "y"})
    metadata = folders.adapters(FolderRef(path=str(tmp_path))).adapters[0].metadata
    assert metadata == {"ss_tag_frequency": "x" * (folders.LONGEST_VALUE - 1) + "…", "short": "y"}


def test_an_adapter_that_is_written_again_is_read_again(tmp_path):
    path = tmp_path / "a.safetensors"
    adapter(path, {"version": "1"})
    old(tmp_path)
    assert folders.adapters(FolderRef(path=str(tmp_path))).adapters[0].metadata == {"version": "1"}
    adapter(path, {"version": "2"})
    assert folders.adapters(FolderRef(path=str(tmp_path))).adapters[0].metadata == {"version": "2"}
