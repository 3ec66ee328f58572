"""Walking a schema of msgspec structs: checking data against it, naming what is wrong, describing it, writing it.

msgspec stops at the first error and checks nothing on construction. So `check` walks the types itself, converts every
leaf alone and goes on after a failure: a user sees all mistakes of a file at once. Nothing here knows a particular
field.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import tomli_w
from msgspec import Meta

from engine.errors import Problem

Origins = Callable[[str], str]
"""Where the value of a dotted field came from: the name of a file, or `--set`."""


@functools.cache
def fields(struct: type[msgspec.Struct]) -> dict[str, tuple[Any, msgspec.structs.FieldInfo]]:
    """The fields of a struct: name → (type with its constraints, msgspec's description)."""
    hints = get_type_hints(struct, include_extras=True)
    return {field.name: (hints[field.name], field) for field in msgspec.structs.fields(struct)}


def check(struct: type[msgspec.Struct], data: Any, origin: Origins, path: str = "") -> tuple[Any, list[Problem]]:
    """Convert `data` into `struct`. Returns the instance, or None with every problem found on the way."""
    if not isinstance(data, Mapping):
        return None, [Problem(where=origin(path), field=path, expected=describe(struct), found=spell(data))]
    problems = [_unknown(struct, key, path, origin) for key in data if key not in _known(struct)]
    values = {}
    for name, (kind, field) in fields(struct).items():
        place = f"{path}.{name}" if path else name
        if name in data:
            values[name], found = _value(kind, data[name], place, origin)
            problems += found
        elif field.required:
            problems.append(
                Problem(
                    where=origin(place), field=place, expected=describe(kind), found="nothing", advice=help_of(kind)
                )
            )
    return (None if problems else struct(**values)), problems


def _known(struct: type[msgspec.Struct]) -> set[str]:
    tag = struct.__struct_config__.tag_field
    return {*fields(struct), *([tag] if tag else [])}


def _unknown(struct: type[msgspec.Struct], key: str, path: str, origin: Origins) -> Problem:
    place = f"{path}.{key}" if path else str(key)
    nearest = difflib.get_close_matches(str(key), sorted(_known(struct)), n=1, cutoff=0.5)
    advice = f"did you mean `{nearest[0]}`?" if nearest else f"there are: {', '.join(sorted(_known(struct)))}"
    return Problem(where=origin(place), field=place, expected="a known field", found=f"`{key}`", advice=advice)


def _value(kind: Any, data: Any, place: str, origin: Origins) -> tuple[Any, list[Problem]]:
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return check(bare, data, origin, place)
    if get_origin(bare) is list and isinstance(data, list) and len(data) >= (meta_of(kind).min_length or 0):
        return _list(get_args(bare)[0], data, place, origin)
    if get_origin(bare) is dict and isinstance(data, Mapping):
        return _dict(get_args(bare)[1], data, place, origin)
    try:
        if isinstance(data, float) and not math.isfinite(data):
            raise msgspec.ValidationError
        return msgspec.convert(data, kind, strict=True), []
    except msgspec.ValidationError:
        return None, [
            Problem(where=origin(place), field=place, expected=describe(kind), found=spell(data), advice=help_of(kind))
        ]


def _list(kind: Any, data: list, place: str, origin: Origins) -> tuple[list, list[Problem]]:
    converted = [_value(kind, item, f"{place}[{index}]", origin) for index, item in enumerate(data)]
    return [value for value, _ in converted], [problem for _, problems in converted for problem in problems]


def _dict(kind: Any, data: Mapping, place: str, origin: Origins) -> tuple[dict, list[Problem]]:
    converted = {key: _value(kind, item, f"{place}.{key}", origin) for key, item in data.items()}
    problems = [problem for _, problems in converted.values() for problem in problems]
    return {key: value for key, (value, _) in converted.items()}, problems


def spell(value: Any) -> str:
    """A found value as the user would recognise it, with its type where that is the point."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= 60 else text[:57] + "…"
    return f"the text {text}" if isinstance(value, str) else text


def meta_of(kind: Any) -> Meta:
    """The constraints and texts of an annotated type, outermost first."""
    for argument in get_args(kind) if get_origin(kind) is Annotated else ():
        if isinstance(argument, Meta):
            return argument
    return Meta()


def help_of(kind: Any) -> str:
    return meta_of(kind).description or ""


def describe(kind: Any) -> str:
    """What a type accepts, in words: `a whole number from 1 to 320 (steps)`."""
    if get_origin(kind) is Annotated:
        bare, meta = get_args(kind)[0], meta_of(kind)
        extra = meta.extra or {}
        if extra.get("expected"):
            return extra["expected"]
        return describe(bare) + _range(meta) + (f" ({extra['unit']})" if extra.get("unit") else "")
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(
            f'"{get_args(option)[0]}"'
            if get_origin(option) is Literal and len(get_args(option)) == 1
            else describe(option)
            for option in get_args(kind)
        )
    if get_origin(kind) is list:
        return f"a list, each {describe(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"a table, each {describe(get_args(kind)[1])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Any: "a finite value"}
    return names.get(kind) or _table_in_words(kind)


def _table_in_words(struct: type[msgspec.Struct]) -> str:
    required = [f"`{name}`" for name, (_, field) in fields(struct).items() if field.required]
    return f"a table with {' and '.join(required)}" if required else "a table of fields"


def _range(meta: Meta) -> str:
    low = meta.ge if meta.ge is not None else meta.gt
    high = meta.le if meta.le is not None else meta.lt
    if low is None and high is None:
        return " that is not empty" if meta.min_length else ""
    above = f"above {low}" if meta.gt is not None else f"from {low}"
    below = f"below {high}" if meta.lt is not None else f"to {high}"
    return f" {above}" + (f" {below}" if high is not None else " up") if low is not None else f" {below}"


def json_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a config, for editors. Files need not name their kind, so it is not asked for."""
    schema = msgspec.json.schema(struct)
    definition = schema["$defs"][struct.__name__]
    definition["required"] = [name for name in definition["required"] if name != struct.__struct_config__.tag_field]
    return schema


def leaves(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf of a schema: (dotted name, type, default). The fields of list items are named `list[].field`."""
    for name, (kind, field) in fields(struct).items():
        place = f"{path}.{name}" if path else name
        bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        item = get_args(bare)[0] if get_origin(bare) is list else None
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            yield from leaves(bare, place)
        elif isinstance(item, type) and issubclass(item, msgspec.Struct):
            yield from leaves(item, f"{place}[]")
        else:
            default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
            yield place, kind, default


def to_toml(config: msgspec.Struct, comments: bool = False) -> str:
    """A config as TOML, every field written out; with `comments`, each with its help, range and unit."""
    lines: list[str] = []
    tag = type(config).__struct_config__.tag_field
    if tag:
        lines.append(f"{tag} = {_toml(type(config).__struct_config__.tag)}")
    _table(config, "", lines, comments)
    return "\n".join(lines).strip() + "\n"


def _table(config: msgspec.Struct, path: str, lines: list[str], comments: bool) -> None:
    nested = []
    for name, (kind, _) in fields(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, msgspec.Struct | dict) or (
            isinstance(value, list) and value and isinstance(value[0], msgspec.Struct)
        ):
            nested.append((name, value, kind))
            continue
        if comments and help_of(kind):
            lines.append(f"# {help_of(kind)}: {describe(kind)}")
        lines.append(f"{name} = {_toml(value)}")
    for name, value, kind in nested:
        place = f"{path}.{name}" if path else name
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                header, _, inside = _free_table(item, place).partition("\n")
                lines += ["", header, *([f"# {help_of(kind)}: {describe(kind)}"] if comments else []), inside]
            else:
                lines += ["", f"[[{place}]]" if isinstance(value, list) else f"[{place}]"]
                _table(item, place, lines, comments)


def _free_table(table: dict[str, Any], place: str) -> str:
    """A table whose keys no schema names, under its header; tables inside it get headers of their own."""
    for name in reversed(place.split(".")):
        table = {name: table}
    return tomli_w.dumps(table).strip()


def _toml(value: Any) -> str:
    return tomli_w.dumps({"v": msgspec.to_builtins(value)}).removeprefix("v = ").strip()
