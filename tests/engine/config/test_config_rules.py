"""Rules that several fields break together."""

from __future__ import annotations

import pytest

CLASS = {"path": "/class", "is_reg": True}
MINE = {"path": "/mine"}


@pytest.mark.parametrize(
    ("tables", "field", "found"),
    [
        ({"training": {"steps": 0, "epochs": 0}}, "training.steps", "steps = 0 and epochs = 0"),
        ({"training": {"steps": 5, "epochs": 2}}, "training.steps", "steps = 5 and epochs = 2"),
        ({"optimizer": {"lr_unet": 0, "lr_text": 0}}, "optimizer.lr_unet", "lr_unet = 0 and lr_text = 0"),
        ({"adapter": {"sets": [{"targets": "x", "rank": 4, "alpha": 0}]}}, "adapter.sets[0].alpha", "0"),
        ({"dataset": {"subsets": [CLASS]}}, "dataset.subsets", "class images (is_reg) alone"),
        ({"dataset": {"subsets": [MINE, CLASS]}}, "dataset.subsets[1].is_reg", "prior.weight = 0"),
        ({"prior": {"weight": 1, "prompt": " "}}, "prior.prompt", "nothing"),
        ({"training": {"steps": 50}, "schedule": {"warmup": 51}}, "schedule.warmup", "51"),
        ({"name": "my-Checkpoint"}, "name", "my-Checkpoint"),
        ({"name": "optimizer"}, "name", "optimizer"),
        ({"sampling": {"prompts": ["a", "b --q 4"]}}, "sampling.prompts[1]", "unknown option --q"),
        ({"sampling": {"every": 5, "epochs": 1}}, "sampling.every", "every = 5 and epochs = 1"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(refused, tables, field, found):
    ((where, place, _, said, advice),) = refused(tables)
    assert (where, place) == ("mine.toml", field)
    assert said.startswith(found)
    assert advice


@pytest.mark.parametrize(
    "tables",
    [
        {"training": {"steps": 0, "epochs": 2}},
        {"optimizer": {"lr_unet": 0, "lr_text": 1e-5}},
        {"adapter": {"sets": [{"targets": "x", "rank": 0, "alpha": 0}]}},
        {"dataset": {"subsets": [MINE, CLASS]}, "prior": {"weight": 0.5}},
        {"prior": {"weight": 1, "prompt": "a cat"}},
        {"training": {"steps": 50}, "schedule": {"warmup": 50}},
        {"training": {"steps": 0, "epochs": 3}, "schedule": {"warmup": 50}},
        {"sampling": {"epochs": 1}},
        {"sampling": {"every": 5}},
        {"sampling": {"prompts": ["a cat --n blurry --w 512 --h 512 --d 42 --l 7 --s 28"]}},
    ],
)
def test_what_goes_together_is_taken(checked, tables):
    assert checked(tables)


def test_all_rules_are_told_at_once(refused):
    problems = refused(
        {"name": "checkpoint", "training": {"epochs": 3}, "optimizer": {"lr_unet": 0, "lr_text": 0}}, "prior.weight=1"
    )
    assert [(where, field) for where, field, *_ in problems] == [
        ("mine.toml", "training.steps"),
        ("mine.toml", "optimizer.lr_unet"),
        ("base.toml", "prior.prompt"),
        ("mine.toml", "name"),
    ]
