"""The tokenizer: CLIP's byte-level BPE, learned from captions. It encodes any text, and captions' words as one each."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.models.tokenizer import WINDOW, byte_letters
from engine.tiny import scenes

ENTRIES = 4096
"""At most: 256 bytes, 256 bytes that end a word, merges, and the two marks."""
LINES = 60_000
_ONE_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def learn(names: list[str]) -> CLIPTokenizer:
    """A tokenizer of captions of these emoji."""
    chance = Random("tokens")
    captions = [scenes.draw(names, chance).caption for _ in range(LINES)] + names
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_ONE_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    letters = byte_letters()
    fixed = 2 * len(letters) + 2
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False, min_frequency=2
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in _merges(learner)][: ENTRIES - fixed]
    entries = [*letters, *(letter + "</w>" for letter in letters), *(first + second for first, second in merges)]
    entries = [*dict.fromkeys(entries), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={entry: number for number, entry in enumerate(entries)}, merges=merges, model_max_length=WINDOW
    )


def save(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, without the padding of the last captions."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(str(folder))


def _merges(learner: Tokenizer) -> list[list[str]]:
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
