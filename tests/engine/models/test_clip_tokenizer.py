"""CLIP's tokenizer from its merges: the ids below were made once with OpenAI's own `SimpleTokenizer`."""

from __future__ import annotations

import pytest

from engine.models.tokenizer import MERGES, VOCABULARY, clip_tokenizer

BEGIN, END = 49406, 49407


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer()


@pytest.mark.parametrize(
    ("caption", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("", []),
        (
            "Ünïcödé — naïve café!!  \n (masterpiece:1.2), it's 2024's best",
            [6522, 77, 35689, 66, 7255, 67, 4166, 2005, 1097, 35689, 563, 15304, 748, 263, 12066, 281, 272, 269, 273,
             2361, 585, 568, 273, 271, 273, 275, 568, 949],
        ),
        (
            "ohwx 猫 🐙 don't_stop <lora:x:0.8>",
            [47993, 163, 234, 360, 2074, 503, 847, 713, 318, 1691, 283, 2179, 320, 281, 343, 281, 271, 269, 279, 285],
        ),
        ("x</w>y", [343, 34308, 342, 285, 344]),
        ("1girl, solo, long_hair", [272, 1611, 267, 5797, 267, 1538, 318, 2225]),
        ("don’t “quote”…", [847, 728, 503, 339, 728, 506, 4020, 728, 251, 959]),
    ],
)  # fmt: skip
def test_captions_become_the_ids_that_clip_was_trained_on(tokenizer, caption, ids):
    assert tokenizer(caption).input_ids == [BEGIN, *ids, END]


def test_the_vocabulary_is_clips_and_small_enough_to_ship(tokenizer):
    assert len(tokenizer) == VOCABULARY
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (BEGIN, END, END)
    assert MERGES.stat().st_size < 400_000
