"""Makes engine/tiny/subjects: four pictures each of emoji that the embedded base has never seen, with their captions.

    python -m benchmarks.make_subjects --emoji emoji-datasource-twitter-16.0.0.tgz

Run again, it writes the same bytes. The captions have the base's own form with a rare token before the name, as
DreamBooth has it (Ruiz et al. 2022, section 3.2).
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from benchmarks.ruler import Emoji
from engine import files, tiny
from engine.errors import UserError

FOLDER = Path(tiny.__file__).parent / "subjects"
SUBJECTS = {
    "octopus": "squid",
    "hedgehog": "chipmunk",
    "pineapple": "melon",
    "cupcake": "cake",
    "robot face": "alien",
}
"""Name → class: the nearest thing that the base does know, whose pictures prior preservation keeps as they are.

Chosen by the ruler, not by how well they train: unseen emoji of categories that the base knows, which stay at least six
times as far from every other emoji as the autoencoder moves them.
"""
COLOURS = ("white", "green", "blue", "yellow")
TOKEN = "ohwx"


def caption(name: str, colour: str) -> str:
    """What a training picture's caption says, and a prompt for the learned subject."""
    return tiny.CAPTIONS[0].format(name=f"{TOKEN} {name}", colour=colour)


def folder(name: str) -> Path:
    """Where the training pictures of a subject lie."""
    return FOLDER / name.replace(" ", "_")


def make(emoji: Emoji, name: str) -> None:
    """Write the pictures and captions of one subject."""
    folder(name).mkdir(parents=True, exist_ok=True)
    for colour in COLOURS:
        content = io.BytesIO()
        emoji.on(name, colour).save(content, "PNG", optimize=True)
        files.write_bytes(folder(name) / f"{colour}.png", content.getvalue())
        files.write_bytes(folder(name) / f"{colour}.txt", f"{caption(name, colour)}\n".encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--emoji", type=Path, required=True, help="folder or .tgz of emoji-datasource-twitter 16.0.0")
    try:
        emoji = Emoji.read(parser.parse_args().emoji)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for name in SUBJECTS:
        make(emoji, name)
        print(folder(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
