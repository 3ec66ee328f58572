"""The ruler of the benchmarks on `tiny`: which of all emoji a picture shows, and on which background.

A picture is compared with every emoji composited on the *requested* colour, all pooled to 16×16 RGB, by L2 distance.
Nothing in it is learned or tuned, and nothing may be: results are only comparable while it stays as it is. The drawings
are those that `tiny` was trained on, the npm package emoji-datasource-twitter 16.0.0, and do not come with the project.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from engine import tiny
from engine.errors import Problem, UserError

PACKAGE = "emoji-datasource-twitter@16.0.0"
GRID = 16
"""Side of the pooled pictures that distances are taken between."""
KNOWN_CATEGORIES = ("Animals & Nature", "Food & Drink", "Smileys & Emotion")
"""`tiny` has learned the emoji of these, except tiny.UNSEEN."""

_INDEX, _DRAWINGS = "emoji.json", "img/twitter/64/"


@dataclass(frozen=True)
class Emoji:
    """Every emoji of the package without its skin tones. `drawings` are RGBA, [n, 64, 64, 4] uint8."""

    names: tuple[str, ...]
    categories: tuple[str, ...]
    drawings: np.ndarray

    @classmethod
    def read(cls, source: Path) -> Emoji:
        """From the unpacked package or its .tgz. Raises UserError if `source` is neither."""
        try:
            files = _packed(source) if source.is_file() else _unpacked(source)
            entries = [entry for entry in json.loads(files[_INDEX]) if entry["has_img_twitter"]]
            drawings = [_decode(files[_DRAWINGS + entry["image"]]) for entry in entries]
        except (OSError, KeyError, ValueError, tarfile.TarError) as error:
            raise UserError(unreadable(str(source), f"{type(error).__name__}: {error}")) from None
        names = (entry["short_name"].replace("_", " ").replace("-", " ") for entry in entries)
        return cls(tuple(names), tuple(entry["category"] for entry in entries), np.stack(drawings))

    def known(self) -> list[str]:
        """Names of the emoji that `tiny` has learned, in the package's order."""
        pairs = zip(self.names, self.categories, strict=True)
        return [name for name, category in pairs if category in KNOWN_CATEGORIES and name not in tiny.UNSEEN]

    def on(self, name: str, colour: str) -> Image.Image:
        """One emoji over a flat background, as `tiny` has seen them."""
        drawing = Image.fromarray(self.drawings[self.names.index(name)])
        background = Image.new("RGBA", drawing.size, (*tiny.COLOURS[colour], 255))
        return Image.alpha_composite(background, drawing).convert("RGB")


def unreadable(source: str, found: str) -> Problem:
    """The problem of a missing or wrong --emoji."""
    return Problem(
        where=source,
        expected="the emoji drawings that the ruler is made of: a folder or .tgz of an npm package",
        found=found,
        advice=f"`npm pack {PACKAGE}` fetches it; then say --emoji {PACKAGE.replace('@', '-')}.tgz",
    )


def _unpacked(folder: Path) -> Mapping[str, bytes]:
    root = folder / "package" if (folder / "package" / _INDEX).exists() else folder
    drawings = {_DRAWINGS + path.name: path.read_bytes() for path in (root / _DRAWINGS).glob("*.png")}
    return {_INDEX: (root / _INDEX).read_bytes(), **drawings}


def _packed(archive: Path) -> Mapping[str, bytes]:
    """Read in one pass, since a .tgz can't be sought in."""
    files = {}
    with tarfile.open(archive, "r|gz") as members:
        for member in members:
            name = member.name.removeprefix("package/")
            if member.isfile() and (name == _INDEX or name.startswith(_DRAWINGS)):
                files[name] = members.extractfile(member).read()
    return files


def _decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGBA").resize((tiny.RESOLUTION, tiny.RESOLUTION), Image.Resampling.BOX))


class Ruler:
    """Distances between pictures and emoji."""

    def __init__(self, emoji: Emoji):
        """Compositing and pooling are both linear, so the pooled picture on any colour is paint + glass · colour."""
        self.names = emoji.names
        levels = emoji.drawings.astype(np.float32)
        alpha = levels[..., 3:] / 255
        self._paint, self._glass = pooled(levels[..., :3] * alpha), pooled(1 - alpha)

    def distances(self, image: Image.Image, colour: str) -> np.ndarray:
        """Root mean square differences, in levels of 0..255, between `image` and every emoji on `colour`: [n]."""
        references = self._paint + self._glass * np.array(tiny.COLOURS[colour], np.float32)
        return rms(references - pooled(pixels(image)))

    def rank(self, image: Image.Image, name: str, colour: str) -> int:
        """1 if no emoji is nearer to `image` than the named one, 2 if one is, and so on."""
        distances = self.distances(image, colour)
        return int((distances < distances[self.names.index(name)]).sum()) + 1


def background(image: Image.Image) -> str:
    """The colour of tiny.COLOURS nearest to the median of the outermost ring of pixels."""
    levels = pixels(image)
    ring = np.concatenate([levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1]])
    colours = np.array(list(tiny.COLOURS.values()), np.float32)
    return list(tiny.COLOURS)[int(rms(colours - np.median(ring, axis=0)).argmin())]


def moved(before: Image.Image, after: Image.Image) -> float:
    """How far apart two pictures are for the ruler: root mean square of the pooled difference, in levels of 0..255."""
    return float(rms(pooled(pixels(before)) - pooled(pixels(after))[None])[0])


def pixels(image: Image.Image) -> np.ndarray:
    """RGB levels of 0..255, [h, w, 3] float32."""
    return np.asarray(image.convert("RGB"), np.float32)


def pooled(levels: np.ndarray) -> np.ndarray:
    """[…, h, w, c] averaged to […, GRID, GRID, c]; h and w are multiples of GRID."""
    *rest, height, width, channels = levels.shape
    return levels.reshape(*rest, GRID, height // GRID, GRID, width // GRID, channels).mean((-4, -2))


def rms(differences: np.ndarray) -> np.ndarray:
    """Root mean square over all axes but the first."""
    return np.sqrt(np.square(differences).reshape(len(differences), -1).mean(1))
