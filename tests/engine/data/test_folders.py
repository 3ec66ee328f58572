from __future__ import annotations

import os

import pytest

from engine.config.structs import Subset
from engine.data.folders import expand, kohya_name


def names(folder):
    return [image.name for image in folder.images]


def test_a_folder_of_images_is_read_in_natural_order_whatever_the_case(folder_of, tmp_path):
    folder_of("cats", "cat10.png", "Cat2.png", "cat1.JPG", "b.webp", "a.bmp", "z.tif", "y.gif", "x.jpeg")
    (folder,), _, problems = expand([Subset(path="cats")], tmp_path)
    assert names(folder) == ["a.bmp", "b.webp", "cat1.JPG", "Cat2.png", "cat10.png", "x.jpeg", "y.gif", "z.tif"]
    assert not problems


def test_hidden_files_do_not_count_and_other_files_are_said_by_their_suffix(folder_of, tmp_path):
    cats = folder_of("cats", "a.png", ".hidden.png", "._a.png", a="a cat")
    for name in ("b.heic", "c.heic", "movie.mp4", "README", "notes.json"):
        (cats / name).write_bytes(b"x")
    (folder,), notes, _ = expand([Subset(path="cats")], tmp_path)
    assert names(folder) == ["a.png"]
    assert [note.detail for note in notes] == ["1 without suffix, 2 .heic, 1 .mp4"]


def test_a_folder_of_kohya_folders_gives_one_subset_for_each(folder_of, tmp_path):
    folder_of("data/10_ohwx cat", "a.png")
    folder_of("data/2_ohwx_cat face", "b.png", "c.png")
    folders, notes, problems = expand([Subset(path="data", flip=True, caption_prefix="p")], tmp_path)
    assert [(f.repeats, f.class_tokens, f.tokens_from, names(f)) for f in folders] == [
        (2, "ohwx_cat face", "folder name", ["b.png", "c.png"]),
        (10, "ohwx cat", "folder name", ["a.png"]),
    ]
    assert all(f.flip and f.caption_prefix == "p" and f.subset == 0 for f in folders)
    assert "10 × 'ohwx cat'" in str(notes[-1])
    assert not problems


def test_a_kohya_folder_given_directly_is_understood_too(folder_of, tmp_path):
    folder_of("10_ohwx cat", "a.png")
    (folder,), _, _ = expand([Subset(path="10_ohwx cat")], tmp_path)
    assert (folder.repeats, folder.class_tokens) == (10, "ohwx cat")


def test_what_the_subset_sets_wins_over_the_name_and_that_is_said(folder_of, tmp_path):
    folder_of("10_ohwx cat", "a.png")
    (folder,), notes, _ = expand([Subset(path="10_ohwx cat", repeats=3, class_tokens="sks dog")], tmp_path)
    assert (folder.repeats, folder.class_tokens, folder.tokens_from) == (3, "sks dog", "class_tokens")
    assert "repeats = 3 of the subset wins; class_tokens = 'sks dog' of the subset wins" in str(notes[0])


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("10_ohwx cat", (10, "ohwx cat")),
        ("1_", (1, "")),
        ("010_a_b", (10, "a_b")),
        ("20240704_trip", None),
        ("2024_trip", None),
        ("cat_10", None),
        ("10 cat", None),
        ("\u0661_cat", None),
        ("-1_cat", None),
    ],
)
def test_only_up_to_three_digits_before_an_underscore_are_repeats(name, meaning):
    assert kohya_name(name) == meaning


def test_folders_that_take_no_part_are_said(folder_of, tmp_path):
    folder_of("data/5_cat", "a.png")
    folder_of("data/0_dog", "b.png")
    folder_of("data/3_empty")
    folder_of("data/other", "c.png")
    folder_of("data/5_cat/deeper", "d.png")
    folders, notes, _ = expand([Subset(path="data")], tmp_path)
    assert [folder.path.name for folder in folders] == ["5_cat"]
    said = {os.path.basename(note.where): note.what for note in notes}
    assert said["0_dog"] == "a folder named for 0 repeats is left out"
    assert said["3_empty"] == "this folder holds no images"
    assert said["other"] == said["deeper"] == "this folder inside a subset is not looked into"


def test_paths_are_relative_to_the_request_and_a_tilde_is_home(folder_of, tmp_path, monkeypatch):
    cats = folder_of("home/cats", "a.png")
    folder_of("project/dogs", "b.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    subsets = [Subset(path="~/cats"), Subset(path="../project/dogs"), Subset(path=str(cats))]
    folders, _, problems = expand(subsets, tmp_path / "home")
    assert [folder.path for folder in folders] == [cats, tmp_path / "project" / "dogs", cats]
    assert [folder.subset for folder in folders] == [0, 1, 2]
    assert not problems


def test_every_unusable_subset_is_a_problem_that_names_its_field(folder_of, tmp_path):
    folder_of("empty")
    folder_of("parent/cats", "a.png")
    folder_of("both/5_cat", "a.png")
    folder_of("both", "loose.png")
    (tmp_path / "file").write_text("")
    subsets = [Subset(path=p) for p in ("missing", "empty", "parent", "both", "file", "~nobody/x", "nu\0ll")]
    folders, _, problems = expand(subsets, tmp_path)
    assert not folders
    assert [problem.field for problem in problems] == [f"dataset.subsets[{i}].path" for i in range(7)]
    assert [problem.found for problem in problems] == [
        "no such file or directory",
        "none",
        "none, only folders such as 'cats'",
        "both: 1 images beside '5_cat'",
        "a file",
        "no such file or directory",
        "embedded null byte",
    ]
    assert problems[0].where == str(tmp_path / "missing")
    assert all(problem.advice and problem.expected for problem in problems)


def test_a_folder_that_may_not_be_entered_is_a_problem(folder_of, tmp_path, monkeypatch):
    folder_of("locked", "a.png")

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    _, _, (problem,) = expand([Subset(path="locked")], tmp_path)
    assert problem.found == "permission denied"
