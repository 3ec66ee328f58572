"""What an adapter's metadata says of its family, its alphas and the words that call it up, whoever wrote it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

_FAMILIES = (
    (r"sdxl|stable-diffusion-xl", "sdxl"),
    (r"sd_?v?2|stable-diffusion-v2", "sd2"),
    (r"sd_?v?1|stable-diffusion-v1", "sd1"),
)
_FOLDER = re.compile(r"[0-9]{1,3}_(.+)", re.DOTALL)
MOST_TAGS = 3
"""Tags that are taken for trigger words, where more of them are in every caption."""
LONGEST = 200

Counts = dict[str, dict[str, int]]


class _Folder(msgspec.Struct):
    img_count: int = 0


def family_said(metadata: Mapping[str, str]) -> str | None:
    """`sd1`, `sd2` or `sdxl`; empty for a family that is none of these, and None where nothing is said."""
    for field in ("ss_base_model_version", "modelspec.architecture"):
        if said := metadata.get(field, "").lower():
            return next((family for pattern, family in _FAMILIES if re.match(pattern, said)), "")
    return {"True": "sd2", "False": None}.get(metadata.get("ss_v2", ""))


def trigger_said(metadata: Mapping[str, str]) -> str:
    """The words that call an adapter up, as one text: those that its author names, else tags that every caption of a
    folder held, else the class tokens in a folder's name. Empty where nothing is said.
    """
    if phrase := metadata.get("modelspec.trigger_phrase", "").strip():
        return _short(phrase)
    frequencies = _decoded(metadata.get("ss_tag_frequency", ""), Counts)
    folders = _decoded(metadata.get("ss_dataset_dirs", ""), dict[str, _Folder])
    found: dict[str, None] = {}
    for name, counts in frequencies.items():
        images = folders[name].img_count if name in folders else 0
        always = [tag for tag, count in counts.items() if images and count >= images]
        always.sort(key=counts.__getitem__, reverse=True)
        found |= dict.fromkeys(always[:MOST_TAGS])
    if not found:
        names = [_FOLDER.fullmatch(name) for name in {**folders, **frequencies}]
        found = dict.fromkeys(match[1].strip() for match in names if match)
    return _short(", ".join(list(found)[:MOST_TAGS]))


def alphas_said(metadata: Mapping[str, str]) -> list[float]:
    """The alphas in what diffusers writes of PEFT's configuration, smallest first."""
    told = _decoded(metadata.get("lora_adapter_metadata", ""), dict[str, Any])
    numbers = {value for key, value in told.items() if key.endswith("lora_alpha") and isinstance(value, int | float)}
    return sorted(map(float, numbers))


def _decoded(text: str, kind: Any) -> Any:
    with contextlib.suppress(msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return msgspec.json.decode(text, type=kind)
    return {}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
