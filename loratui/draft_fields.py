"""The fields of a training config as a form shows them: in what way each is edited, how its value is written in a cell,
and how what was typed is read back. All of it follows from the schema's types; nothing here knows a particular field.

What is typed and is no value of its field stays the text that it is: the check then says what was expected.
"""

from __future__ import annotations

import functools
import math
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from engine.config import Train, describe, fields, help_of
from engine.config.schema import meta_of

Way = Literal["text", "switch", "choice", "lines", "tables"]
"""How a field is edited: a line of text, a switch, one of a few words, a list of lines, a list of tables."""

SHORT = 32
"""Cells up to which an expectation in words stands beside its field."""
BOUNDLESS = 2**31
"""A limit from which on it tells nobody anything."""
LEAST, MOST = -(2**63), 2**63 - 1
"""Whole numbers that a draft's file can hold."""


@dataclass(frozen=True)
class Leaf:
    """One field that holds a value, or a list."""

    path: str
    """Dotted, from the config's root."""
    kind: Any
    """Its type, with limits and texts."""
    default: Any
    """msgspec.NODEFAULT where a config has to give it."""

    @property
    def section(self) -> str:
        """The table that it stands in; empty at the root."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def required(self) -> bool:
        return self.default is msgspec.NODEFAULT

    @property
    def advanced(self) -> bool:
        return bool((meta_of(self.kind).extra or {}).get("advanced"))

    @property
    def help(self) -> str:
        return help_of(self.kind)

    @property
    def expected(self) -> str:
        """What it accepts, in words."""
        return describe(self.kind)

    @property
    def item(self) -> type[msgspec.Struct] | None:
        """The struct that its items are, in a list of tables."""
        return get_args(bare(self.kind))[0] if self.way == "tables" else None

    @property
    def way(self) -> Way:
        plain = bare(self.kind)
        if plain is bool:
            return "switch"
        if get_origin(plain) is Literal:
            return "choice"
        if get_origin(plain) is list:
            return "tables" if is_struct(get_args(plain)[0]) else "lines"
        return "text"


@functools.cache
def leaves(struct: type[msgspec.Struct] = Train, path: str = "") -> dict[str, Leaf]:
    """All fields by their dotted names, in the schema's order. A list of tables is one of them; its items' are not."""
    found: dict[str, Leaf] = {}
    for name, (kind, field) in fields(struct).items():
        place = f"{path}.{name}" if path else name
        if is_struct(bare(kind)):
            found |= leaves(bare(kind), place)
        else:
            default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            found[place] = Leaf(place, kind, default)
    return found


def choices(leaf: Leaf) -> tuple[Any, ...]:
    """The values of a switch or a choice."""
    return (False, True) if leaf.way == "switch" else get_args(bare(leaf.kind))


def spelled(value: Any) -> str:
    """A value as it stands in its cell; `parsed` reads a line of text back to an equal one."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return _spelled_float(value)
        case str():
            return value
        case list():
            return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}" if value else "none"
    return str(value)


def _spelled_float(value: float) -> str:
    mantissa, _, exponent = repr(value).partition("e")
    mantissa = mantissa.removesuffix(".0")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def parsed(kind: Any, text: str) -> Any:
    """What was typed as the value that it is, where the type takes it for one; else the text."""
    options = _options(kind)
    if str in options or not {int, float} & options:
        return text
    text = text.strip()
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        if storable(number) != number:
            return text
        whole = isinstance(number, float) and float not in options and number.is_integer() and abs(number) <= MOST
        return int(number) if whole else number
    return text


def storable(value: Any) -> Any:
    """A value as a draft's file can hold it: what it has no word for becomes a text."""
    match value:
        case bool() | str() | list() | dict():
            return value
        case int() if LEAST <= value <= MOST:
            return value
        case float() if math.isfinite(value):
            return value
    return "null" if value is None else str(value)


def limits(kind: Any) -> str:
    """Range and unit, as short as they can be said: `1…1024`, `0…<1`, `auto or ≥ 0 steps`."""
    meta = meta_of(kind)
    extra = meta.extra or {}
    if extra.get("expected"):
        return extra["expected"] if len(extra["expected"]) <= SHORT else ""
    plain = bare(kind)
    if get_origin(plain) is Literal:
        text = " · ".join(map(str, get_args(plain)))
    elif get_origin(plain) in (Union, types.UnionType):
        parts = sorted((limits(option) for option in get_args(plain)), key=lambda part: not part[:1].isalpha())
        text = " or ".join(part for part in parts if part)
    else:
        text = _range(meta)
    return f"{text} {extra.get('unit', '')}".strip()


def _range(meta: msgspec.Meta) -> str:
    low = meta.ge if meta.ge is not None else meta.gt
    high = meta.le if meta.le is not None else meta.lt
    if low is None:
        return ""
    if high is None or high >= BOUNDLESS:
        return f"{'≥' if meta.gt is None else '>'} {low:,}"
    return f"{'' if meta.gt is None else '>'}{low:,}…{'' if meta.lt is None else '<'}{high:,}"


def _options(kind: Any) -> set[Any]:
    """The plain types that a kind consists of; words of a Literal are none."""
    plain = bare(kind)
    if get_origin(plain) in (Union, types.UnionType):
        return {option for part in get_args(plain) for option in _options(part)}
    return {plain} if isinstance(plain, type) else set()


def bare(kind: Any) -> Any:
    """A type without its limits and texts."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def is_struct(kind: Any) -> bool:
    """Whether a plain type is a table with fields of its own."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
