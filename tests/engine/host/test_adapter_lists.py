"""Adapters are listed from folders and runs, whatever condition they are in, and one of them can be thrown away."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from engine import locks
from engine.errors import UserError
from engine.formats.container import TensorInfo, pack_header
from engine.host import adapters
from engine.host.kept import Kept
from engine.protocol.browse import AdaptersRef


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    for name in ("_folders", "_headers", "_words"):
        monkeypatch.setattr(adapters, name, Kept(100))


def adapter(path, metadata=None, age=0.0, rank=8):
    """A whole file of one module, last changed `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    infos = {
        "lora_unet_a.lora_down.weight": TensorInfo("F16", (rank, 4)),
        "lora_unet_a.lora_up.weight": TensorInfo("F16", (4, rank)),
    }
    path.write_bytes(pack_header(infos, metadata or {}) + bytes(16 * rank))
    os.utime(path, (time.time() - age,) * 2)
    return path


def old(path):
    """Let a folder look as if nobody had touched it for an hour, so that its listing can be kept."""
    os.utime(path, (time.time() - 3600,) * 2)


@pytest.fixture
def listed(workspace):
    def listed(*folders, **page):
        return adapters.adapters(workspace, AdaptersRef(folders=list(map(str, folders)), **page))

    return listed


def names(found):
    return [Path(one.path).name for one in found.adapters]


def test_files_of_a_folder_and_all_below_it_come_newest_first(tmp_path, listed):
    library = tmp_path / "library"
    adapter(library / "old.safetensors", age=100)
    newest = adapter(library / "sub" / "deeper" / "new.SafeTensors", {"ss_base_model_version": "sdxl"}, rank=4)
    adapter(library / "middle.safetensors", age=50)
    for name in (".hidden.safetensors", ".hidden/a.safetensors", "x.state/tensors.safetensors"):
        adapter(library / name)
    (library / "notes.txt").touch()
    (library / "folder.safetensors").mkdir()
    found = listed(library)
    assert (found.total, names(found)) == (3, ["new.SafeTensors", "middle.safetensors", "old.safetensors"])
    first, facts = found.adapters[0], newest.stat()
    assert (first.path, first.bytes, first.modified) == (str(newest), facts.st_size, facts.st_mtime)
    assert (first.format, first.family, first.ranks, first.alphas) == ("kohya", "sdxl", [4], [4.0])
    assert (first.modules, first.tensors, first.folder, first.run) == ({"unet": 1}, 2, str(library), "")
    assert first.metadata == {"ss_base_model_version": "sdxl"}


def test_files_of_a_projects_runs_have_their_run_and_step(tmp_path, listed, make):
    run, other = make("cat", "cats"), make("dog", "dogs")
    adapter(run / "cat.safetensors")
    adapter(run / "checkpoints" / "cat-step000500.safetensors", age=10)
    adapter(run / "checkpoints" / "cat-step000500.state" / "tensors.safetensors")
    adapter(run / "checkpoints" / ".cat-step000600.1.tmp.safetensors")
    adapter(run / "samples" / "odd.safetensors")
    adapter(other / "dog.safetensors")
    found = listed(project="cats")
    rows = [(Path(one.path).name, one.run, one.step, one.folder) for one in found.adapters]
    assert rows == [("cat.safetensors", run.name, None, ""), ("cat-step000500.safetensors", run.name, 500, "")]
    with pytest.raises(UserError, match="a project"):
        listed(project="birds")


def test_a_file_that_is_found_twice_is_listed_once(tmp_path, listed, make, workspace):
    run = make("cat", "cats")
    adapter(run / "checkpoints" / "cat-step000500.safetensors")
    adapter(tmp_path / "library" / "a.safetensors", age=5)
    found = listed(tmp_path / "library", workspace, tmp_path / "library", workspace / "projects", project="cats")
    rows = [(Path(one.path).name, one.run, one.step, one.folder) for one in found.adapters]
    assert rows == [
        ("cat-step000500.safetensors", run.name, 500, ""),
        ("a.safetensors", "", None, str(tmp_path / "library")),
    ]


def test_a_checkpoint_from_elsewhere_is_of_no_run(tmp_path, listed):
    adapter(tmp_path / "runs" / "mine" / "checkpoints" / "a-step000500.safetensors")
    (found,) = listed(tmp_path).adapters
    assert (found.run, found.step) == ("", None)


def test_links_are_followed_and_never_in_circles(tmp_path, listed):
    adapter(tmp_path / "far" / "a.safetensors")
    library = tmp_path / "library"
    (library / "sub").mkdir(parents=True)
    (library / "sub" / "up").symlink_to("..")
    (library / "far").symlink_to(tmp_path / "far")
    (library / "again").symlink_to(tmp_path / "far")
    (library / "self").symlink_to("self")
    assert names(listed(library)) == ["a.safetensors"]


def test_what_is_wrong_with_one_file_is_said_of_it(tmp_path, listed):
    library = tmp_path / "library"
    whole = adapter(library / "a.safetensors").read_bytes()
    (library / "b.safetensors").write_bytes(whole[:-1])
    (library / "c.safetensors").write_bytes(b"")
    (library / "d.safetensors").symlink_to("nowhere")
    os.mkfifo(library / "e.safetensors")
    (library / "g.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    told = {Path(one.path).name: one.problem for one in listed(library).adapters}
    assert told["a.safetensors"] == ""
    words = {"b.safetensors": "cut short", "c.safetensors": "empty", "d.safetensors": "no such file",
             "e.safetensors": "no regular file", "g.safetensors": "a zip archive"}  # fmt: skip
    for name, word in words.items():
        assert word in told[name]
        assert str(library) not in told[name]


def test_a_folder_that_can_not_be_listed_is_a_row_with_its_problem(tmp_path, listed):
    adapter(tmp_path / "library" / "a.safetensors")
    (tmp_path / "file").touch()
    found = listed(tmp_path / "missing", tmp_path / "library", tmp_path / "file", "a\0b")
    assert names(found)[0] == "a.safetensors"
    told = {Path(one.path).name: one.problem for one in found.adapters[1:]}
    assert "no such file" in told["missing"]
    assert "expected a folder; found a file" in told["file"]
    assert "found nothing" in told["a\0b"]


def test_a_folder_of_too_many_folders_is_refused(tmp_path, listed, monkeypatch):
    monkeypatch.setattr(adapters, "MOST_FOLDERS", 5)
    for number in range(10):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(UserError, match="more than 5 folders"):
        listed(tmp_path)


def test_pages_and_words(tmp_path, listed, make):
    for number in range(30):
        adapter(tmp_path / "library" / f"film-{number}.safetensors", age=number)
    adapter(
        tmp_path / "library" / "x.safetensors",
        {"ss_base_model_version": "sdxl", "modelspec.trigger_phrase": "Ohwx Cat"},
    )
    run = make("grain", "cats")
    adapter(run / "other.safetensors", age=99)
    page = listed(tmp_path / "library", offset=11, limit=3)
    assert (page.total, names(page)) == (31, [f"film-{number}.safetensors" for number in (10, 11, 12)])
    assert names(listed(tmp_path / "library", find="ohwx")) == ["x.safetensors"]
    assert names(listed(tmp_path / "library", find="SDXL -dog")) == ["x.safetensors"]
    assert listed(tmp_path / "library", find="film -2 -1").total == 8
    assert names(listed(project="cats", find="grain")) == ["other.safetensors"]
    found = listed(tmp_path / "library", find="film", offset=29, limit=10)
    assert (found.total, names(found)) == (30, ["film-29.safetensors"])
    for wrong in ({"offset": -1}, {"limit": 0}):
        with pytest.raises(UserError, match="page"):
            listed(tmp_path, **wrong)


def test_long_metadata_are_cut_in_a_list(tmp_path, listed):
    long = {"ss_tag_frequency": "x" * 500_000, "short": "y", "unet:3:rank": "4"}
    adapter(tmp_path / "a.safetensors", long | {f"{number}": "z" * 400 for number in range(100)})
    metadata = listed(tmp_path).adapters[0].metadata
    assert sum(len(key) + len(value) for key, value in metadata.items()) <= adapters.MOST_CHARACTERS
    adapter(tmp_path / "a.safetensors", long)
    metadata = listed(tmp_path).adapters[0].metadata
    assert metadata == {"short": "y", "ss_tag_frequency": "x" * (adapters.LONGEST_VALUE - 1) + "…"}


def test_an_untouched_library_is_read_once(tmp_path, listed, monkeypatch):
    adapter(tmp_path / "library" / "a.safetensors", {"version": "1"})
    old(tmp_path / "library")
    assert listed(tmp_path / "library").adapters[0].metadata == {"version": "1"}
    monkeypatch.setattr(adapters, "_look", lambda folder: pytest.fail("the folder has not changed"))
    monkeypatch.setattr(adapters, "_header", lambda *_: pytest.fail("the file has not changed"))
    assert listed(tmp_path / "library").adapters[0].metadata == {"version": "1"}


def test_a_file_that_is_written_again_is_read_again(tmp_path, listed):
    adapter(tmp_path / "a.safetensors", {"version": "1"})
    old(tmp_path)
    assert listed(tmp_path).adapters[0].metadata == {"version": "1"}
    adapter(tmp_path / "a.safetensors", {"version": "2"})
    assert listed(tmp_path).adapters[0].metadata == {"version": "2"}
    adapter(tmp_path / "b.safetensors")
    assert listed(tmp_path).total == 2


# ---- the trash


def test_a_file_goes_to_the_trash_under_its_name(tmp_path, workspace, listed):
    path = adapter(tmp_path / "library" / "a.safetensors")
    content = path.read_bytes()
    gone = adapters.remove(workspace, str(path))
    assert (gone.path, gone.bytes) == (str(path), len(content))
    assert not path.exists()
    assert Path(gone.trash).read_bytes() == content
    assert Path(gone.trash).name == "a.safetensors"
    assert (workspace / "trash") in Path(gone.trash).parents
    again = adapters.remove(workspace, str(adapter(path)))
    assert again.trash != gone.trash
    assert Path(gone.trash).exists() and Path(again.trash).exists()


@pytest.fixture
def another_device(monkeypatch):
    """Let the trash lie on another file system."""
    rename = os.rename

    def refuse(source, target):
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)


def test_a_file_is_moved_to_another_file_system(tmp_path, workspace, another_device):
    path = adapter(tmp_path / "a.safetensors", age=1000)
    content, modified = path.read_bytes(), path.stat().st_mtime
    gone = Path(adapters.remove(workspace, str(path)).trash)
    assert (gone.read_bytes(), gone.stat().st_mtime) == (content, pytest.approx(modified))
    assert not path.exists()
    assert [one.name for one in gone.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("step", ["shutil.copy2", "pathlib.Path.unlink"])
def test_a_file_that_can_not_be_moved_stays_where_it_is(tmp_path, workspace, another_device, monkeypatch, step):
    path = adapter(tmp_path / "a.safetensors")

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(step, refuse)
        with pytest.raises(UserError, match="no space left"):
            adapters.remove(workspace, str(path))
    assert path.exists()
    assert list((workspace / "trash" / "adapters").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["folder.safetensors", "a.txt", "b.pt", "link.safetensors", "missing.safetensors", ".hidden.safetensors",
             "pipe.safetensors", "sub/../a.safetensors", "x.state/tensors.safetensors", "state/tensors.safetensors",
             "a\0.safetensors"],
)  # fmt: skip
def test_nothing_but_an_adapter_goes_to_the_trash(tmp_path, workspace, name):
    kept = adapter(tmp_path / "a.safetensors")
    (tmp_path / "sub").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    for other in ("a.txt", "b.pt", ".hidden.safetensors"):
        (tmp_path / other).touch()
    (tmp_path / "link.safetensors").symlink_to(kept)
    os.mkfifo(tmp_path / "pipe.safetensors")
    adapter(tmp_path / "x.state" / "tensors.safetensors")
    (tmp_path / "state").symlink_to("x.state")
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(UserError, match="expected"):
        adapters.remove(workspace, f"{tmp_path}/{name}")
    with pytest.raises(UserError, match="expected"):
        adapters.remove(workspace, "a.safetensors")
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_the_files_of_a_live_run_stay(workspace, make):
    run = make("cat", state="running")
    for path in (run / "cat.safetensors", run / "checkpoints" / "cat-step000500.safetensors"):
        adapter(path)
        with locks.hold(run), pytest.raises(UserError, match="found one that is running"):
            adapters.remove(workspace, str(path))
        assert path.exists()
    ended = make("dog", state="done")
    gone = adapters.remove(workspace, str(adapter(ended / "checkpoints" / "dog-step000500.safetensors")))
    assert Path(gone.trash).exists()


def test_a_projects_own_folder_is_listed_with_its_runs(workspace, listed):
    adapter(workspace / "projects" / "cat" / "adapters" / "blend.safetensors")
    (found,) = listed(project="cat").adapters
    assert (Path(found.path).name, Path(found.folder).name, found.run) == ("blend.safetensors", "adapters", "")


def test_a_pickle_is_listed_and_left_alone(tmp_path, listed):
    adapter(tmp_path / "library" / "a.safetensors")
    (tmp_path / "library" / "f.pt").write_bytes(b"cos\nsystem\n")
    (row,) = [row for row in listed(tmp_path / "library").adapters if row.path.endswith("f.pt")]
    assert (row.format, row.problem, row.ranks) == ("pickle", "", [])
