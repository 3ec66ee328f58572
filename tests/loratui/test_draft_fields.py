"""How values of fields are written in a form, and how what was typed is read back."""

from __future__ import annotations

import math

import msgspec
import pytest

from engine.config import Train
from engine.config import leaves as schema_leaves
from loratui.draft_fields import choices, leaves, limits, parsed, spelled, storable


def kind(path: str):
    return leaves()[path].kind


def test_every_leaf_of_the_schema_is_a_field_lists_of_tables_as_one():
    expected = {name.partition("[]")[0] for name, _, _ in schema_leaves(Train)}
    assert set(leaves()) == expected


def test_every_default_reads_back_equal_from_what_is_shown_of_it():
    for leaf in leaves().values():
        if leaf.way == "text" and not leaf.required:
            assert parsed(leaf.kind, spelled(leaf.default)) == leaf.default, leaf.path


@pytest.mark.parametrize("value", [1e-4, 5e-5, 1.5, 1e20, 123456.75, 0.1 + 0.2])
def test_a_float_is_spelled_without_loss(value):
    assert parsed(kind("optimizer.lr_unet"), spelled(value)) == value


def test_a_whole_number_may_be_typed_as_people_write_it():
    assert parsed(kind("training.steps"), " 1e3 ") == 1000
    assert isinstance(parsed(kind("training.steps"), "1e3"), int)
    assert parsed(kind("training.steps"), "1_500") == 1500


def test_what_is_no_number_stays_the_text_that_it_is():
    for text in ("abc", "", "nan", "inf", "1.2.3", "9" * 400, "9" * 5000):
        assert parsed(kind("adapter.rank"), text) == text.strip()
        assert isinstance(parsed(kind("optimizer.lr_unet"), text), str | int | float)
    assert parsed(kind("adapter.rank"), "16.5") == 16.5


def test_text_is_taken_as_it_was_typed():
    assert parsed(kind("prior.prompt"), " 42 ") == " 42 "
    assert parsed(kind("schedule.warmup"), "auto") == "auto"
    assert parsed(kind("schedule.warmup"), "100") == 100


def test_ranges_are_short_and_have_their_units():
    told = {path: limits(kind(path)) for path in leaves()}
    assert told["adapter.rank"] == "1…1,024"
    assert told["adapter.alpha"] == ">0…4,096"
    assert told["adapter.dropout"] == "0…<1"
    assert told["training.seed"] == "≥ 0"
    assert told["dataset.resolution"] == "auto or 16…4,096 px"
    assert told["schedule.kind"] == "constant · linear · cosine"
    assert told["runtime.device"] == "auto, cpu, cuda or cuda:N"


def test_switches_and_choices_have_their_values():
    assert choices(leaves()["dataset.buckets"]) == (False, True)
    assert choices(leaves()["saving.precision"]) == ("fp16", "bf16", "fp32")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1 << 70, None])
def test_what_a_file_of_a_draft_has_no_word_for_becomes_a_text(value):
    held = storable(value)
    assert isinstance(held, str)
    assert msgspec.json.decode(msgspec.json.encode(held)) == held
