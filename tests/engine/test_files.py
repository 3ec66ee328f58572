from __future__ import annotations

import errno
import os

import pytest

from engine import files


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with files.replace_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("of the writer"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_former_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), files.replace_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "a.state"
    for content in ("old", "new"):
        with files.replace_folder(path) as temporary:
            assert list(temporary.iterdir()) == []
            (temporary / content).write_text(content)
    assert names(path) == ["new"]
    assert names(tmp_path) == ["a.state"]


def test_a_folder_whose_writer_fails_stays_as_it_was(tmp_path):
    path = tmp_path / "a.state"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(ValueError, match="of the writer"), files.replace_folder(path) as temporary:
        (temporary / "half").touch()
        raise ValueError("of the writer")
    assert names(path) == ["old"]
    assert names(tmp_path) == ["a.state"]


def test_leftovers_of_a_killed_writer_do_not_get_into_the_folder(tmp_path):
    for leftover in (".a.state.tmp", ".a.state.old.tmp"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "half").touch()
    with files.replace_folder(tmp_path / "a.state") as temporary:
        (temporary / "new").touch()
    assert names(tmp_path / "a.state") == ["new"]
    assert names(tmp_path) == ["a.state"]


def test_a_folder_that_is_removed_is_out_of_its_name_before_its_first_file_goes(tmp_path, monkeypatch):
    path = tmp_path / "a.state"
    path.mkdir()
    seen = []
    monkeypatch.setattr(files.shutil, "rmtree", lambda removed, **options: seen.append((removed.name, path.exists())))
    files.remove_folder(path)
    assert seen[-1] == (".a.state.old.tmp", False)


def test_a_folder_that_is_not_there_is_removed_without_a_word(tmp_path):
    files.remove_folder(tmp_path / "none")
    assert names(tmp_path) == []


def refused(path, error: Exception) -> OSError:
    replace = files.replace_folder if path.suffix == ".state" else files.replace_file
    with pytest.raises(OSError) as caught, replace(path):
        raise error
    return caught.value


@pytest.mark.parametrize("name", ["a.png", "a.state"])
def test_what_the_disk_refuses_is_told_by_the_name_of_the_file(name, tmp_path):
    path = tmp_path / name
    error = refused(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert (error.errno, error.filename) == (errno.ENOSPC, str(path))


@pytest.mark.parametrize("name", ["a.safetensors", "a.state"])
def test_a_full_disk_in_the_words_of_a_library_is_one_all_the_same(name, tmp_path):
    class LibraryError(Exception):
        pass

    path = tmp_path / name
    error = refused(path, LibraryError("I/O error: No space left on device (os error 28)"))
    assert (error.errno, error.filename) == (errno.ENOSPC, str(path))


def test_a_file_can_be_written_in_one_go(tmp_path):
    files.write_bytes(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"
