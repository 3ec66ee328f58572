"""Pictures from weights on the way, drawn by the code that users draw with, and how many of them are right."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from engine import tiny
from engine.files import replace_file
from engine.tiny import scenes
from engine.tiny.drawings import Emoji, pooled

STEPS, GUIDANCE_SCALE = 25, 4.0
PLAIN = 24
OTHERS = (
    "a small {} at the top left on a {} background",
    "a {} on the right on a {} background",
    "a large {} on a {} background",
    "a {} and a hot dog on a {} background",
)


def draw(folder: Path, names: list[str], sheet: Path, emoji: Emoji | None = None) -> str:
    """Draw a sheet of captions; with `emoji`, say how many of the plain ones are nearest to their drawing."""
    from engine.models.load import load_family
    from engine.sampling import sampler

    chance = Random("preview")
    colours = list(tiny.COLOURS)
    plain = [(name, chance.choice(colours)) for name in chance.sample(names, PLAIN)]
    captions = [scenes.caption(*pair) for pair in plain]
    captions += [form.format(chance.choice(names), chance.choice(colours)) for form in OTHERS for _ in range(2)]
    family = load_family(str(folder), dtype=torch.float32, device="cpu")
    side = tiny.RESOLUTION
    requests = [sampler.Request(said, "", 1, side, side, STEPS, GUIDANCE_SCALE) for said in captions]
    images = [
        image for start in range(0, len(requests), 16) for image in sampler.draw(family, requests[start : start + 16])
    ]
    _write(sheet, images)
    if emoji is None:
        return ""
    right = sum(_nearest(emoji, image, colour) == name for image, (name, colour) in zip(images, plain, strict=False))
    return f"{right} of {PLAIN} right"


def _nearest(emoji: Emoji, image: Image.Image, colour: str) -> str:
    shown = pooled(np.asarray(image, np.float32))
    distances = np.square(emoji.pooled_on(colour) - shown).mean((1, 2, 3))
    return emoji.names[int(distances.argmin())]


def _write(sheet: Path, images: list[Image.Image]) -> None:
    side, across = tiny.RESOLUTION, 16
    page = Image.new("RGB", (across * side, -(-len(images) // across) * side))
    for number, image in enumerate(images):
        page.paste(image, (number % across * side, number // across * side))
    with replace_file(sheet) as temporary:
        page.save(temporary, "PNG")
