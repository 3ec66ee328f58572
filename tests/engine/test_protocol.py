"""The journal's lines: what is written is read back, and a reader stands whatever it finds."""

from __future__ import annotations

import json
import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import protocol
from engine.protocol import JournalReader, Status, decode, encode, read_status

KINDS = get_args(protocol.AnyEvent)
BASIC = {
    str: st.text(st.characters(codec="utf-8"), max_size=20),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    NoneType: st.none(),
    msgspec.Raw: st.dictionaries(st.text(max_size=5), st.integers(), max_size=3).map(
        lambda value: msgspec.Raw(msgspec.json.encode(value))
    ),
}
STEP = protocol.Step(step=3, loss=0.5, lr={"unet": 1e-4})


def values_of(hint: Any) -> st.SearchStrategy:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of(*map(values_of, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(*map(values_of, arguments), max_size=3)
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=3)
    return BASIC[hint]


def any_of(kind: type) -> st.SearchStrategy:
    return st.builds(kind, **{name: values_of(hint) for name, hint in get_type_hints(kind).items()})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_is_one_line_that_is_read_back_as_it_was(kind):
    @settings(max_examples=15, deadline=None)
    @given(any_of(kind))
    def check_one(event):
        line = encode(event)
        assert line.count(b"\n") == 1 and line.endswith(b"\n")
        assert decode(line) == event
        assert json.loads(line)["event"] == kind.__struct_config__.tag

    check_one()


def test_the_events_have_tags_of_their_own():
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(tags)) == len(tags) > 10


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_know_becomes_null(value):
    assert protocol.finite(value) is None and protocol.finite(1.5) == 1.5
    line = encode(protocol.Step(step=1, loss=value, seconds=value))
    assert json.loads(line)["loss"] is None


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"{", b"[]", b"null", b'"step"', b"\xff\xfe", b'{"event": "from-a-later-version", "x": 1}'],
)
def test_a_line_that_is_damaged_or_of_a_later_version_is_no_event(line):
    assert decode(line) is None


def test_a_field_of_a_later_version_is_passed_over():
    assert decode(encode(STEP).replace(b"{", b'{"later": [1], ', 1)) == STEP


def test_a_mistake_reads_as_it_is_told_on_the_command_line():
    event = protocol.Refused(where="a.toml", field="x", expected="a number", found="1", advice="do it")
    assert event.text() == "a.toml: x: expected a number; found 1; do it"


# ---- following a journal


def test_a_reader_gets_every_event_once_and_waits_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = JournalReader(path)
    assert list(reader.read()) == []  # there is no journal yet
    line = encode(STEP)
    with path.open("ab") as file:
        file.write(line + line[:10])
        file.flush()
        assert list(reader.read()) == [STEP]
        assert list(reader.read()) == []
        file.write(line[10:-1])
        file.flush()
        assert list(reader.read()) == []
        file.write(b"\n" + line)
        file.flush()
        assert list(reader.read()) == [STEP, STEP]
    assert reader.offset == path.stat().st_size


def test_a_reader_goes_on_where_another_stopped_and_passes_over_what_it_can_not_read(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(STEP) + b"garbage\n" + encode(protocol.Resumed(step=3)))
    first = JournalReader(path)
    assert next(first.read()) == STEP
    assert list(JournalReader(path, first.offset).read()) == [protocol.Resumed(step=3)]


# ---- the status


@settings(max_examples=15, deadline=None)
@given(status=any_of(Status))
def test_a_status_is_read_back_as_it_was_written(tmp_path_factory, status):
    folder = tmp_path_factory.mktemp("job")
    (folder / protocol.STATUS).write_bytes(status.to_bytes())
    assert read_status(folder) == status


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"state": "bored"}', b"[]", b"\xff"])
def test_a_status_that_is_missing_or_damaged_is_a_fresh_one(tmp_path, content):
    if content is not None:
        (tmp_path / protocol.STATUS).write_bytes(content)
    assert read_status(tmp_path) == Status()


# ---- the workspace


def test_the_workspace_is_the_one_in_the_environment_or_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("LORATUI_WORKSPACE", raising=False)
        else:
            monkeypatch.setenv("LORATUI_WORKSPACE", value)
        assert protocol.workspace() == tmp_path / "loratui"
    monkeypatch.setenv("LORATUI_WORKSPACE", "~/elsewhere")
    assert protocol.workspace() == tmp_path / "elsewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORATUI_WORKSPACE", "here")
    assert protocol.workspace() == tmp_path / "here"
