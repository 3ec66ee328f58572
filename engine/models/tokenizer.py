"""Tokenizers of CLIP text encoders: that of a diffusers folder, or CLIP's own for files that bring none.

Both are one class of transformers, and both run offline. CLIP's vocabulary is rebuilt from its list of merges: the
order of the entries is their id, so nothing here may be sorted.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Problem, UserError

if TYPE_CHECKING:
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

MERGES = Path(__file__).parent / "clip" / "merges.txt.gz"
WINDOW = 77
"""Tokens that CLIP's text encoders read, the marks of begin and end included."""
VOCABULARY = 49_408
"""Entries: 256 bytes, 256 bytes that end a word, 48,894 merges and the two marks."""
END = "<|endoftext|>"


def byte_letters() -> list[str]:
    """The letters that stand for single bytes, in the order of their ids.

    Byte-level BPE (Radford et al. 2019) spells each byte as one printable letter: printable Latin-1 bytes as
    themselves, and first; the 68 others as the letters from U+0100 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """The entries of OpenAI's CLIP with their ids, and the pairs that it merges, first ones first."""
    merges = [tuple(line.split()) for line in gzip.decompress(MERGES.read_bytes()).decode().splitlines()]
    letters = byte_letters()
    entries = [*letters, *(letter + "</w>" for letter in letters), *(first + second for first, second in merges)]
    entries += ["<|startoftext|>", END]
    return {entry: number for number, entry in enumerate(entries)}, merges


def clip_tokenizer(window: int = WINDOW, pad: str = END) -> CLIPTokenizer:
    """The tokenizer of OpenAI's CLIP, which every Stable Diffusion file was trained with. pad: as in
    `write_clip_tokenizer`."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=window, pad_token=pad)


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """The files that make the tokenizer saved in `folder`: its own new form, or the old pair. Raises UserError."""
    for names in (("tokenizer.json",), ("vocab.json", "merges.txt")):
        files = tuple(folder / name for name in names)
        if all(file.is_file() for file in files):
            return files
    raise UserError(
        Problem(
            where=str(folder),
            expected="a CLIP tokenizer (tokenizer.json, or vocab.json and merges.txt)",
            found="none",
            advice="copy or download the folder again",
        )
    )


def folder_tokenizer(folder: Path, window: int, vocabulary: int) -> CLIPTokenizer:
    """The tokenizer saved in `folder`, for a text encoder that reads `window` tokens and knows `vocabulary` of them.

    Raises UserError where it can't be read or names tokens that the encoder does not know.
    """
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    tokenizer_files(folder)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True, model_max_length=window)
    except Exception as error:  # the library raises whatever its parsers raise
        raise UserError(
            Problem(
                where=str(folder),
                expected="a CLIP tokenizer",
                found=f"one that can't be read ({' '.join(str(error).split())[:200]})",
                advice="copy or download the folder again",
            )
        ) from error
    if len(tokenizer) > vocabulary:
        raise UserError(
            Problem(
                where=str(folder),
                expected=f"at most {vocabulary} tokens, which the text encoder knows",
                found=f"{len(tokenizer)}",
                advice="tokenizer and text encoder do not belong together: copy or download the folder again",
            )
        )
    return tokenizer


def write_clip_tokenizer(folder: Path, pad: str, window: int = WINDOW) -> None:
    """Put the tokenizer of OpenAI's CLIP into `folder`, in the files that transformers of all versions read.

    pad: the entry that fills up captions, `<|endoftext|>` for OpenAI's encoders and `!`, whose id is 0, for OpenCLIP's.
    """
    entries, merges = clip_vocabulary()
    marks = {"bos_token": "<|startoftext|>", "eos_token": END, "pad_token": pad, "unk_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": window,
        "do_lower_case": True,
        "errors": "replace",
    }
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    for name, content in (
        ("vocab.json", entries),
        ("tokenizer_config.json", config | marks),
        ("special_tokens_map.json", marks),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf-8")
