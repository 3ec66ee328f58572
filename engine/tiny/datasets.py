"""Ready data sets of what `tiny` has never seen: subjects in four pictures each, and the drawings of Noto as a style.

    python -m engine.tiny.datasets --emoji emoji-datasource-twitter-16.0.0.tgz \\
        --noto emoji-datasource-google-16.0.0.tgz -o DIR

Run again, it writes the same bytes; those of five subjects ship in engine/tiny/subjects. Captions of subjects have the
base's own form with a rare token before the name, as DreamBooth has it (Ruiz et al. 2022, section 3.2). What is held
out has the same captions and is for measuring, never for training.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine import files, tiny
from engine.errors import UserError
from engine.tiny.drawings import NOTO, TWEMOJI, Emoji

FOLDER = Path(tiny.__file__).parent / "subjects"
SUBJECTS = {
    "octopus": "squid",
    "hedgehog": "chipmunk",
    "pineapple": "melon",
    "cupcake": "cake",
    "robot face": "alien",
}
"""Of tiny.UNSEEN, those that ship. Name → class: the nearest thing that the base does know, whose pictures prior
preservation keeps as they are.

Chosen by the benchmarks' ruler, not by how well they train: emoji of categories that the first weights knew, which stay
at least six times as far from every other emoji as the autoencoder moves them.
"""
COLOURS = ("white", "green", "blue", "yellow")
HELD_OUT = tuple(colour for colour in tiny.COLOURS if colour not in COLOURS)
TOKEN = "ohwx"
STYLE = "in noto style"
STYLED = 24
"""Learned emoji to learn the style from, and as many others to measure it with."""

ATTRIBUTION = "ATTRIBUTION.md"
_TWEMOJI_LICENCE = """The drawings are **Twemoji**: graphics © Twitter, Inc and other contributors, licensed under
[CC-BY 4.0](https://creativecommons.org/licenses/by/4.0/). They were taken from the npm package
`{package}` {version} and composited on the backgrounds; nothing else was changed.
"""
_NOTO_LICENCE = """The drawings are **Noto Emoji**: © Google LLC, graphics under the
[Apache License 2.0](https://www.apache.org/licenses/LICENSE-2.0), fonts under the
[SIL Open Font License 1.1](https://openfontlicense.org). They were taken from the npm package
`{package}` {version} and composited on the backgrounds; nothing else was changed.
"""
_AGAIN = """`python -m engine.tiny.datasets` makes them again. Whoever passes them on should keep this attribution.
"""


def caption(name: str, colour: str) -> str:
    """What a training picture's caption says, and a prompt for the learned subject."""
    return tiny.CAPTIONS[0].format(name=f"{TOKEN} {name}", colour=colour)


def style_caption(name: str, colour: str) -> str:
    """The same of a picture in Noto's style."""
    return tiny.CAPTIONS[0].format(name=f"{name} {STYLE}", colour=colour)


def folder(name: str, root: Path = FOLDER) -> Path:
    """Where the pictures of a subject lie."""
    return root / name.replace(" ", "_")


def make_subject(emoji: Emoji, name: str, root: Path, colours: Iterable[str] = COLOURS) -> Path:
    """Write one subject's pictures and captions into a folder of `root`, and return it."""
    for colour in colours:
        _write(folder(name, root), colour, emoji, name, colour, caption(name, colour))
    return folder(name, root)


def make_subjects(emoji: Emoji, root: Path) -> Iterator[Path]:
    """Write every unseen subject, to train on and held out."""
    _attribute(root, "Unseen subjects", _TWEMOJI_LICENCE, TWEMOJI)
    for name in tiny.UNSEEN:
        yield make_subject(emoji, name, root / "train")
        yield make_subject(emoji, name, root / "held_out", HELD_OUT)


def make_style(noto: Emoji, learned: list[str], root: Path) -> Iterator[Path]:
    """Write emoji that the base knows as Noto draws them, each on one colour, to train on and held out."""
    _attribute(root, "The style of Noto Emoji", _NOTO_LICENCE, NOTO)
    both = [name for name in learned if name in noto.names]
    chosen = both[:: max(1, len(both) // (2 * STYLED))][: 2 * STYLED]
    for part, names in (("train", chosen[::2]), ("held_out", chosen[1::2])):
        for name, colour in zip(names, list(tiny.COLOURS) * STYLED, strict=False):
            _write(root / part, name.replace(" ", "_"), noto, name, colour, style_caption(name, colour))
        yield root / part


def _write(where: Path, stem: str, emoji: Emoji, name: str, colour: str, words: str) -> None:
    where.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    emoji.on(name, colour).save(content, "PNG", optimize=True)
    files.write_bytes(where / f"{stem}.png", content.getvalue())
    files.write_bytes(where / f"{stem}.txt", f"{words}\n".encode())


def _attribute(root: Path, title: str, licence: str, source: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    package, _, version = source.partition("@")
    words = f"# {title}\n\n{licence.format(package=package, version=version)}{_AGAIN}"
    files.write_bytes(root / ATTRIBUTION, words.encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.tiny.datasets", description=__doc__.partition("\n")[0])
    parser.add_argument("--emoji", type=Path, required=True, help="folder or .tgz of emoji-datasource-twitter 16.0.0")
    parser.add_argument("--noto", type=Path, help="the same of emoji-datasource-google; without it no style is made")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the data sets")
    chosen = parser.parse_args()
    try:
        emoji = Emoji.read(chosen.emoji)
        noto = Emoji.read(chosen.noto) if chosen.noto else None
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for made in make_subjects(emoji, chosen.out / "subjects"):
        print(made)
    if noto:
        # faces, animals and food: flags and signs have little style of their own
        for made in make_style(noto, emoji.learned_before(), chosen.out / "noto"):
            print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
