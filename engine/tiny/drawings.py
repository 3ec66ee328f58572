"""Emoji drawings from the npm packages emoji-datasource-twitter and -google, and which of them `tiny` learns.

A package is given as its folder or its .tgz; nothing is fetched. Names are short names with spaces for `_` and `-`.
What is learned is a rule over the drawings, not a list, so that anyone with the package arrives at the same emoji.
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from engine import tiny
from engine.errors import Problem, UserError

TWEMOJI = "emoji-datasource-twitter@16.0.0"
NOTO = "emoji-datasource-google@16.0.0"
VENDORS = ("twitter", "google")
GRID = 16
"""Side of the pooled pictures that distances are taken between."""
SHARED_FIRST = ("Animals & Nature", "Food & Drink", "Smileys & Emotion")
"""Learned whole: what the first weights knew. Of the other categories, only what no other drawing can be taken for."""
REPETITIVE = ("People & Body", "Component")
"""The same figures again and again, told apart by a word and a few pixels: not learned."""
APART = 12.0
"""Levels between a learned drawing and its nearest other, on the colour where the two are nearest."""
FLAGS_APART = 20.0
"""The same for flags, which fill the frame and have the shortest names."""

_INDEX = "emoji.json"


@dataclass(frozen=True)
class Emoji:
    """Every emoji of a package without its skin tones. `drawings` are RGBA, [n, 64, 64, 4] uint8."""

    names: tuple[str, ...]
    categories: tuple[str, ...]
    drawings: np.ndarray

    @classmethod
    def read(cls, source: Path) -> Emoji:
        """From an unpacked package or its .tgz. Raises UserError if `source` is neither."""
        try:
            files = _packed(source) if source.is_file() else _unpacked(source)
            vendor = next(vendor for vendor in VENDORS if any(name.startswith(_folder(vendor)) for name in files))
            entries = [entry for entry in json.loads(files[_INDEX]) if entry[f"has_img_{vendor}"]]
            drawings = [_decode(files[_folder(vendor) + entry["image"]]) for entry in entries]
        except StopIteration:
            raise UserError(unreadable(str(source), "no img/twitter/64 or img/google/64")) from None
        except FileNotFoundError as error:
            raise UserError(unreadable(str(source), f"no {error.filename}")) from None
        except KeyError as error:
            raise UserError(unreadable(str(source), f"no {error} in it")) from None
        except (OSError, EOFError, zlib.error, ValueError, tarfile.TarError) as error:
            raise UserError(unreadable(str(source), str(error))) from None
        names = (entry["short_name"].replace("_", " ").replace("-", " ") for entry in entries)
        return cls(tuple(names), tuple(entry["category"] for entry in entries), np.stack(drawings))

    def drawing(self, name: str) -> Image.Image:
        """One emoji, RGBA, 64×64."""
        return Image.fromarray(self.drawings[self.names.index(name)])

    def on(self, name: str, colour: str) -> Image.Image:
        """One emoji over a flat background, as `tiny` has seen them."""
        drawing = self.drawing(name)
        background = Image.new("RGBA", drawing.size, (*tiny.COLOURS[colour], 255))
        return Image.alpha_composite(background, drawing).convert("RGB")

    def first_known(self) -> list[str]:
        """Names of the emoji that the first weights had learned, in the package's order."""
        pairs = zip(self.names, self.categories, strict=True)
        return [name for name, category in pairs if category in SHARED_FIRST and name not in tiny.UNSEEN]

    def learned_before(self) -> list[str]:
        """Those of the names of `first_known` that `tiny` still learns: all but the near-twins of unseen subjects."""
        return [name for name in self.first_known() if name not in tiny.NEAR_TWINS]

    def learned(self) -> list[str]:
        """Names of the emoji that `tiny` learns, in the package's order: by category, and apart from all others."""
        hidden = {*tiny.UNSEEN, *tiny.NEAR_TWINS}
        triples = zip(self.names, self.categories, self.nearest_distances(), strict=True)
        return [name for name, category, apart in triples if name not in hidden and _taken(category, apart)]

    def nearest_distances(self) -> np.ndarray:
        """Levels between each drawing and its nearest other, on the colour where the two are nearest: [n]."""
        return self.distances().min(1)

    def distances(self) -> np.ndarray:
        """Levels between any two drawings, pooled, on the colour where the two are nearest: [n, n], inf to itself."""
        count = len(self.names)
        nearest = np.full((count, count), np.inf, np.float32)
        for colour in tiny.COLOURS:
            flat = self.pooled_on(colour).reshape(count, -1)
            squares = np.square(flat).sum(1)
            apart = squares[:, None] + squares - 2 * flat @ flat.T
            nearest = np.minimum(nearest, np.sqrt(np.maximum(apart, 0) / flat.shape[1]))
        np.fill_diagonal(nearest, np.inf)
        return nearest

    def pooled_on(self, colour: str) -> np.ndarray:
        """Every drawing over a colour, pooled: [n, GRID, GRID, 3] float32 levels of 0..255."""
        paint, glass = self._pooled
        return paint + glass * np.array(tiny.COLOURS[colour], np.float32)

    @cached_property
    def _pooled(self) -> tuple[np.ndarray, np.ndarray]:
        """Colours times opacity, and transparency. Compositing and pooling are linear, so pooled ones can be laid."""
        levels = self.drawings.astype(np.float32)
        alpha = levels[..., 3:] / 255
        return pooled(levels[..., :3] * alpha), pooled(1 - alpha)


def _taken(category: str, apart: float) -> bool:
    if category in SHARED_FIRST:
        return True
    return category not in REPETITIVE and apart >= (FLAGS_APART if category == "Flags" else APART)


def pooled(levels: np.ndarray) -> np.ndarray:
    """[…, h, w, c] averaged to […, GRID, GRID, c]; h and w are multiples of GRID."""
    *rest, height, width, channels = levels.shape
    return levels.reshape(*rest, GRID, height // GRID, GRID, width // GRID, channels).mean((-4, -2))


def unreadable(source: str, found: str) -> Problem:
    """The problem of a missing or wrong --emoji."""
    return Problem(
        where=source,
        expected=f"emoji drawings: a folder or .tgz of the npm package {TWEMOJI}",
        found=found,
        advice=f"`npm pack {TWEMOJI}` fetches it; then say --emoji {TWEMOJI.replace('@', '-')}.tgz",
    )


def _folder(vendor: str) -> str:
    return f"img/{vendor}/64/"


def _unpacked(folder: Path) -> Mapping[str, bytes]:
    root = folder / "package" if (folder / "package" / _INDEX).exists() else folder
    found = {vendor: (root / _folder(vendor)).glob("*.png") for vendor in VENDORS}
    drawings = {_folder(vendor) + path.name: path.read_bytes() for vendor, paths in found.items() for path in paths}
    return {_INDEX: (root / _INDEX).read_bytes(), **drawings}


def _packed(archive: Path) -> Mapping[str, bytes]:
    """Read in one pass, since a .tgz can't be sought in."""
    files = {}
    wanted = tuple(_folder(vendor) for vendor in VENDORS)
    with tarfile.open(archive, "r|gz") as members:
        for member in members:
            name = member.name.removeprefix("package/")
            if member.isfile() and (name == _INDEX or name.startswith(wanted)):
                files[name] = members.extractfile(member).read()
    return files


def _decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGBA").resize((tiny.RESOLUTION, tiny.RESOLUTION), Image.Resampling.BOX))
