"""Reading one picture file, and cutting it to the training size.

Everything that can be odd about a file is settled here, in this order: the picture is turned upright as its EXIF data
say, the samples are scaled to 8 bits, the colours brought to sRGB by the file's own profile, and what is transparent
is laid over a background. `check` says what was done; `decode` is shared by both, so that what was checked is what is
trained on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import stat
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from engine.data.headers import FORMATS
from engine.data.notes import shown
from engine.errors import Problem, UserError

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)

MOST_PIXELS = 178_956_970
"""A picture beyond this (twice what Pillow warns of, 4 bytes each) is taken for an attack on memory."""
MOST_BYTES = 1 << 30

# Pillow warns of half the size that it refuses; a medium-format camera gets there, and `MOST_PIXELS` stands guard.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16L", "I;16B"})
"""Pillow's kinds of pixels that are understood. Those of 32 bits are not: nobody knows the range of their samples."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what brings the picture upright."""


@dataclass(frozen=True)
class Decoded:
    """A picture whose samples are all in memory, upright, but still in the file's own mode."""

    image: Image.Image
    sixteen_bit: bool
    turned: bool
    """It was not stored upright."""

    @property
    def cmyk(self) -> bool:
        return self.image.mode == "CMYK"

    @property
    def alpha(self) -> bool:
        return self.image.has_transparency_data


def colour(text: str) -> Colour:
    """(r, g, b) of "#rrggbb"."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def read(path: Path) -> bytes:
    """The content of a picture file. UserError if it is none, empty, unreadable or beyond any sensible size."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _bad(path, "no regular file", "remove it")
        if status.st_size > MOST_BYTES:
            raise _bad(path, f"a file of {status.st_size / (1 << 30):.1f} GiB", "save it smaller")
        content = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "it can't be read").lower()
        raise _bad(path, reason, "check that the file is there and its permissions") from None
    if not content:
        raise _bad(path, "an empty file (0 bytes)", "copy it again or remove it")
    return content


def decode(content: bytes, path: Path) -> Decoded:
    """All samples of a still picture. UserError, naming `path`, for whatever cannot be trained on."""
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # MPO: a telephone's JPEG with a second view behind the first
            raise _bad(path, f"{frames} frames or pages", "save the one that you want as a still picture")
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError
        if image.mode not in MODES:
            raise _bad(path, f"samples of the kind {image.mode!r}", "save it as RGB with 8 or 16 bits a sample")
        sixteen_bit = any(";16" in str(tile.args) for tile in image.tile)
        turned = _orientation(image) in _UPRIGHT
        image.load()
        if image.format == "PNG":  # decoding takes no notice of the checksums, and a changed byte is a line of colours
            Image.open(io.BytesIO(content), formats=["PNG"]).verify()
        # Asked again, since Pillow itself turns TIFFs on loading and clears the mark.
        upright = image.transpose(_UPRIGHT[now]) if (now := _orientation(image)) in _UPRIGHT else image
    except UnidentifiedImageError:
        raise _bad(path, *_unidentified(content)) from None
    except Image.DecompressionBombError:
        raise _bad(path, f"more than {MOST_PIXELS / 1e6:.0f} million pixels", "save it smaller") from None
    except UserError:
        raise
    except Exception as error:  # what Pillow's decoders raise on damaged data is not limited to OSError
        raise _bad(path, *_damaged(content, error)) from None
    return Decoded(upright, sixteen_bit, turned)


def load_rgb(path: Path, background: Colour = WHITE, sha256: str = "") -> Image.Image:
    """The picture, upright, in 8-bit sRGB. With `sha256` given, UserError unless the file still has that content."""
    content = read(path)
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise _bad(path, "another content than when the images were checked", "leave the images alone while it runs")
    return to_rgb(decode(content, path).image, background)


def to_rgb(image: Image.Image, background: Colour) -> Image.Image:
    """A picture of any of the `MODES` as 8-bit sRGB, transparent parts over `background`."""
    image = _eight_bit(image)
    opaque, alpha = _split_alpha(image)
    opaque = _to_srgb(opaque, image.info.get("icc_profile"))
    if alpha is not None:
        opaque = Image.composite(opaque, Image.new("RGB", image.size, background), alpha)
    return opaque


def fit(
    image: Image.Image, width: int, height: int, crop: tuple[float, float] = (0.5, 0.5), flip: bool = False
) -> np.ndarray:
    """An RGB picture scaled to cover width × height, cropped and perhaps mirrored: float32 [3, height, width], -1..1.

    `crop` is where the cut lies in the room that is left: 0 at the left or top, 1 at the right or bottom. The cut is
    made in the source, at fractional pixels, and scaled once (Lanczos), so the aspect ratio is kept exactly.
    """
    scale = max(width / image.width, height / image.height)
    cut_width, cut_height = min(image.width, width / scale), min(image.height, height / scale)
    left, top = crop[0] * (image.width - cut_width), crop[1] * (image.height - cut_height)
    box = (left, top, min(image.width, left + cut_width), min(image.height, top + cut_height))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box), dtype=np.float32)
    if flip:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) / np.float32(127.5) - np.float32(1)


def _bad(path: Path, found: str, advice: str) -> UserError:
    return UserError(Problem(where=shown(path), expected="a still picture", found=found, advice=advice))


def _unidentified(content: bytes) -> tuple[str, str]:
    start = content[:256]
    if all(byte >= 32 or byte in b"\t\r\n" for byte in start):
        return "text", "remove it, or give it the suffix that it deserves"
    return "content of no known image format", f"save it as {', '.join(FORMATS[:3])}, or remove it"


def _damaged(content: bytes, error: Exception) -> tuple[str, str]:
    # WebP's decoder gives no reason, but the container says how long it should be.
    short = content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") + 8 > len(content)
    if short or "truncated" in str(error).lower():
        return "a truncated file: its end is missing", "copy it again or remove it"
    return f"a corrupt file ({str(error).strip() or type(error).__name__})", "copy it again or remove it"


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none or it makes no sense."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF never kept anybody from looking at the picture
        return 1
    return value if value in _UPRIGHT else 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 (Pillow's own conversion clips, and turns most of the picture white)."""
    if not image.mode.startswith("I;16"):
        return image
    samples = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((samples + 128) // 257).astype(np.uint8))
    grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
    if isinstance(key := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)))
    return grey


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours without alpha, and alpha if the picture has any: a channel, a palette's or one colour made clear."""
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "La", "1")
        whole = image.convert("RGBA")
        return whole.convert("L" if grey else "RGB"), whole.getchannel("A")
    return (image.convert("RGB") if image.mode == "P" else image), None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB by the file's colour profile where it has one that fits, else by the plain formulas."""
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # Nearly all are sRGB already; a conversion from sRGB to itself would only add rounding.
            if not (source.profile.profile_description or "").startswith("sRGB") or image.mode == "CMYK":
                image = ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
    return image.convert("RGB")


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
