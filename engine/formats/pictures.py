"""Pictures that say how they were made: a PNG with a `parameters` text as AUTOMATIC1111's web UI writes it, and a
`loratui` text with the whole request as JSON.

The first is for the many programs that read it, and loses what its lines can't hold: it is the prompt, a line
`Negative prompt: …`, and a last line of `Name: value` pairs, a value being JSON-quoted where a comma, a colon or a
line break would end it. The second is what this program trusts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from engine.files import replace_file

_NEGATIVE = "Negative prompt:"
_FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_FEWEST = 3
"""Fields that make a last line one of parameters and not of the prompt."""


@dataclass(frozen=True)
class UsedAdapter:
    """An adapter in a picture: its file name without suffix, its strength and its `sshs_model_hash`."""

    name: str
    weight: float
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """How a picture was made, in the terms of its `parameters` text."""

    prompt: str
    negative: str = ""
    steps: int
    sampler: str
    """As web UIs call it: `DDIM`, `Euler a`, `DPM++ 2M`."""
    guidance_scale: float
    seed: int
    width: int
    height: int
    model: str
    model_sha256: str = ""
    """Of the base's file; empty for a folder."""
    clip_skip: int = 1
    adapters: tuple[UsedAdapter, ...] = ()
    program: str
    """Name and version of the program: `loratui 0.1.0`."""


def parameters(facts: PictureFacts) -> str:
    """The `parameters` text. An adapter that the prompt doesn't name is appended to it as `<lora:name:weight>`."""
    tags = [f"<lora:{_bare(used.name)}:{used.weight:g}>" for used in facts.adapters]
    prompt = " ".join([facts.prompt.strip(), *(tag for tag in tags if tag not in facts.prompt)]).strip()
    hashes = ", ".join(f"{_bare(used.name)}: {used.sha256[:12]}" for used in facts.adapters if used.sha256)
    fields = {
        "Steps": facts.steps,
        "Sampler": facts.sampler,
        "CFG scale": f"{facts.guidance_scale:g}",
        "Seed": facts.seed,
        "Size": f"{facts.width}x{facts.height}",
        "Model hash": facts.model_sha256[:10],
        "Model": facts.model,
        "Clip skip": facts.clip_skip if facts.clip_skip > 1 else "",
        "Lora hashes": hashes,
        "Version": facts.program,
    }
    last = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in fields.items() if str(value))
    negative = f"{_NEGATIVE} {facts.negative.strip()}" if facts.negative.strip() else ""
    return "\n".join(line for line in (prompt, negative, last) if line)


def read_parameters(text: str) -> dict[str, str]:
    """The fields of a `parameters` text, `Prompt` and `Negative prompt` among them, all as texts."""
    *lines, last = text.strip().split("\n")
    fields = _FIELD.findall(last)
    if len(fields) < _FEWEST:
        lines, fields = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            current, line = negative, line.removeprefix(_NEGATIVE).strip()
        current.append(line)
    found = {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}
    return found | {name: _unquoted(value) for name, value in fields}


def _bare(name: str) -> str:
    """An adapter's name without the marks that end it in a prompt or in the list of hashes."""
    return re.sub("[<>:,]", "", name)


def _quoted(value: str) -> str:
    risky = any(mark in value for mark in ',:\n"') or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if risky else value


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


def write_png(path: Path, image: Image, text: str, request: Mapping[str, Any]) -> None:
    """Write `image` as a PNG with `text` under `parameters` and `request` as JSON under `loratui`, whole or not at all.

    Characters beyond Latin-1 make the text an international one (iTXt), which PNG readers know as well.
    """
    texts = PngInfo()
    texts.add_text("parameters", text.encode("utf-8", "replace").decode("utf-8"))
    texts.add_text("loratui", json.dumps(request, allow_nan=False))
    with replace_file(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=texts)
