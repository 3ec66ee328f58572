"""The embedded base models: small diffusers folders, and the facts of the data behind them.

They are loaded by the same code as any other folder. The names here say what their captions looked like and which
subjects they have never seen, so that a demo or a benchmark can teach them one of those. `recipe` makes them, by
`python -m engine.tiny`; `scorer` tells which caption belongs to which picture. Light: no torch.
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
"""Side of the square images that they were trained on, in pixels."""

CAPTIONS = ("a {name} on a {colour} background", "{name}, {colour} background", "{name}")
"""The most frequent forms of captions (62, 10 and 8 %); `scenes` has the freer ones, and sizes and places."""

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
"""Background colours by the names that captions use, in RGB of 0..255."""

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
"""Emoji kept out of the training of UNets, text encoders and scorer: Twemoji's short names, with spaces for _ and -."""

NEAR_TWINS = ("snowman without snow", "brown mushroom", "rugby football", "person with crown")
"""Kept out beside them: drawings of the same things. By their pictures alone no others come near."""
