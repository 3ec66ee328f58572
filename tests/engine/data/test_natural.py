"""Names come in the order that people expect, however many there are."""

from __future__ import annotations

import os
import random
import re

from engine.data.natural import in_natural_order


def compared(name: str) -> tuple:
    """The order in so many words: text and numbers in turn, then the bytes."""
    pieces = re.split("([0-9]+)", name.casefold())
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], os.fsencode(name)


def test_numbers_are_ordered_by_their_value():
    assert in_natural_order(["10.png", "9.png", "1.png", "b.png", "a10b2.png", "a9b30.png", "a.png"]) == [
        "1.png", "9.png", "10.png", "a9b30.png", "a10b2.png", "a.png", "b.png",
    ]  # fmt: skip


def test_names_that_differ_in_case_or_zeros_alone_have_an_order_too():
    names = ["a01", "A1", "a1", "a001", "ß", "ss", "SS"]
    assert in_natural_order(names) == in_natural_order(reversed(names)) == ["A1", "a001", "a01", "a1", "SS", "ss", "ß"]


def test_no_names_are_in_order():
    assert in_natural_order([]) == []


def test_the_order_is_that_of_text_and_numbers_in_turn_for_any_names():
    drawn = random.Random(20261123)
    letters = [
        "a",
        "B",
        "b",
        "0",
        "00",
        "1",
        "9",
        "10",
        "x" * 3,
        ".",
        " ",
        "-",
        "é",
        "É",
        "ß",
        "\x01",
        "\udcff",
        "猫",
        "²",
    ]
    names = {"".join(drawn.choices(letters, k=drawn.randrange(1, 7))) for _ in range(5000)} | {"9" * 255, "9" * 254}
    assert in_natural_order(names) == sorted(names, key=compared)
