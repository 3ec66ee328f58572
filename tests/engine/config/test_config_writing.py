"""What is written is read again as the same request, and the JSON schema for editors agrees with both."""

from __future__ import annotations

import re
import tomllib
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import KINDS, PRESETS, Generate, Request, Train, check, fields, json_schema, leaves, to_toml
from engine.config.schema import help_of, meta_of
from engine.config.structs import Meta


def values_of(kind: Any) -> st.SearchStrategy:
    """Values that a field of this type accepts, made from its annotations alone."""
    bare, meta = (get_args(kind)[0], meta_of(kind)) if get_origin(kind) is Annotated else (kind, Meta())
    if get_origin(bare) in (Union, UnionType):
        return st.one_of(*map(values_of, get_args(bare)))
    if get_origin(bare) is Literal:
        return st.sampled_from(get_args(bare))
    if get_origin(bare) is list:
        return st.lists(values_of(get_args(bare)[0]), min_size=meta.min_length or 0, max_size=2)
    if get_origin(bare) is dict:
        plain = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"), max_size=120)
        table = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), plain, max_size=3)
        return st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), plain | table | st.lists(table))
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return st.builds(bare, **{name: values_of(annotated) for name, (annotated, _) in fields(bare).items()})
    if bare is bool:
        return st.booleans()
    if bare is str:
        if meta.pattern:
            return st.from_regex(meta.pattern, fullmatch=True).filter(lambda text: len(text) <= (meta.max_length or 99))
        return st.text(st.characters(codec="utf-8"), min_size=meta.min_length or 0, max_size=20)
    if bare is int:
        low = meta.ge if meta.ge is not None else -(2**63)
        return st.integers(low, meta.le if meta.le is not None else 2**63 - 1)
    assert bare is float
    low, high = (meta.ge if meta.gt is None else meta.gt), (meta.le if meta.lt is None else meta.lt)
    return st.floats(low, high, exclude_min=meta.gt is not None, exclude_max=meta.lt is not None, allow_infinity=False)


def read_back(kind: type, text: str) -> Any:
    config, problems = check(kind, tomllib.loads(text), lambda field: "test")
    assert not problems
    return config


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_any_request_is_read_back_as_it_was_written(kind, comments):
    @settings(max_examples=40, deadline=None)
    @given(values_of(kind))
    def check_one(config):
        assert read_back(kind, to_toml(config, comments)) == config

    check_one()


def test_the_defaults_are_written_in_full_with_help_range_and_unit_beside_each(checked):
    config = checked()
    text = to_toml(config, comments=True)
    assert read_back(Train, text) == config
    lines = text.splitlines()
    for name, kind, _ in leaves(Train):
        if "[]" not in name:
            field = name.rpartition(".")[2]
            assert any(
                line.startswith(f"{field} = ") and lines[place - 1].startswith(f"# {help_of(kind)}: ")
                for place, line in enumerate(lines)
            ), name
    assert "# length of the run; 0: given in epochs: a whole number from 0 to 10000000 (steps)" in lines
    assert not any(line.startswith("#") for line in to_toml(config).splitlines())


@pytest.mark.parametrize(
    ("method", "family"), [(method, family) for method, families in PRESETS.items() for family in families]
)
def test_every_preset_is_sound_with_images_and_a_class_filled_in(least, method, family):
    request = Request()
    request.lay({"kind": "train"} | PRESETS[method][family], f"preset {method}")
    request.lay({"model": least["model"], "dataset": least["dataset"], "prior": {"prompt": "a cat"}}, "mine.toml")
    config = request.checked(Train)
    assert read_back(Train, to_toml(config, comments=True)) == config


def test_a_method_has_a_preset_for_every_family_and_for_the_embedded_base():
    assert all({"sd1", "sdxl", "tiny"} <= set(families) for families in PRESETS.values())


# ---- the JSON schema


def complaints(schema: dict, value: Any, root: dict, place: str = "") -> list[str]:
    """Where a value breaks a JSON schema. It knows the words that are used here, and refuses others."""
    unsaid = ("title", "description", "default", "$defs", "items", "properties", "unit", "advanced", "expected")
    items, properties = schema.get("items"), schema.get("properties", {})
    schema = {key: content for key, content in schema.items() if key not in unsaid}
    if "$ref" in schema:
        definition = root["$defs"][schema.pop("$ref").removeprefix("#/$defs/")]
        return complaints(definition, value, root, place) + complaints(schema, value, root, place)
    types = {"string": str, "integer": int, "number": int | float, "boolean": bool, "array": list, "object": dict}
    tests = {
        "type": lambda name: isinstance(value, types[name]) and (name == "boolean") == isinstance(value, bool),
        "enum": lambda options: value in options,
        "minimum": lambda limit: value >= limit,
        "maximum": lambda limit: value <= limit,
        "exclusiveMinimum": lambda limit: value > limit,
        "exclusiveMaximum": lambda limit: value < limit,
        "minLength": lambda limit: len(value) >= limit,
        "maxLength": lambda limit: len(value) <= limit,
        "minItems": lambda limit: len(value) >= limit,
        "pattern": lambda pattern: re.search(pattern, value) is not None,
        "required": lambda names: set(names) <= set(value),
        "anyOf": lambda options: any(not complaints(option, value, root) for option in options),
        "additionalProperties": lambda allowed: allowed or set(value) <= set(properties),
    }
    if "type" in schema and not tests["type"](schema["type"]):
        return [place]
    found = [place for word, content in schema.items() if not tests[word](content)]
    for index, item in enumerate(value if items else ()):
        found += complaints(items, item, root, f"{place}[{index}]")
    for name, inner in properties.items():
        if name in value:
            found += complaints(inner, value[name], root, f"{place}.{name}" if place else name)
    return found


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_json_schema_takes_whatever_this_program_writes(kind):
    schema = json_schema(kind)

    @settings(max_examples=40, deadline=None)
    @given(values_of(kind))
    def check_one(config):
        assert complaints(schema, tomllib.loads(to_toml(config)), schema) == []

    check_one()


def test_the_json_schema_refuses_the_mistakes_that_the_check_refuses():
    schema = json_schema(Train)
    tables = {
        "kind": "train",
        "name": "a/b",
        "model": {"base": "", "bas": 1},
        "dataset": {"subsets": [{"path": "a", "repeats": 0}], "resolution": 3},
        "training": {"steps": "12", "seed": -1},
        "optimizer": {"beta1": 1.0, "eps": 0},
        "runtime": {"precision": "fp8"},
    }
    _, problems = check(Train, tables, lambda field: "test")
    mine = {problem.field for problem in problems} - {"model.bas"} | {"model"}
    assert set(complaints(schema, tables, schema)) == mine


def test_every_field_of_the_json_schema_has_its_help():
    for kind in (Train, Generate):
        for name, definition in json_schema(kind)["$defs"].items():
            for field, inner in definition["properties"].items():
                assert "description" in inner or "$ref" in inner or field == "kind", f"{name}.{field}"
