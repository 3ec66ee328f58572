from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.dataset import build
from engine.data.items import Item, Variant, hold_out
from engine.errors import UserError

SHAPE = {"resolution": 64, "step": 8, "seed": 42}


def item(name="a", width=64, height=64, **settings):
    return Item(Path(f"{name}.png"), name, width, height, (64, 64), f"a {name}", ".txt", **settings)


def test_every_setting_of_a_subset_reaches_its_images_and_classes_are_kept_apart(folder_of, request_of, tmp_path):
    folder_of("10_ohwx cat", "a.png", "b.png", size=(80, 64), a="ohwx cat on grass")
    folder_of("class", "c.png")
    subsets = [
        {"path": "10_ohwx cat", "flip": True, "crops": 3, "caption_dropout": 0.25, "caption_prefix": "photo of"},
        {"path": "class", "is_reg": True, "class_tokens": "cat", "repeats": 2},
    ]
    dataset = build(request_of(*subsets), root=tmp_path, **SHAPE)
    assert [item.caption for item in dataset.items] == ["photo of ohwx cat on grass", "photo of ohwx cat"]
    assert [item.caption_source for item in dataset.items] == [".txt", "folder name"]
    for one in dataset.items:
        assert (one.repeats, one.flip, one.crops, one.caption_dropout, one.is_reg) == (10, True, 3, 0.25, False)
        assert (one.width, one.height, one.bucket, one.subset) == (80, 64, (72, 56), 0)
    (cat,) = dataset.class_items
    assert (cat.caption, cat.caption_source, cat.repeats, cat.is_reg, cat.subset) == ("cat", "class_tokens", 2, True, 1)
    assert dataset.captions() == ["", "cat", "photo of ohwx cat", "photo of ohwx cat on grass"]
    assert dataset.caption_sources() == {".txt": 1, "folder name": 1}


def test_all_problems_of_folders_captions_and_images_come_in_one_error(folder_of, request_of, tmp_path):
    cats = folder_of("cats", "a.png", "b.png", "c.png")
    (cats / "a.png").write_bytes(b"")
    (cats / "b.png").write_text("text")
    (cats / "metadata.jsonl").write_text("{")
    with pytest.raises(UserError) as error:
        build(request_of({"path": "missing"}, {"path": "cats"}), root=tmp_path, **SHAPE)
    assert [Path(problem.where).name for problem in error.value.problems] == [
        "missing",
        "metadata.jsonl",
        "a.png",
        "b.png",
    ]


def test_bad_images_are_left_out_with_a_note_where_the_request_says_so(folder_of, request_of, tmp_path):
    cats = folder_of("cats", "a.png", "b.png")
    (cats / "a.png").write_bytes(b"")
    dataset = build(request_of({"path": "cats"}, on_problem="skip"), root=tmp_path, **SHAPE)
    assert [item.path.name for item in dataset.items] == ["b.png"]
    assert f"{cats}/a.png: left out (an empty file (0 bytes))" in map(str, dataset.notes)


@pytest.mark.parametrize(
    ("is_reg", "found"), [(True, "class (regularization) images only"), (False, "no usable image")]
)
def test_a_dataset_without_anything_to_learn_is_a_problem(folder_of, request_of, tmp_path, is_reg, found):
    cats = folder_of("cats", "a.png")
    if not is_reg:
        (cats / "a.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        build(request_of({"path": "cats", "is_reg": is_reg}, on_problem="skip"), root=tmp_path, **SHAPE)
    assert error.value.problems[0].found == found


def test_captions_are_measured_with_prefix_and_suffix(folder_of, request_of, tmp_path):
    folder_of("cats", "a.png", a="two words")
    request = request_of({"path": "cats", "caption_suffix": "and more"})
    dataset = build(request, root=tmp_path, count_tokens=lambda caption: len(caption.split()), token_limit=3, **SHAPE)
    assert "4 tokens, 3 are read" in str(dataset.notes[-1])


def test_background_buckets_and_upscale_come_from_the_request(folder_of, request_of, tmp_path):
    folder_of("cats", "a.png", size=(40, 20))
    with pytest.raises(UserError):
        build(request_of({"path": "cats"}), root=tmp_path, **SHAPE)
    dataset = build(request_of({"path": "cats"}, max_upscale=4.0, buckets=False), root=tmp_path, **SHAPE)
    assert dataset.items[0].bucket == (64, 64)


@pytest.mark.parametrize(("count", "fraction", "held"), [(19, 0.5, 0), (20, 0.1, 2), (30, 0.5, 15), (20, 0.0, 0)])
def test_a_share_of_the_images_is_held_out_but_none_of_few(count, fraction, held):
    items = [item(f"{i}") for i in range(count)]
    training, held_out = hold_out(items, fraction, seed=1)
    assert len(held_out) == held
    assert sorted((*training, *held_out), key=lambda one: int(one.sha256)) == items
    assert list(training) == [one for one in items if one not in held_out]


def test_the_seed_decides_which_are_held_out_and_the_order_of_the_files_only_how_they_are_listed():
    items = [item(f"{i}") for i in range(100)]
    draws = [hold_out(items, 0.1, seed)[1] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_copy_of_a_held_out_image_does_not_stay_in_training():
    items = [item(f"{i}") for i in range(30)]
    copies = [replace(one, path=Path("copy") / one.path) for one in items]
    training, held_out = hold_out([*items, *copies], 0.2, seed=3)
    assert len(held_out) == 12
    assert not {one.sha256 for one in training} & {one.sha256 for one in held_out}


def test_one_crop_is_the_centre_and_more_lie_along_the_side_with_room():
    assert item(width=100).crop(0, (64, 64), seed=1) == (0.5, 0.5)
    wide, tall = (item(width=w, height=h, crops=4) for w, h in ((100, 64), (64, 100)))
    places = [wide.crop(i, (64, 64), seed=1) for i in range(4)]
    assert len({u for u, _ in places}) == 4 and {v for _, v in places} == {0.5}
    assert [tall.crop(i, (64, 64), seed=1) for i in range(4)] == [(v, u) for u, v in places]
    assert item(width=128, height=128, crops=4).crop(3, (64, 64), seed=1) == (0.5, 0.5)


def test_crops_belong_to_the_content_and_the_seed():
    one, other = item("one", width=100, crops=2), item("other", width=100, crops=2)
    assert one.crop(1, (64, 64), 1) == replace(one, path=Path("elsewhere")).crop(1, (64, 64), 1)
    assert one.crop(1, (64, 64), 1) != other.crop(1, (64, 64), 1)
    assert one.crop(1, (64, 64), 1) != one.crop(1, (64, 64), 2)


def test_a_variant_is_its_content_and_not_its_place():
    assert Variant(Path("a"), "x", (64, 64)) == Variant(Path("b"), "x", (64, 64))
    assert Variant(Path("a"), "x", (64, 64)) != Variant(Path("a"), "x", (64, 64), flip=True)
