"""One line that asks for one sample picture: `a cat in rain --n blurry --w 512 --h 768 --d 42 --l 7 --s 28`.

The options are those of kohya's sample files, so that such files can be used as they are. Light: no torch.
"""

from __future__ import annotations

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
    "n": ("negative", str),
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", int),
    "l": ("guidance_scale", float),
    "s": ("steps", int),
}


def parse(line: str) -> SamplePrompt:
    """Read one line. Raises ValueError, saying which option is wrong and how."""
    prompt, *options = re.split(r"\s--(?=[A-Za-z]+(?:\s|$))", " " + line.strip())
    values = {}
    for option in options:
        letter, _, text = option.partition(" ")
        if letter not in _OPTIONS:
            raise ValueError(f"unknown option --{letter}; there are " + ", ".join(f"--{key}" for key in _OPTIONS))
        name, kind = _OPTIONS[letter]
        try:
            values[name] = kind(text.strip())
        except ValueError:
            raise ValueError(f"--{letter} ({name}) expects a number, found {text.strip()!r}") from None
        if kind is not str and values[name] < (1 if name in ("width", "height", "steps") else 0):
            raise ValueError(f"--{letter} ({name}) is too small: {text.strip()}")
    return SamplePrompt(prompt=prompt.strip(), **values)
