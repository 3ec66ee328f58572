"""Folders of pictures of any size and in any condition are listed, a page at a time, as training would see them."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
from PIL import Image

from engine.data.captions import read_captions
from engine.errors import UserError
from engine.host import images
from engine.host.kept import Kept
from engine.protocol.browse import FolderRef


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    for name in ("_listings", "_metadata", "_texts", "_found", "_sizes"):
        monkeypatch.setattr(images, name, Kept(100))


def picture(path, size=(40, 30), **options):
    Image.new("RGB", size, "red").save(path, **options)


def old(path):
    """Let a folder look as if nobody had touched it for an hour, so that its listing can be kept."""
    os.utime(path, (time.time() - 3600,) * 2)


def listed(path, **page):
    return images.images(FolderRef(path=str(path), **page))


def found(path, words):
    """The names that a search finds; its pages and its total agree."""
    whole = listed(path, find=words)
    assert whole.total == len(whole.images)
    return [Path(one.path).name for one in whole.images]


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

    monkeypatch.setattr(images, "_names", lambda *_: pytest.fail("the folder has not changed"))
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
    coarse = int(time.time()) * 1_000_000_000
    os.utime(tmp_path, ns=(coarse, coarse))
    assert listed(tmp_path).total == 1
    picture(tmp_path / "b.png")
    os.utime(tmp_path, ns=(coarse, coarse))  # a clock too coarse to tell the two apart
    assert listed(tmp_path).total == 2


@pytest.mark.parametrize("page", [{"offset": -1}, {"limit": 0}, {"limit": -5}, {"limit": images.MOST + 1}])
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


def test_a_pipe_in_place_of_a_caption_holds_nothing_up(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "a.caption").write_text("a cat")
    assert listed(tmp_path).images[0].caption == "a cat"
    assert found(tmp_path, "cat") == ["a.png"]


# ---- find


@pytest.fixture
def cats(tmp_path):
    """Five pictures with a caption each but the last: from .txt, .caption, metadata.jsonl, and none."""
    for name in ("sofa-1", "Sofa-2", "tree-1", "tree-2", "tree-10"):
        picture(tmp_path / f"{name}.png")
    (tmp_path / "sofa-1.txt").write_text("an ohwx cat, [best quality]\nnotes about a dog\n")
    (tmp_path / "Sofa-2.caption").write_text("An OHWX Cat asleep")
    (tmp_path / "tree-1.txt").write_text("  \n")
    (tmp_path / "tree-1.caption").write_text("a bird in a tree")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "tree-2.png", "text": "a cat in a tree"}\n')
    return tmp_path


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("sofa", ["sofa-1.png", "Sofa-2.png"]),
        ("ohwx", ["sofa-1.png", "Sofa-2.png"]),
        ("CAT", ["sofa-1.png", "Sofa-2.png", "tree-2.png"]),
        ("tree cat", ["tree-2.png"]),
        ("tree -cat", ["tree-1.png", "tree-10.png"]),
        ("-ohwx -bird", ["tree-2.png", "tree-10.png"]),
        ("[best", ["sofa-1.png"]),
        ("dog", []),
        ("-", ["sofa-1.png", "Sofa-2.png", "tree-1.png", "tree-2.png", "tree-10.png"]),
        ("  ", ["sofa-1.png", "Sofa-2.png", "tree-1.png", "tree-2.png", "tree-10.png"]),
    ],
)
def test_words_are_found_in_names_and_captions_whatever_the_case(cats, words, names):
    assert found(cats, words) == names


def test_the_class_tokens_of_a_folder_are_found(tmp_path):
    folder = tmp_path / "10_ohwx cat"
    folder.mkdir()
    picture(folder / "a.png")
    picture(folder / "b.png")
    (folder / "b.txt").write_text("a dog")
    assert found(folder, "ohwx") == ["a.png"]


def test_what_is_found_is_paged(tmp_path):
    for number in range(25):
        picture(tmp_path / f"{number}.png")
    page = listed(tmp_path, find="1", offset=10, limit=2)
    assert (page.total, [Path(one.path).name for one in page.images]) == (12, ["19.png", "21.png"])


def test_a_page_begins_at_a_picture_wherever_it_is(cats):
    whole = listed(cats, find="cat")
    last = whole.images[-1].path
    page = listed(cats, find="cat", at=last)
    assert (page.offset, page.total) == (len(whole.images) - 1, whole.total)
    assert [one.path for one in page.images] == [last]


@pytest.mark.parametrize("name", ["nothing.png", "../cats/nothing.png", "\0.png"])
def test_a_page_at_a_picture_that_is_not_listed_is_empty(cats, name):
    page = listed(cats, at=f"{cats}/{name}")
    assert page.images == [] and page.total > 0


def test_a_new_caption_is_found(cats):
    old(cats)
    assert found(cats, "dragon") == []
    (cats / "tree-10.txt").write_text("a dragon")
    old(cats / "metadata.jsonl")
    assert found(cats, "dragon") == ["tree-10.png"]
    (cats / "metadata.jsonl").write_text('{"file_name": "tree-2.png", "text": "two dragons"}\n')
    assert found(cats, "dragon") == ["tree-2.png", "tree-10.png"]


def test_captions_are_read_once_for_all_finds_in_an_untouched_folder(cats, monkeypatch):
    old(cats)
    assert found(cats, "ohwx") == ["sofa-1.png", "Sofa-2.png"]
    monkeypatch.setattr(images, "_first_line", lambda *_: pytest.fail("the folder has not changed"))
    assert found(cats, "bird") == ["tree-1.png"]


def test_a_page_reads_no_captions_but_its_own(cats, monkeypatch):
    opened, really = [], os.open
    monkeypatch.setattr(
        os, "open", lambda path, *given, **more: (opened.append(Path(path).name), really(path, *given, **more))[1]
    )
    listed(cats, limit=1)
    assert set(opened) == {"sofa-1.txt", "sofa-1.png", "metadata.jsonl"}


@pytest.mark.parametrize("slow", [1e-4, 0.0], ids=["quick", "slow"])
def test_what_is_searched_is_what_training_would_read(tmp_path, monkeypatch, slow):
    monkeypatch.setattr(images, "SLOW", slow)
    monkeypatch.setattr(images, "SAMPLE", 7)
    drawn = random.Random(20261123)
    contents = [
        b"", b"\n \n", b"one\ntwo", b"\xef\xbb\xbfwith a mark", "geschr\xe4nk".encode("cp1252"), b"\r\n  crlf \r\n",
        b"\xff\xfea\0", b"\x81\x8d", b"x" * 70_000 + b"\nend", b" " * 65_536 + b"late", "\u2028sep\u2028two".encode(),
        b"a\x1cb",
    ]  # fmt: skip
    for number in range(60):
        stem = drawn.choice(["a", "b.c", "ü", "u\u0308", "-d", "e "]) + str(number)
        (tmp_path / f"{stem}.png").touch()
        for suffix in (".txt", ".caption"):
            if drawn.random() < 0.6:
                (tmp_path / f"{stem}{suffix}").write_bytes(drawn.choice(contents))
    (tmp_path / "a99.png").touch()
    (tmp_path / "a99.txt").mkdir()
    (tmp_path / "a98.png").touch()
    (tmp_path / "a98.txt").symlink_to("nowhere")
    listing = images._listing(str(tmp_path))
    paths = tuple(tmp_path / name for name in listing.names)
    captions, _, _ = read_captions(images._folder(tmp_path, paths))
    assert images._searched(listing) == [f"{path.name}\n{captions[path].text}".casefold() for path in paths]


# ---- subsets


def test_subsets_stand_for_folders(tmp_path):
    for name in ("parent/10_ohwx cat", "parent/3_dog", "plain"):
        (tmp_path / name).mkdir(parents=True)
        picture(tmp_path / name / "a.png")
    picture(tmp_path / "plain" / "b.png")
    told = images.subsets(
        [{"path": str(tmp_path / "parent")}, {"path": str(tmp_path / "plain"), "repeats": 4, "is_reg": True}]
    )
    assert told.problems == []
    rows = [
        (one.subset, Path(one.path).name, one.images, one.repeats, one.class_tokens, one.is_reg) for one in told.folders
    ]
    assert rows == [
        (0, "3_dog", 1, 3, "dog", False), (0, "10_ohwx cat", 1, 10, "ohwx cat", False), (1, "plain", 2, 4, "", True),
    ]  # fmt: skip


def test_what_is_wrong_with_a_subset_is_said_of_its_field(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "good").mkdir()
    picture(tmp_path / "good" / "a.png")
    told = images.subsets(
        [
            {"path": str(tmp_path / "missing")},
            {"path": str(tmp_path / "good"), "repeats": 0},
            {},
            {"path": str(tmp_path / "good")},
            {"path": str(tmp_path / "empty")},
            {"path": "", "is_reg": "yes"},
        ]
    )
    assert [one.subset for one in told.folders] == [3]
    fields = ["[0].path", "[1].repeats", "[2].path", "[4].path", "[5].path", "[5].is_reg"]
    assert [problem.field for problem in told.problems] == [f"dataset.subsets{field}" for field in fields]
