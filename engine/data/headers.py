"""The size of a picture from the first bytes of its file, for lists of thousands: nothing is decoded.

JPEG, PNG, WebP and GIF are read here in a few microseconds. Whatever is odd about a file, or says by another way how it
lies, is left to Pillow, which is five times as slow; so the two never differ.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Callable
from pathlib import Path

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""The only readers of Pillow's that are tried. A file named .png may hold anything, and some others start programs."""

ORIENTATION, ON_THEIR_SIDE = 0x0112, (5, 6, 7, 8)
"""EXIF's tag, and its values for pictures that are stored lying on their side."""

_HEAD, _LONGEST, _MOST_PARTS = 4096, 1 << 20, 1000
"""Bytes that are read at once, bytes of one part, and parts of a file; what has more is left to Pillow."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG's markers that begin a frame and carry its size."""
_BARE = {0x01, *range(0xD0, 0xD9)}
"""JPEG's markers without a length."""
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(="|>)([0-9])')

Size = tuple[int, int]
Bytes = Callable[[int, int], bytes]
"""A file: so many bytes from an offset on. ValueError where it has no more."""


class _Odd(Exception):
    """Something that Pillow should look at."""


def upright_size(path: str | Path) -> Size:
    """Width and height in pixels as a picture is looked at; zeros where that can't be read. Never waits for a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return 0, 0
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return 0, 0
        head = os.read(descriptor, _HEAD)

        def read(start: int, length: int) -> bytes:
            found = head[start : start + length]
            if len(found) < length <= _LONGEST and len(head) == _HEAD:
                found = os.pread(descriptor, length, start)
            if len(found) < length:
                raise ValueError
            return found

        size = _size(read)
    except (OSError, ValueError, struct.error, _Odd):
        size = _pillows(path)
    finally:
        os.close(descriptor)
    return size


def _size(read: Bytes) -> Size:
    start = read(0, 12)
    if start.startswith(b"\xff\xd8"):
        size, orientation = _jpeg(read)
    elif start.startswith(b"\x89PNG\r\n\x1a\n"):
        size, orientation = _png(read)
    elif start[:4] == b"RIFF" and start[8:] == b"WEBP":
        size, orientation = _webp(read), None
    elif start[:6] in (b"GIF87a", b"GIF89a"):
        size, orientation = struct.unpack("<HH", read(6, 4)), None
    else:
        raise _Odd
    if 0 in size:
        raise _Odd
    return size[::-1] if orientation in ON_THEIR_SIDE else size


def _jpeg(read: Bytes) -> tuple[Size, int | None]:
    at, exif, xmp = 2, None, None
    for _ in range(_MOST_PARTS):
        mark, kind = read(at, 2)
        if mark != 0xFF or kind in (0xD9, 0xDA):
            raise _Odd
        if kind == 0xFF or kind in _BARE:
            at += 1 if kind == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", read(at + 2, 2))
        if kind in _FRAMES:
            return struct.unpack(">HH", read(at + 5, 4))[::-1], exif or xmp
        if kind == 0xE1:
            inside = read(at + 4, length - 2)
            if inside.startswith(_EXIF):
                exif = _orientation(inside[len(_EXIF) :])
            elif inside.startswith(_XMP):
                xmp = _orientation_in_xmp(inside)
        at += 2 + length
    raise _Odd


def _png(read: Bytes) -> tuple[Size, int | None]:
    at, exif, xmp = 33, None, None
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack(">I4s", read(at, 8))
        if kind == b"IDAT":
            return struct.unpack(">II", read(16, 8)), exif or xmp
        if kind == b"eXIf":
            exif = _orientation(read(at + 8, length))
        elif kind in _TEXTS and length > 20:
            start = read(at + 8, 20)
            if start.lower().startswith(b"raw profile type ex"):
                raise _Odd
            if start.startswith(b"XML:com.adobe.xmp\0\0"):
                xmp = _orientation_in_xmp(read(at + 8, length))
        at += length + 12
    raise _Odd


def _webp(read: Bytes) -> Size:
    match read(12, 4):
        case b"VP8 ":
            width, height = struct.unpack("<HH", read(26, 4))
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack("<I", read(21, 4))
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise _Odd  # the extended form, which may bring EXIF data along


def _orientation(tiff: bytes) -> int | None:
    """What a block of EXIF data says."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        raise _Odd
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for number in range(entries):
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * number)
        if tag == ORIENTATION:
            if (kind, count) != (3, 1):
                raise _Odd
            return value
    return None


def _orientation_in_xmp(text: bytes) -> int | None:
    match = _XMP_ORIENTATION.search(text)
    return int(match[2]) if match else None


def _pillows(path: str | Path) -> Size:
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            # TIFFs are turned by Pillow itself; a whole PNG is decoded in search of what its header didn't bring along.
            told = image.format != "PNG" or not image.info.keys().isdisjoint(("exif", "Raw profile type exif"))
            exif = image.getexif() if told and image.format != "TIFF" else {}
            return image.size[::-1] if exif.get(ORIENTATION) in ON_THEIR_SIDE else image.size
    except Exception:  # what damaged headers raise in Pillow is not limited to OSError
        return 0, 0
