"""Captions are written whole, and every edit can be taken back, whoever comes back to it."""

from __future__ import annotations

import itertools
import os
import stat
import threading

import pytest
from PIL import Image

from engine import files, locks
from engine.errors import UserError
from engine.host import edits, images, projects
from engine.protocol.browse import FolderRef, WriteCaption


@pytest.fixture
def folder(tmp_path, workspace):
    """A folder with a picture, and a project."""
    projects.create(workspace, "cats")
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder


@pytest.fixture
def write(workspace, folder):
    def write(text, expected="", name="a.png", project="cats"):
        return edits.write(
            workspace, WriteCaption(project=project, path=str(folder / name), text=text, expected=expected)
        )

    return write


@pytest.fixture
def undo(workspace):
    return lambda: edits.undo(workspace, "cats")


@pytest.fixture
def redo(workspace):
    return lambda: edits.redo(workspace, "cats")


@pytest.fixture
def history(workspace):
    return workspace / "projects" / "cats" / edits.HISTORY


def told(written):
    return written.caption, written.source, written.undo, written.redo


def test_a_caption_is_written_beside_its_image(folder, write):
    assert told(write("a cat, [best quality]")) == ("a cat, [best quality]", ".txt", 1, 0)
    assert (folder / "a.txt").read_bytes() == b"a cat, [best quality]\n"
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "a.txt"]
    assert images.images(FolderRef(path=str(folder))).images[0].caption == "a cat, [best quality]"


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("  a cat \n", "a cat"),
        ("a cat\r\nand a dog\n\n", "a cat and a dog"),
        ("a\u2028b\x0bc", "a b c"),
        ("\ufeffa cat", "a cat"),
        ("ein Kätzchen 🐙", "ein Kätzchen 🐙"),
        ("", ""),
        ("\n \n", ""),
    ],
)
def test_a_text_becomes_one_line_that_is_read_as_it_was_written(write, text, caption):
    assert write(text).caption == caption


def test_a_written_caption_goes_before_others_and_undo_lets_them_speak_again(folder, write, undo):
    (folder / "a.caption").write_text("from a tagger")
    assert told(write("mine", expected="from a tagger")) == ("mine", ".txt", 1, 0)
    assert told(undo()) == ("from a tagger", ".caption", 0, 1)
    assert not (folder / "a.txt").exists()


def test_undo_and_redo_go_through_all_edits(folder, write, undo, redo):
    Image.new("RGB", (8, 8)).save(folder / "b.png")
    (folder / "a.txt").write_bytes(b"first\r\nnotes\r\n")
    write("second", "first")
    write("other", name="b.png")
    write("third", "second")
    assert [told(undo()) for _ in range(3)] == [("second", ".txt", 2, 1), ("", "none", 1, 2), ("first", ".txt", 0, 3)]
    assert (folder / "a.txt").read_bytes() == b"first\r\nnotes\r\n"
    assert [told(redo()) for _ in range(3)] == [
        ("second", ".txt", 1, 2),
        ("other", ".txt", 2, 1),
        ("third", ".txt", 3, 0),
    ]
    with pytest.raises(UserError, match="expected an edit that was undone"):
        redo()


def test_an_edit_after_an_undo_ends_what_could_be_redone(write, undo, redo):
    write("one")
    write("two", "one")
    undo()
    assert told(write("three", "one")) == ("three", ".txt", 2, 0)
    with pytest.raises(UserError):
        redo()
    assert undo().caption == "one"


def test_nothing_is_undone_where_nothing_was_done(folder, undo):
    with pytest.raises(UserError, match="expected an edit that can be undone"):
        undo()


def test_a_text_that_is_there_already_is_no_edit(write):
    write("one")
    assert told(write("one", "one")) == ("one", ".txt", 1, 0)


@pytest.mark.parametrize("content", [b"\xff\xfeh\0i\0", "geschr\xe4nk".encode("cp1252"), b"", b"\xef\xbb\xbfa mark\n"])
def test_undo_brings_the_very_bytes_back(folder, write, undo, content):
    (folder / "a.txt").write_bytes(content)
    write("new", images.caption_of(folder / "a.png").text)
    undo()
    assert (folder / "a.txt").read_bytes() == content


def test_a_caption_that_has_changed_meanwhile_is_left_alone(folder, write):
    (folder / "a.txt").write_text("theirs")
    with pytest.raises(UserError, match="'mine'; found 'theirs'"):
        write("new", expected="mine")
    assert (folder / "a.txt").read_text() == "theirs"


def test_undo_leaves_alone_what_somebody_else_has_written_and_goes_on_behind_it(folder, write, undo, redo):
    Image.new("RGB", (8, 8)).save(folder / "b.png")
    write("mine", name="b.png")
    write("mine")
    (folder / "a.txt").write_text("theirs")
    with pytest.raises(UserError, match="expected 'mine'; found 'theirs'; it was changed since"):
        undo()
    assert (folder / "a.txt").read_text() == "theirs"
    assert told(undo()) == ("", "none", 0, 2)
    redo()
    with pytest.raises(UserError, match="expected no file; found 'theirs'"):
        redo()
    assert (folder / "a.txt").read_text() == "theirs"


def test_undo_says_that_the_file_is_gone(folder, write, undo):
    (folder / "a.txt").write_text("first")
    write("second", "first")
    (folder / "a.txt").unlink()
    with pytest.raises(UserError, match="expected 'second'; found no file"):
        undo()


def test_a_torn_line_of_the_history_is_passed_over(write, undo, redo, history):
    write("one")
    write("two", "one")
    whole = history.read_bytes()
    history.write_bytes(whole + b'{"type":"edit","t":1.0,"ima')
    assert told(undo()) == ("one", ".txt", 1, 1)
    assert told(redo()) == ("two", ".txt", 2, 0)
    history.write_bytes(b'\xff\xfe\n{"type":"standing","edits":-5}\n[]\n' + whole[:-1])
    assert told(undo()) == ("one", ".txt", 1, 1)


def test_a_kill_before_the_file_is_in_place_leaves_nothing_that_can_not_be_undone(
    folder, write, undo, history, monkeypatch
):
    write("one")
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write("two", "one")
    assert history.read_bytes().count(b"\n") == 2
    assert told(undo()) == ("one", ".txt", 1, 1)
    assert told(undo()) == ("", "none", 0, 2)


def test_a_disk_that_refuses_changes_nothing(folder, write, undo, history, monkeypatch):
    write("one")
    before = history.read_bytes()

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(UserError, match="a folder that can be written to; found read-only file system"):
            write("two", "one")
    assert ((folder / "a.txt").read_text(), history.read_bytes()) == ("one\n", before)
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "a.txt"]
    with monkeypatch.context() as patched:
        patched.setattr(files, "append_line", refuse)
        with pytest.raises(UserError, match="read-only"):
            write("two", "one")
    assert (folder / "a.txt").read_text() == "one\n"
    assert told(undo()) == ("", "none", 0, 1)


def test_a_linked_caption_file_is_replaced_and_not_what_it_leads_to(tmp_path, folder, write, undo, redo):
    (tmp_path / "shared.txt").write_text("shared")
    (folder / "a.txt").symlink_to("../shared.txt")
    assert write("mine", "shared").caption == "mine"
    assert (tmp_path / "shared.txt").read_text() == "shared"
    assert not (folder / "a.txt").is_symlink()
    assert undo().caption == "shared"
    assert os.readlink(folder / "a.txt") == "../shared.txt"
    assert redo().caption == "mine"
    assert (tmp_path / "shared.txt").read_text() == "shared"


def test_a_caption_file_keeps_its_permissions(folder, write):
    (folder / "a.txt").write_text("one")
    (folder / "a.txt").chmod(0o664)
    write("two", "one")
    assert stat.S_IMODE((folder / "a.txt").stat().st_mode) == 0o664


@pytest.mark.parametrize(
    "name",
    [
        "missing.png",
        "folder.png",
        "a.txt",
        "notes.md",
        "../images/a.png",
        ".hidden.png",
        "pipe.png",
        "gone/a.png",
        "a\0.png",
    ],
)
def test_only_images_that_are_there_have_captions(folder, write, history, name):
    (folder / "folder.png").mkdir()
    (folder / "a.txt").write_text("text")
    (folder / "notes.md").touch()
    (folder / ".hidden.png").touch()
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(UserError, match=r"expected (an|the whole path of an) image"):
        write("new", name=name)
    assert not history.exists()


def test_a_relative_path_and_a_strange_project_are_refused(workspace, folder, write):
    with pytest.raises(UserError, match="the whole path of an image"):
        edits.write(workspace, WriteCaption(project="cats", path="a.png", text="new"))
    for project in ("dogs", "../cats", ""):
        with pytest.raises(UserError, match="project"):
            write("new", project=project)


def test_what_is_no_caption_file_is_not_replaced(folder, write):
    (folder / "a.txt").write_bytes(b"x" * (edits.LONGEST + 1))
    with pytest.raises(UserError, match="a caption file of at most"):
        write("new")
    (folder / "a.txt").unlink()
    os.mkfifo(folder / "a.txt")
    with pytest.raises(UserError, match="something else"):
        write("new")
    with pytest.raises(UserError, match="a caption of at most"):
        write("x" * (edits.LONGEST + 1))


def test_a_history_stays_short_and_its_last_edits_can_be_undone(write, undo, history, monkeypatch):
    monkeypatch.setattr(edits, "KEPT", 5)
    for number in range(30):
        write(str(number), str(number - 1) if number else "")
    assert history.read_bytes().count(b"\n") <= 12
    done = [undo().caption for _ in range(5)]
    assert done == ["28", "27", "26", "25", "24"]


def test_a_history_of_long_captions_is_bounded_in_bytes(write, undo, history, monkeypatch):
    monkeypatch.setattr(edits, "LARGEST", 4000)
    texts = ["", *(f"{number} " + "x" * 400 for number in range(40))]
    for before, text in itertools.pairwise(texts):
        write(text, before)
    assert history.stat().st_size < 6000
    assert undo().caption == texts[-2]


def test_another_program_that_writes_captions_is_waited_for(folder, write, history, monkeypatch):
    monkeypatch.setattr(edits, "PATIENCE", 0.0)
    with locks.hold(history), pytest.raises(UserError, match="nobody else writes"):
        write("new")
    assert not (folder / "a.txt").exists()


def test_edits_at_the_same_time_are_all_there(workspace, folder, write, undo):
    for number in range(16):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    threads = [threading.Thread(target=write, args=(f"text {n}", "", f"{n}.png")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_text() for path in folder.glob("*.txt")) == sorted(f"text {n}\n" for n in range(16))
    for left in reversed(range(16)):
        assert undo().undo == left
    assert list(folder.glob("*.txt")) == []
