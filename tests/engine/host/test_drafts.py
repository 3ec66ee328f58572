"""What a form held is there again, whatever it held and whatever became of the file."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import UserError
from engine.host import drafts
from engine.protocol.browse import Draft


@pytest.fixture
def folder(workspace):
    folder = workspace / "projects" / "cats"
    folder.mkdir(parents=True)
    return folder


def written(workspace, **draft) -> Draft:
    drafts.write(workspace, Draft(project="cats", **draft))
    return drafts.read(workspace, "cats")


def test_a_project_without_a_draft_has_an_empty_one(workspace, folder):
    assert drafts.read(workspace, "cats") == Draft(project="cats")
    assert list(folder.iterdir()) == []


def test_what_was_written_is_read_though_it_makes_no_config(workspace, folder):
    config = {
        "model": {"base": ""},
        "training": {"steps": "many", "batch": -3, "seed": 2**63 - 1},
        "dataset": {"subsets": [{"path": "[/foo]", "flip": True}, {"caption_prefix": 'a "b"\n\\c\t'}]},
        "optimizer": {"lr_unet": 1e-4},
        "sampling": {"prompts": ["[best quality] cat", "", "ü😀", "a\r\nb"]},
        "unknown": {},
    }
    assert written(workspace, preset="style", config=config) == Draft(project="cats", preset="style", config=config)
    assert written(workspace) == Draft(project="cats")
    assert [path.name for path in folder.iterdir()] == ["draft.toml"]


values = st.recursive(
    st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_whatever_a_form_may_hold_comes_back(workspace, folder, config):
    assert written(workspace, config=config).config == config


def test_a_draft_comes_over_the_pipe_as_it_is(workspace, folder):
    line = msgspec.json.encode({"project": "cats", "config": {"a": {"b": [1, 2.5, True, "x"]}}})
    draft = msgspec.json.decode(line, type=Draft)
    drafts.write(workspace, draft)
    assert msgspec.json.decode(msgspec.json.encode(drafts.read(workspace, "cats")), type=Draft) == draft


@pytest.mark.parametrize("config", [{"a": None}, {"a": [{"b": None}]}, {"a": "\ud800"}])
def test_what_toml_can_not_hold_is_refused_and_leaves_the_draft(workspace, folder, config):
    written(workspace, preset="style")
    with pytest.raises(UserError, match="values that TOML holds"):
        written(workspace, config=config)
    assert drafts.read(workspace, "cats").preset == "style"


DAMAGED = [
    b"preset = ", b"\xff\xfe", b"preset = 3\n", b"config = 3\n", b"other = 3\n", b'[config]\na = 1\n[config]\na = 2\n',
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_draft_that_can_not_be_read_is_said_and_kept(workspace, folder, content):
    for number in (1, 2):
        (folder / "draft.toml").write_bytes(content)
        found = drafts.read(workspace, "cats")
        assert found.problem.startswith("draft.toml can't be read: ") and found.config == {}
        assert written(workspace, preset="style") == Draft(project="cats", preset="style")
        assert (folder / f"draft-unreadable-{number}.toml").read_bytes() == content


def test_a_draft_that_is_a_folder_is_said_and_kept(workspace, folder):
    (folder / "draft.toml").mkdir()
    assert "directory" in drafts.read(workspace, "cats").problem
    assert written(workspace, preset="style").preset == "style"
    assert (folder / "draft-unreadable-1.toml").is_dir()


def test_a_draft_may_be_written_by_hand(workspace, folder):
    (folder / "draft.toml").write_text("# mine\n[config.training]\nsteps = 3\n")
    assert drafts.read(workspace, "cats") == Draft(project="cats", config={"training": {"steps": 3}})


@pytest.mark.parametrize("name", ["", "nothing", "..", "cats/../cats", ".hidden"])
def test_what_is_no_project_has_no_draft(workspace, folder, name):
    for attempt in (lambda: drafts.read(workspace, name), lambda: drafts.write(workspace, Draft(project=name))):
        with pytest.raises(UserError, match="expected a project of"):
            attempt()


def test_a_disk_that_refuses_leaves_the_former_draft(workspace, folder, monkeypatch):
    written(workspace, preset="style")

    def refuse(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("engine.files.sync", refuse)
    with pytest.raises(UserError, match="No space left"):
        written(workspace, preset="dreambooth")
    assert drafts.read(workspace, "cats").preset == "style"
