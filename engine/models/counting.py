"""How many tokens a base makes of a text, without transformers, whose import takes seconds.

What is counted are the tokens that training will see. So all is put together as transformers' CLIPTokenizer does it:
its way to split, the vocabulary of the base, and the tokens that the folder's files add. A test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, UserError
from engine.models.folder import read_config
from engine.models.resolve import find_here
from engine.models.tokenizer import WINDOW, clip_vocabulary, tokenizer_files

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_SPECIAL = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
_SPLIT = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Counter:
    """Counts tokens as one base does."""

    def __init__(self, tokenizer: Tokenizer, window: int):
        self._tokenizer = tokenizer
        self.limit = window - 2
        """Tokens of a text that the text encoder reads."""

    def __call__(self, text: str) -> int:
        """Tokens of a text, without the marks of begin and end."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def counter(base: str, field: str = "model.base") -> Counter:
    """The counter of a base that is named as in a config. Raises UserError where it can't be read.

    No network is asked: of a base that this machine does not have it is CLIP's, as Stable Diffusion 1 has it.
    """
    source = find_here(base, field)
    if source is None:
        return Counter(clip(), WINDOW)
    window = source.components["text_encoder"].config.get("max_position_embeddings", WINDOW)
    return Counter(saved(source.tokenizer_folder) if source.tokenizer_folder else clip(), window)


def clip() -> Tokenizer:
    """OpenAI's CLIP's."""
    from tokenizers.models import BPE

    vocabulary, merges = clip_vocabulary()
    return _assembled(BPE(vocabulary, merges, unk_token=END, end_of_word_suffix="</w>"), {})


def saved(folder: Path) -> Tokenizer:
    """That of a diffusers folder. Raises UserError."""
    files = tokenizer_files(folder)
    try:
        return _assembled(_model(files), _told(folder))
    except UserError:
        raise
    except Exception as error:  # the library raises whatever its parsers raise
        raise UserError(
            Problem(
                where=str(folder),
                expected="a CLIP tokenizer",
                found=f"one that can't be read ({' '.join(str(error).split())[:200]})",
                advice="copy or download the folder again",
            )
        ) from error


def _model(files: tuple[Path, ...]) -> BPE:
    from tokenizers.models import BPE

    options = {"unk_token": END, "end_of_word_suffix": "</w>"}
    if len(files) == 2:
        return BPE.from_file(*map(str, files), **options)
    model = read_config(files[0])["model"]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    return BPE(model["vocab"], merges, **options)


def _told(folder: Path) -> dict[str, Any]:
    """What the folder's files say of its special and added tokens, an older form brought into that of today."""

    def read(name: str) -> dict[str, Any]:
        return read_config(folder / name) if (folder / name).is_file() else {}

    told = read("tokenizer_config.json")
    if "added_tokens_decoder" not in told:
        told |= read("special_tokens_map.json")
        added = {
            number: {"content": text, "normalized": text not in map(_text, told.values())}
            for text, number in read("added_tokens.json").items()
        }
        added |= {token.pop("id"): token for token in read("tokenizer.json").get("added_tokens", [])}
        told["added_tokens_decoder"] = added
    return told


def _text(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def _assembled(model: BPE, told: dict[str, Any]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_tokens(list(_added(told)))
    return tokenizer


def _added(told: dict[str, Any]) -> Iterator[AddedToken]:
    """The tokens that stand for themselves wherever they are in a text, each once, in the order of their ids."""
    from tokenizers import AddedToken

    numbered = told.get("added_tokens_decoder", {})
    tokens = [numbered[number] for number in sorted(numbered, key=int)]
    tokens += [told.get(name) or usual for name, usual in _SPECIAL.items()]
    tokens += told.get("extra_special_tokens") or told.get("additional_special_tokens") or []
    seen = set()
    for token in tokens:
        if _text(token) not in seen:
            seen.add(_text(token))
            options = {key: value for key, value in token.items() if key != "__type"} if isinstance(token, dict) else {}
            yield AddedToken(**options) if options else AddedToken(_text(token), special=True)
