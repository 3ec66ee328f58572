"""One line that asks for one sample picture: `a cat in rain --n blurry --w 512 --h 768 --d 42 --l 7 --s 28`.

The options are those of kohya's sample files, so that such files can be used as they are. Light: no torch.
"""

from __future__ import annotations

import math
import re

import msgspec


class SamplePrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to draw. What is None is taken from the run's sampling settings."""

    prompt: str
    negative: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    steps: int | None = None


_OPTIONS = {
    "n": ("negative", str, None),
    "w": ("width", int, (16, 8192)),
    "h": ("height", int, (16, 8192)),
    "d": ("seed", int, (0, 2**63 - 1)),
    "l": ("guidance_scale", float, (0, 50)),
    "s": ("steps", int, (1, 1000)),
}
"""Letter → field, its type and the least and the largest number."""


def parse(line: str) -> SamplePrompt:
    """Read one line. Raises ValueError, saying which option is wrong and how."""
    prompt, *options = re.split(r"\s--(?=[A-Za-z]+(?:\s|$))", " " + line.strip())
    values = {}
    for option in options:
        letter, _, text = option.partition(" ")
        if letter not in _OPTIONS:
            raise ValueError(f"unknown option --{letter}; there are " + ", ".join(f"--{key}" for key in _OPTIONS))
        name, kind, limits = _OPTIONS[letter]
        values[name] = _number(f"--{letter} ({name})", kind, limits, text.strip()) if limits else text.strip()
    return SamplePrompt(prompt=prompt.strip(), **values)


def _number(what: str, kind: type[int] | type[float], limits: tuple[int, int], text: str) -> int | float:
    low, high = limits
    expected = f"a {'whole ' if kind is int else ''}number from {low} to {high}"
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f"{what} expects {expected}, found {text!r}")
    return number
