"""Folders of any size and in any condition are listed, a page at a time, as training would see them."""

from __future__ import annotations

import json
import os
import time

import pytest
from PIL import Image

from engine.errors import UserError
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


def test_pictures_have_their_sizes_and_captions_with_their_sources(tmp_path):
    folder = tmp_path / "10_ohwx cat"
    folder.mkdir()
    for number in range(1, 5):
        picture(folder / f"{number}.png", (number * 10, 30))
    (folder / "1.txt").write_text("one\n")
    (folder / "2.caption").write_text("two")
    (folder / "metadata.jsonl").write_text('{"file_name": "3.png", "text": "three"}\n')
    found = listed(folder)
    assert found.total == 4
    assert [(one.caption, one.caption_source) for one in found.images] == [
        ("one", ".txt"), ("two", ".caption"), ("three", "metadata.jsonl"), ("ohwx cat", "folder name"),
    ]  # fmt: skip
    assert [(one.width, one.height) for one in found.images] == [(10, 30), (20, 30), (30, 30), (40, 30)]
    assert found.images[0].path == str(folder / "1.png")
    assert found.images[0].bytes == (folder / "1.png").stat().st_size


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 30)), (3, (40, 30)), (6, (30, 40)), (8, (30, 40))])
@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_a_picture_has_the_size_of_its_upright_view(tmp_path, suffix, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(tmp_path / f"a.{suffix}", exif=exif)
    found = listed(tmp_path).images[0]
    assert (found.width, found.height) == size


def test_a_picture_that_can_not_be_read_has_no_size_and_holds_nothing_up(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"text")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    (tmp_path / "d.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "e.png")
    (tmp_path / "f.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    (tmp_path / "f.eps").rename(tmp_path / "f.png")
    sizes = [(one.width, one.height) for one in listed(tmp_path).images]
    assert sizes == [(40, 30)] + [(0, 0)] * 5


def test_a_large_folder_is_read_once_and_then_by_the_page(tmp_path, monkeypatch):
    picture(tmp_path / "0.png")
    for number in range(1, 3000):
        os.link(tmp_path / "0.png", tmp_path / f"{number}.png")
    with (tmp_path / "metadata.jsonl").open("w") as file:
        for number in range(3000):
            file.write(json.dumps({"file_name": f"{number}.png", "text": f"words of {number}"}) + "\n")
    old(tmp_path)
    first = listed(tmp_path, offset=990, limit=20)
    assert (first.total, len(first.images), first.images[0].caption) == (3000, 20, "words of 990")

    monkeypatch.setattr(folders, "_names", lambda *_: pytest.fail("the folder has not changed"))
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("metadata.jsonl has not changed"))
    later = listed(tmp_path, offset=2990, limit=1000)
    assert [one.caption for one in later.images] == [f"words of {number}" for number in range(2990, 3000)]
    assert listed(tmp_path, offset=5000).images == []


def test_what_changes_in_a_folder_is_seen(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "before"}\n')
    old(tmp_path)
    assert listed(tmp_path).images[0].caption == "before"
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "afterwards"}\n')
    assert listed(tmp_path).images[0].caption == "afterwards"
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    old(tmp_path)
    assert listed(tmp_path).images[0].caption == ""
    (tmp_path / "b.png").rename(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("beside it")
    old(tmp_path)
    assert listed(tmp_path).images[0].caption == "beside it"
    (tmp_path / "a.txt").write_text("edited")
    assert listed(tmp_path).images[0].caption == "edited"
    picture(tmp_path / "a.png", (8, 9))
    assert (listed(tmp_path).images[0].width, listed(tmp_path).images[0].height) == (8, 9)


def test_a_folder_that_has_just_changed_is_looked_at_again(tmp_path):
    picture(tmp_path / "a.png")
    before = tmp_path.stat()
    assert listed(tmp_path).total == 1
    picture(tmp_path / "b.png")
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a clock too coarse to tell the two apart
    assert listed(tmp_path).total == 2


@pytest.mark.parametrize("page", [{"offset": -1}, {"limit": 0}, {"limit": -5}, {"limit": folders.MOST + 1}])
def test_a_page_that_makes_no_sense_is_refused(tmp_path, page):
    with pytest.raises(UserError, match="page: expected"):
        listed(tmp_path, **page)


@pytest.mark.parametrize(
    ("name", "found"),
    [("missing", "no such file"), ("file.txt", "a file"), ("a\0b", "null"), ("x" * 5000, "too long")],
    ids=["missing", "file", "null", "long"],
)
def test_a_folder_that_is_none_is_refused(tmp_path, name, found):
    (tmp_path / "file.txt").touch()
    with pytest.raises(UserError, match=found):
        listed(f"{tmp_path}/{name}")
    with pytest.raises(UserError):
        listed("~nobody-of-this-name/pictures")


def test_a_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    picture(tmp_path / "a.png")
    assert listed("~").images[0].path == str(tmp_path / "a.png")
