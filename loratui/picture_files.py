"""Picture files as the app opens them: bounded in kind and size, reduced as they are read, remembered.

Everything here may run in a thread and nothing needs Textual. A file that can't be shown raises `Unreadable`, whatever
is wrong with it: people keep half-downloaded and misnamed files among their images, and decoders of damaged files fail
with any exception there is.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from loratui.pictures import fitted, reduced

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MOST_PIXELS = 100_000_000
REMEMBERED = 16 << 20
"""Bytes of pixels that a `PictureCache` keeps, unless it is told otherwise."""


class Unreadable(Exception):
    """A file that can't be shown; the message says why, in words that fit behind "can't be shown: "."""


def read_picture(path: Path, box: tuple[int, int]) -> Image:
    """The file's first picture as RGB, upright, fitted into `box` (pixels). Raises Unreadable."""
    _age(path)
    try:
        return _read(path, box)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(_reason(error)) from error


def _age(path: Path) -> int:
    """When the file was written (ns). Refuses what must not be opened: a named pipe would block its reader for good."""
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:
        raise Unreadable(_reason(error)) from error
    if not stat.S_ISREG(facts.st_mode):
        raise Unreadable("it is a folder" if stat.S_ISDIR(facts.st_mode) else "it is not a file")
    if facts.st_size == 0:
        raise Unreadable("the file is empty")
    return facts.st_mtime_ns


def _read(path: Path, box: tuple[int, int]) -> Image:
    from PIL import Image as Images

    with Images.open(path, formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise Unreadable(f"{image.width} × {image.height} pixels are more than {MOST_PIXELS // 10**6} million")
        orientation = _orientation(image)
        if orientation >= 5:
            box = box[1], box[0]
        image.draft(None, fitted(image.size, box))
        small = reduced(image, box)
    return small.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else small


# By EXIF orientation, Pillow's Transpose that undoes it.
_UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def _orientation(image: Image) -> int:
    """The EXIF orientation, 1 (upright) to 8. Pillow turns a TIFF itself; damaged tags don't spoil a picture."""
    if image.format == "TIFF":
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _reason(error: Exception) -> str:
    from PIL import Image as Images

    match error:
        case FileNotFoundError():
            return "the file is not there"
        case PermissionError():
            return "you may not read the file"
        case Images.UnidentifiedImageError():
            return f"it is none of {', '.join(FORMATS)}"
        case Images.DecompressionBombError():
            return f"it has more than {MOST_PIXELS // 10**6} million pixels"
        case OSError(strerror=str(text)):
            return text
    return f"{error}".partition("\n")[0] or type(error).__name__


class PictureCache:
    """The pictures read last, by file, age and box. Any thread may ask; at most `limit` bytes of pixels are kept.

    As long as a file stays as it is and is remembered, the same object comes back.
    """

    def __init__(self, limit: int = REMEMBERED):
        self._limit = limit
        self._pictures: OrderedDict[tuple, Image] = OrderedDict()
        self._lock = Lock()

    def read(self, path: Path, box: tuple[int, int]) -> Image:
        """`read_picture`, unless that is known already. Raises Unreadable, which is not remembered."""
        key = path, _age(path), box
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        image = read_picture(path, box)
        with self._lock:
            self._pictures[key] = image
            held = sum(map(_bytes, self._pictures.values()))
            while held > self._limit and len(self._pictures) > 1:
                held -= _bytes(self._pictures.popitem(last=False)[1])
        return image


def _bytes(image: Image) -> int:
    return 4 * image.width * image.height
