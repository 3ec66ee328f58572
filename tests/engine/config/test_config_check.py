"""What a field accepts, and how a mistake is told: all of them at once, each with its place."""

from __future__ import annotations

import msgspec
import pytest

from engine.config import KINDS, Request, UserError, fields, help_of, leaves
from engine.config.schema import describe, spell


def test_every_mistake_of_a_request_is_told_at_once_with_place_expectation_finding_and_advice(refused):
    problems = refused(
        {
            "trainig": {},
            "name": "a/b",
            "model": {"base": "", "prediction": "eps"},
            "adapter": {"rank": 0, "alpha": "16", "targets": ["attention"], "sets": [{"targets": "x", "rank": 1.5}, 3]},
            "dataset": {
                "resolution": "full",
                "background": "white",
                "subsets": [{"path": "a", "repeats": 0, "flip": 1}, {"repeat": 3}],
            },
            "training": {"steps": True, "seed": -1, "stepz": 4},
            "optimizer": {"lr_unet": float("nan"), "beta1": 1.0, "eps": 0},
            "loss": None,
            "sampling": {"prompts": "a cat"},
        }
    )
    assert {where for where, *_ in problems} == {"mine.toml"}
    assert {field: (expected, found) for _, field, expected, found, _ in problems} == {
        "trainig": ("a known field", "`trainig`"),
        "name": (
            "text of 1 to 80 characters, none of them a slash or control character, not starting with a dot",
            'the text "a/b"',
        ),
        "model.base": ("text that is not empty", 'the text ""'),
        "model.prediction": ('one of "auto", "epsilon", "v"', 'the text "eps"'),
        "adapter.rank": ("a whole number from 1 to 1024", "0"),
        "adapter.alpha": ("a number above 0 to 4096", 'the text "16"'),
        "adapter.targets": ("text that is not empty", '["attention"]'),
        "adapter.sets[0].rank": ("a whole number from 0 to 1024", "1.5"),
        "adapter.sets[0].alpha": ("a number from 0 to 4096", "nothing"),
        "adapter.sets[1]": ("a table with `targets` and `rank` and `alpha`", "3"),
        "dataset.resolution": ('a whole number from 16 to 4096 or "auto" (px)', 'the text "full"'),
        "dataset.background": ("a colour such as #ffffff", 'the text "white"'),
        "dataset.subsets[0].repeats": ("a whole number from 1 to 10000", "0"),
        "dataset.subsets[0].flip": ("true or false", "1"),
        "dataset.subsets[1].repeat": ("a known field", "`repeat`"),
        "dataset.subsets[1].path": ("text that is not empty", "nothing"),
        "training.steps": ("a whole number from 0 to 10000000 (steps)", "true"),
        "training.seed": ("a whole number from 0 to 9223372036854775807", "-1"),
        "training.stepz": ("a known field", "`stepz`"),
        "optimizer.lr_unet": ("a number from 0 to 10", "NaN"),
        "optimizer.beta1": ("a number from 0 below 1", "1.0"),
        "optimizer.eps": ("a number above 0 to 1", "0"),
        "loss": ("a table of fields", "null"),
        "sampling.prompts": ("a list, each text", 'the text "a cat"'),
    }
    advice = {field: advice for _, field, _, _, advice in problems}
    assert advice["trainig"] == "did you mean `training`?"
    assert advice["training.stepz"] == "did you mean `steps`?"
    assert advice["dataset.subsets[1].repeat"] == "did you mean `repeats`?"
    assert advice["training.seed"] == "decides every draw of the run"


def test_an_unknown_field_that_resembles_none_is_answered_with_all_there_are(refused):
    ((*_, advice),) = refused({"loss": {"xyz": 1}})
    assert advice == "there are: noise_offset, snr_gamma"


@pytest.mark.parametrize(
    ("field", "table", "found"),
    [
        ("model", {"model": 3}, "3"),
        ("dataset", {"dataset": []}, "[]"),
        ("dataset.subsets", {"dataset": {"subsets": []}}, "[]"),
        ("dataset.subsets[0]", {"dataset": {"subsets": ["images"]}}, 'the text "images"'),
        ("training.epochs", {"training": {"epochs": 1.0}}, "1.0"),
        ("prior.weight", {"prior": {"weight": float("inf")}}, "Infinity"),
        ("optimizer.clip_norm", {"optimizer": {"clip_norm": float("inf")}}, "Infinity"),
        ("prior.weight", {"prior": {"weight": True}}, "true"),
        ("saving.every", {"saving": {"every": float("nan")}}, "NaN"),
        ("training.seed", {"training": {"seed": 2**63}}, "9223372036854775808"),
        ("kind", {"kind": "trian"}, 'the text "trian"'),
        ("kind", {"kind": ["train"]}, '["train"]'),
        ("runtime.device", {"runtime": {"device": "cuda:x"}}, 'the text "cuda:x"'),
        ("name", {"name": "cat\n"}, 'the text "cat\\n"'),
        ("runtime.device", {"runtime": {"device": "cpu\n"}}, 'the text "cpu\\n"'),
        ("dataset.background", {"dataset": {"background": "#ffffff\n"}}, 'the text "#ffffff\\n"'),
        ("name", {"name": "x" * 81}, f'the text "{"x" * 56}…'),
        ("name", {"name": "a\u001b[31m"}, 'the text "a\\u001b[31m"'),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_where_it_stands(refused, field, table, found):
    ((where, place, expected, said, _),) = refused(table)
    assert (where, place, said) == ("mine.toml", field, found)
    assert expected


def test_whole_numbers_are_taken_where_numbers_are_wanted_but_not_the_other_way_round(checked, refused):
    assert checked({"adapter": {"alpha": 8}}).adapter.alpha == 8
    assert [field for _, field, *_ in refused({"training": {"batch": 8.0}})] == ["training.batch"]


def test_what_is_missing_altogether_is_named_with_what_belongs_there():
    with pytest.raises(UserError) as caught:
        Request().checked()
    assert [(p.field, p.expected, p.found) for p in caught.value.problems] == [
        ("model", "a table with `base`", "nothing"),
        ("dataset", "a table with `subsets`", "nothing"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_says_what_it_is_for_and_what_it_takes(kind):
    for name, annotated, _ in leaves(KINDS[kind]):
        assert help_of(annotated) and not help_of(annotated).endswith("."), name
        assert describe(annotated), name


def test_leaves_are_the_fields_that_hold_values_by_their_dotted_names():
    names = [name for name, _, _ in leaves(KINDS["train"])]
    assert len(names) == len(set(names))
    assert {"name", "model.base", "dataset.subsets[].path", "adapter.sets[].rank", "sampling.prompts"} <= set(names)
    assert not {"model", "dataset.subsets", "adapter.sets"} & set(names)
    assert {name: default for name, _, default in leaves(KINDS["train"])}["optimizer.lr_unet"] == 1e-4


def test_every_default_is_one_that_its_own_field_accepts(checked):
    defaults = msgspec.to_builtins(checked())
    assert checked(defaults) == checked()
    assert set(defaults) - {"kind"} == set(fields(KINDS["train"]))


def test_a_long_value_is_shortened_where_it_is_quoted():
    assert spell("x" * 100) == f'the text "{"x" * 56}…'
    assert len(spell(list(range(1000)))) == 58
