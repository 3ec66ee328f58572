"""Tokens of captions are counted by the base that they are meant for."""

from __future__ import annotations

import pytest

from engine.host import tokens
from engine.host.kept import Kept


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(tokens, "_counters", Kept(4))


def test_tokens_are_counted_and_the_limit_is_the_bases(tmp_path):
    told = tokens.count("tiny", ["", "a cat", "a cat, a cat"])
    assert (told.tokens, told.limit) == ([0, 2, 5], 75)
    assert tokens.count("tiny", []).tokens == []


def test_the_counter_of_a_base_is_made_once(monkeypatch):
    tokens.count("tiny", ["a cat"])
    monkeypatch.setattr(tokens, "counter", lambda base: pytest.fail("it is there"))
    assert tokens.count("tiny", ["a cat"]).tokens == [2]
