"""Tokens are counted as transformers' tokenizer, which training uses, would count them."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from engine import tiny
from engine.errors import UserError
from engine.models import counting
from engine.models.counting import Counter, counter
from engine.models.tokenizer import clip_tokenizer, clip_vocabulary, folder_tokenizer

TEXTS = [
    "", " ", "a photo of a cat", "A PHOTO of a CAT!!", "ohwx 猫 🐙 don't_stop <lora:x:0.8>", "1girl, solo, long_hair",
    "Ünïcödé — naïve café!!  \n (masterpiece:1.2), it's 2024's best", "x</w>y", "don’t “quote”…",
    "[/foo] [best quality]",
    "<|startoftext|>a<|endoftext|>", "<|STARTOFTEXT|> <|EndOfText|>", "a <s1> cat <s2>, <S1>", "wow!!! ! a!",
    "\0\x01\x7f",
    "e\u0301 é İ ß ﬁ Ⅻ ½ ²", "\U0001f469\u200d\U0001f466 \U0001f1e9\U0001f1ea", "\u200b\u200d\ufeff",
    "عربى हिन्दी ไทย 한국어", "a" * 300, "1234567890", "'s't're've'm'll'd", "\t\r\n",
]  # fmt: skip


def drawn_texts() -> list[str]:
    drawn = random.Random(20261123)
    pieces = [
        "cat",
        "Ohwx",
        " ",
        "  ",
        ",",
        "!",
        "'s",
        "’",
        "é",
        "e\u0301",
        "猫",
        "🐙",
        "<s1>",
        "<|endoftext|>",
        "</w>",
        "\n",
        "7",
        "42",
        "_",
    ]
    return ["".join(drawn.choices(pieces, k=drawn.randrange(1, 30))) for _ in range(500)]


def assert_equal(count: Counter, tokenizer) -> None:
    for text in [*TEXTS, *drawn_texts()]:
        expected = len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)
        assert count(text) == expected, text


@pytest.fixture(scope="module")
def whole():
    return clip_tokenizer()


def test_clips_own_tokens_are_counted(whole):
    assert_equal(Counter(counting.clip(), 77), whole)


def test_the_embedded_bases_tokens_are_counted():
    count = counter("tiny")
    assert count.limit == 75
    assert_equal(count, folder_tokenizer(tiny.FOLDER / "tokenizer", 77, 1 << 20))


def test_a_folder_saved_by_transformers_is_read(tmp_path, whole):
    whole.save_pretrained(tmp_path)
    assert_equal(Counter(counting.saved(tmp_path), 77), folder_tokenizer(tmp_path, 77, 1 << 20))


def test_learned_tokens_of_a_folder_count_once(tmp_path):
    tokenizer = clip_tokenizer()
    tokenizer.add_tokens(["<s1>", "<s2>"])
    tokenizer.save_pretrained(tmp_path)
    count = Counter(counting.saved(tmp_path), 77)
    assert count("<s1> <s2>") == 2
    assert_equal(count, folder_tokenizer(tmp_path, 77, 1 << 20))


SPECIAL = {"content": "<|startoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer_config.json": {"bos_token": SPECIAL | {"__type": "AddedToken"}, "pad_token": "<|endoftext|>"}},
        {"special_tokens_map.json": {"bos_token": SPECIAL, "pad_token": "<|endoftext|>"}},
        {"tokenizer_config.json": {}, "special_tokens_map.json": {"pad_token": "!"}},
        {"added_tokens.json": {"<s1>": 49408}, "special_tokens_map.json": {"additional_special_tokens": ["<s1>"]}},
        {"tokenizer_config.json": {"additional_special_tokens": ["<s2>"]}, "added_tokens.json": {"<s2>": 49408}},
    ],
)  # fmt: skip
def test_folders_of_the_older_form_are_read(tmp_path, files):
    vocabulary, merges = clip_vocabulary()
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert_equal(Counter(counting.saved(tmp_path), 77), folder_tokenizer(tmp_path, 77, 1 << 20))


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"model": {"vocab": 3, "merges": []}}', '{"model": {"vocab": {}, "merges": [["a"]]}}']
)
def test_a_damaged_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="expected"):
        counting.saved(tmp_path)


def test_a_base_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing of that name"):
        counter(str(tmp_path / "missing.safetensors"))


def test_a_base_that_would_have_to_be_fetched_is_taken_for_one_with_clips_tokens(monkeypatch, whole):
    monkeypatch.setattr("engine.models.hub.cached", lambda *_, **__: None)
    count = counter("somebody/some-base")
    assert count.limit == 75
    assert_equal(count, whole)


def test_counting_takes_nothing_heavy():
    code = """
import sys
from engine.models.counting import clip, counter
counter("tiny")("a cat"), clip()
print(*(name for name in ("torch", "numpy", "diffusers", "transformers", "safetensors") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_tokens_of_an_embedded_base_are_counted_by_the_tokenizer_that_it_shares(miniatures):
    assert_equal(counter("tiny-xl"), folder_tokenizer(tiny.FOLDER / "tokenizer", 32, 1 << 20))
