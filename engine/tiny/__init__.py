"""The embedded base model: a small Stable-Diffusion-1-shaped diffusers folder, and the facts of the data behind it.

`base/` is loaded by the same code as any other diffusers folder. The names here say what its captions looked like and
which subjects it has never seen, so that a demo or a benchmark can teach it one of those. Light: no torch.
ATTRIBUTION.md beside this file names the artists and their licences.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "base"

_PARTS = ("unet", "text_encoder", "vae", "tokenizer", "scheduler", "model_index.json")
BASES: dict[str, dict[str, Path]] = {
    "tiny": {part: FOLDER / part for part in _PARTS},
    "tiny-xl": {part: FOLDER / part for part in _PARTS}
    | {
        "unet": FOLDER.with_name("xl") / "unet",
        "model_index.json": FOLDER.with_name("xl") / "model_index.json",
        "text_encoder_2": FOLDER.with_name("scorer") / "text_encoder",
        "tokenizer_2": FOLDER / "tokenizer",
    },
    "tiny-inpaint": {part: FOLDER / part for part in _PARTS} | {"unet": FOLDER.with_name("inpaint") / "unet"},
}
"""The embedded bases: part → the folder or file that it lies in. They share what does not differ."""

RESOLUTION = 64
"""Side of the square images that it was trained on, in pixels."""

CAPTIONS = ("a {name} on a {colour} background", "{name}, {colour} background", "{name}")
"""The forms of its captions, most frequent first (75 %, 15 %, 10 %)."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (10, 10, 10),
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (52, 108, 219),
    "yellow": (250, 210, 60),
    "pink": (245, 150, 190),
    "gray": (140, 140, 140),
    "orange": (240, 140, 40),
    "purple": (130, 70, 180),
}
"""Its background colours by the names that its captions use, in RGB of 0..255."""

UNSEEN = (
    "octopus",
    "hedgehog",
    "sloth",
    "peacock",
    "lobster",
    "pineapple",
    "avocado",
    "pretzel",
    "cupcake",
    "teapot",
    "accordion",
    "violin",
    "helicopter",
    "tractor",
    "boat",
    "robot face",
    "jack o lantern",
    "cactus",
    "mushroom",
    "snowman",
    "crown",
    "football",
    "alarm clock",
    "rocket",
)
"""Emoji kept out of the training of its UNet and text encoder: Twemoji's short names, with spaces for _ and -."""

NEAR_TWINS = ("snowman without snow", "brown mushroom", "rugby football", "person with crown")
"""Kept out beside them: drawings of the same things. By their pictures alone no others come near."""
