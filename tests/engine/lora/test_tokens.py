"""Tokens of several files: one name for one thing, and the way between two."""

from __future__ import annotations

import torch

from engine.lora.tokens import between, gathered


def vectors(seed: int, n: int = 1, *encoders: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {encoder: torch.randn(n, 4, generator=generator) for encoder in encoders or ("text_encoder",)}


def test_tokens_of_several_files_stand_side_by_side():
    tokens, renamed = gathered([("a", {"<a>": vectors(1)}), ("b", {"<b>": vectors(2)})])
    assert list(tokens) == ["<a>", "<b>"] and renamed == {}


def test_a_name_that_is_taken_by_something_else_is_changed_and_said():
    first, second, third = vectors(1), vectors(2), vectors(3)
    tokens, renamed = gathered([("a", {"<s1>": first}), ("b", {"<s1>": second, "word": first}), ("c", {"<s1>": third})])
    assert renamed == {"b: <s1>": "<s1-2>", "c: <s1>": "<s1-3>"}
    assert tokens["<s1>"] is first and tokens["<s1-2>"] is second and tokens["<s1-3>"] is third


def test_a_new_name_is_one_that_no_file_has():
    files = [("a", {"<s1>": vectors(1)}), ("b", {"<s1>": vectors(2)}), ("c", {"<s1-2>": vectors(3)})]
    tokens, renamed = gathered(files)
    assert renamed == {"b: <s1>": "<s1-3>"} and len(tokens) == 3


def test_names_of_any_make_can_be_changed():
    for token, changed in (("word", "word-2"), (">", "-2>"), ("", "-2"), ("a\nb", "a\nb-2")):
        _, renamed = gathered([("a", {token: vectors(1)}), ("b", {token: vectors(2)})])
        assert renamed == {f"b: {token}": changed}


def test_the_same_vectors_under_the_same_name_are_one_token():
    tokens, renamed = gathered([("a", {"<s1>": vectors(1)}), ("b", {"<s1>": vectors(1)})])
    assert list(tokens) == ["<s1>"] and renamed == {}


def test_a_token_of_another_encoder_or_length_is_another_one():
    for other in (vectors(1, 2), vectors(1, 1, "text_encoder", "text_encoder_2")):
        assert gathered([("a", {"<s1>": vectors(1)}), ("b", {"<s1>": other})])[1]


def test_the_way_between_goes_from_one_to_the_other():
    first, second = {"<a>": vectors(1), "<x>": vectors(3)}, {"<a>": vectors(2), "<y>": vectors(4)}
    for t in (0.0, 0.3, 1.0):
        found = between(first, second, t)
        exact = (1 - t) * first["<a>"]["text_encoder"].double() + t * second["<a>"]["text_encoder"].double()
        torch.testing.assert_close(found["<a>"]["text_encoder"].double(), exact, rtol=0, atol=1e-6)
        assert torch.equal(found["<x>"]["text_encoder"], first["<x>"]["text_encoder"])
        assert torch.equal(found["<y>"]["text_encoder"], second["<y>"]["text_encoder"])


def test_tokens_of_different_lengths_have_no_way_between_and_are_both_kept():
    found = between({"<a>": vectors(1)}, {"<a>": vectors(2, 3)}, 0.5)
    assert {token: len(each["text_encoder"]) for token, each in found.items()} == {"<a>": 1, "<a-2>": 3}
