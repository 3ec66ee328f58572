"""From files and `--set` to one request: what is read, where each value came from, what can't be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config import Request, UserError, read_file, toml_value

TABLES = {
    "model": {"base": "tiny"},
    "dataset": {"subsets": [{"path": "cats", "repeats": 10, "flip": True}, {"path": "others"}]},
    "optimizer": {"lr_unet": 1e-4, "eps": 1e-8, "clip_norm": 0.5},
    "sampling": {"prompts": ["a cat --s 4", "ein Kätzchen: 'müde'"], "every": "auto"},
    "prior": {"weight": 0},
}
TOML = """
model.base = "tiny"
optimizer = {lr_unet = 1e-4, eps = 1e-8, clip_norm = 0.5}
prior.weight = 0
[sampling]
prompts = ["a cat --s 4", "ein Kätzchen: 'müde'"]
every = "auto"
[[dataset.subsets]]
path = "cats"
repeats = 10
flip = true
[[dataset.subsets]]
path = "others"
"""
YAML = """
model: {base: tiny}
dataset:
  subsets:
    - {path: cats, repeats: 10, flip: true}
    - path: others
optimizer: {lr_unet: 1e-4, eps: 1e-8, clip_norm: .5}
sampling:
  prompts:
    - a cat --s 4
    - "ein Kätzchen: 'müde'"
  every: auto
prior: {weight: 0}
"""


@pytest.fixture
def written(tmp_path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def problems_of(function, *arguments) -> list[tuple[str, str, str, str]]:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return [(p.where, p.field, p.expected, p.found) for p in caught.value.problems]


# ---- files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", TOML),
        ("a.yaml", YAML),
        ("a.YML", YAML),
        ("a.json", json.dumps(TABLES)),
        ("bom.toml", "\ufeff" + TOML),
    ],
)
def test_toml_yaml_and_json_are_read_alike(written, name, text):
    assert read_file(written(name, text)) == TABLES


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "1.0e-4", "+1e-04", ".1e-3", "0.0001", "1.0e-04"])
def test_a_small_number_in_yaml_is_a_number_however_it_is_written(written, text):
    assert read_file(written("a.yaml", f"x: {text}"))["x"] == 1e-4


@pytest.mark.parametrize("text", ["e4", "1e", "1e4x", "'1e-4'", "1e-4 2", "0x1e4z"])
def test_text_in_yaml_that_only_looks_like_a_number_stays_text(written, text):
    assert read_file(written("a.yaml", f"x: {text}"))["x"] == text.strip("'")


@pytest.mark.parametrize(
    ("name", "content", "expected", "found"),
    [
        ("a.toml", "a = 1\na = 2", "well-formed TOML", "Cannot overwrite a value"),
        ("a.toml", b"\xff\xfe\x00", "well-formed TOML", "can't decode byte 0xff"),
        ("a.json", '{"a": }', "well-formed JSON", "line 1 column 7"),
        ("a.yaml", "a: 1\n\tb: 2", "well-formed YAML", "line 2, column 1"),
        ("a.yaml", "a: !!python/object/apply:os.system ['x']", "well-formed YAML", "could not determine a constructor"),
        ("a.yaml", "? [1]\n: 2", "well-formed YAML", "unhashable key"),
        ("a.yaml", "a: 2001-99-99", "well-formed YAML", "month must be in 1..12"),
        ("a.yaml", "- 1", "a table of fields", "[1]"),
        ("a.yaml", "", "a table of fields", "null"),
        ("a.yaml", "a: &a {b: *a}", "a table of sections with fields", "nested without end"),
        ("a.json", '{"a":' * 50_000, "a table of sections with fields", "nested without end"),
        ("a.toml", "a = " + "[" * 5_000, "a table of sections with fields", "nested without end"),
        ("a.ini", "a = 1", "a .toml, .yaml or .json file", ".ini"),
        ("config", "a = 1", "a .toml, .yaml or .json file", "no suffix"),
    ],
)
def test_a_file_that_can_not_be_read_is_named_with_what_is_wrong(written, name, content, expected, found):
    path = written(name, content)
    ((where, _, wanted, said),) = problems_of(read_file, path)
    assert (where, wanted) == (str(path), expected)
    assert found in said


def test_a_file_that_is_not_there_is_named(tmp_path):
    ((where, *_, found),) = problems_of(read_file, tmp_path / "no.toml")
    assert where == str(tmp_path / "no.toml") and found == "No such file or directory"


def test_an_empty_file_is_told_as_the_place_of_what_is_missing(written):
    request = Request()
    path = written("a.toml", "")
    request.read(path)
    assert [(where, field) for where, field, *_ in problems_of(request.checked)] == [
        (str(path), "model"),
        (str(path), "dataset"),
    ]


# ---- layers


def test_later_layers_win_field_by_field_and_lists_are_replaced_whole(least):
    request = Request()
    request.lay(least, "base")
    request.lay({"training": {"steps": 5, "batch": 3}, "sampling": {"prompts": ["a", "b"]}}, "preset")
    request.lay({"training": {"batch": 7}, "sampling": {"prompts": ["c"]}}, "file")
    request.set("training.seed=9")
    config = request.checked()
    assert (config.training.steps, config.training.batch, config.training.seed) == (5, 7, 9)
    assert config.sampling.prompts == ["c"]


def test_each_mistake_is_told_with_the_layer_that_it_was_written_in(least):
    request = Request()
    request.lay(least, "base")
    request.lay({"training": {"steps": -1, "batch": 0}, "optimizer": {"lr_unet": -1}}, "preset")
    request.lay({"training": {"batch": -7}}, "file")
    request.set("training.seed=-9")
    request.set("optimizer={lr_unet=-2, lr_text=-3}")
    assert {field: where for where, field, *_ in problems_of(request.checked)} == {
        "training.steps": "preset",
        "training.batch": "file",
        "training.seed": "--set",
        "optimizer.lr_unet": "--set",
        "optimizer.lr_text": "--set",
    }


def test_a_request_does_not_share_tables_with_what_was_laid_into_it(least):
    request = Request()
    request.lay(least, "base")
    request.set("dataset.subsets[0].repeats=5")
    assert least["dataset"]["subsets"] == [{"path": "/images"}]


# ---- --set


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500", 500),
        ("1e-4", 1e-4),
        ("true", True),
        ('"500"', "500"),
        ("cat", "cat"),
        ("a cat, sitting", "a cat, sitting"),
        ("['a', 'b']", ["a", "b"]),
        ("{rank = 4, alpha = 2}", {"rank": 4, "alpha": 2}),
        ("", ""),
        ("a = b", "a = b"),
        ("1\nother = 2", "1\nother = 2"),
        ("C:\\cats", "C:\\cats"),
        ("2024-11-23", "2024-11-23"),
        ("07:30:00", "07:30:00"),
    ],
)
def test_what_follows_the_equals_sign_is_a_toml_value_or_else_bare_text(text, value):
    assert toml_value(text) == value


def test_assignments_reach_lists_items_tables_and_fields_that_no_file_has(checked):
    config = checked(
        {"dataset": {"subsets": [{"path": "/a"}, {"path": "/b"}]}},
        "dataset.subsets[1].repeats=4",
        "sampling.prompts=['a', 'b']",
        "sampling.prompts[1]=c = d",
        "adapter.sets=[{targets='text_encoder', rank=2, alpha=1}]",
        " adapter.rank =3",
        "name=cat",
        "training.steps=5",
        "training.steps=6",
    )
    assert [subset.repeats for subset in config.dataset.subsets] == [1, 4]
    assert config.sampling.prompts == ["a", "c = d"]
    assert config.adapter.sets[0].rank == 2 and config.adapter.rank == 3
    assert config.name == "cat" and config.training.steps == 6


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("training.steps", "section.field=value"),
        ("=5", "section.field=value"),
        ("training..steps=5", "section.field=value"),
        (".training.steps=5", "section.field=value"),
        ("training.steps.=5", "section.field=value"),
        ("[0]=5", "section.field=value"),
        ("dataset.subsets[0.repeats=5", "section.field=value"),
        ("dataset.subsets[-1].repeats=5", "section.field=value"),
        ("dataset.subsets[x].repeats=5", "section.field=value"),
        ("dataset.subsets[1].repeats=5", "an index of the list that is there"),
        ("model[0]=5", "an index of the list that is there"),
        ("dataset.subsets.path=5", "a table of fields on the way"),
        ("model.base.name=5", "a table of fields on the way"),
    ],
)
def test_an_assignment_that_leads_nowhere_is_refused_and_quoted(refused, assignment, expected):
    where, _, wanted, found, advice = refused(None, assignment)[0]
    assert (where, wanted, found) == ("--set", expected, f'the text "{assignment}"')
    assert advice


def test_bad_assignments_are_told_together_with_the_other_mistakes(refused):
    problems = refused({"training": {"steps": -1}}, "nonsense", "loss.snr=5")
    assert [(where, field, advice) for where, field, *_, advice in problems] == [
        ("--set", "", "such as --set training.steps=500"),
        ("mine.toml", "training.steps", "length of the run; 0: given in epochs"),
        ("--set", "loss.snr", "did you mean `snr_gamma`?"),
    ]


# ---- paths


def test_relative_paths_belong_to_the_folder_of_the_file_that_names_them(written, monkeypatch, tmp_path):
    written("project/run.toml", TOML.replace('model.base = "tiny"', 'model = {base = "base", vae = "vae"}'))
    (tmp_path / "project" / "vae").mkdir()
    (tmp_path / "project" / "base").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    request = Request()
    request.read(Path("../project/run.toml"))
    request.set("dataset.subsets[1].path=../mine")
    config = request.checked()
    assert config.model.base == str(tmp_path / "project" / "base")
    assert config.model.vae == str(tmp_path / "project" / "vae")
    assert [subset.path for subset in config.dataset.subsets] == [
        str(tmp_path / "project" / "cats"),
        str(tmp_path / "mine"),
    ]


def test_the_files_and_pictures_of_a_generation_are_anchored_too(written, tmp_path):
    text = 'kind = "generate"\nmodel.base = "tiny"\npicture = {prompt = "a", out = "a.png"}\nadapters = [{path = "b"}]'
    request = Request()
    request.read(written("g/a.toml", text))
    config = request.checked()
    assert config.picture.out == str(tmp_path / "g" / "a.png")
    assert config.adapters[0].path == str(tmp_path / "g" / "b")


def test_a_tilde_is_the_home_folder_and_an_unknown_users_stays_as_it_is(checked, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    subsets = [{"path": "~/cats"}, {"path": "~nobody-of-that-name/cats"}]
    config = checked({"model": {"base": "~/base"}, "dataset": {"subsets": subsets}})
    assert config.model.base == str(tmp_path / "base")
    assert [subset.path for subset in config.dataset.subsets] == [
        str(tmp_path / "cats"),
        str(tmp_path / "~nobody-of-that-name" / "cats"),
    ]


@pytest.mark.parametrize("base", ["tiny", "runwayml/stable-diffusion-v1-5", "no-such-folder"])
def test_a_base_that_is_no_path_keeps_its_name(checked, monkeypatch, tmp_path, base):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert checked({"model": {"base": base}}).model.base == base
