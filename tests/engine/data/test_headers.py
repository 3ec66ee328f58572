"""The size of a picture from its header is what one sees who opens it."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.data import headers
from engine.data.headers import upright_size
from engine.data.images import decode

SUFFIXES = ["jpg", "png", "webp", "gif", "bmp", "tiff"]
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def picture(suffix: str, **options) -> bytes:
    buffer = io.BytesIO()
    kind = {"jpg": "JPEG", "tiff": "TIFF"}.get(suffix, suffix.upper())
    Image.effect_noise((40, 30), 50).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    data = Image.Exif()
    data.endian = order
    data[0x010F] = "a maker"
    data[0x0112] = orientation
    return data.tobytes()


@pytest.fixture
def size_of(tmp_path):
    def size_of(content: bytes) -> tuple[int, int]:
        path = tmp_path / "a"
        path.write_bytes(content)
        return upright_size(path)

    return size_of


@pytest.fixture
def alone(monkeypatch):
    """Pillow is not asked."""
    monkeypatch.setattr(headers, "_pillows", lambda path: pytest.fail("Pillow was asked"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_has_its_size(size_of, suffix):
    assert size_of(picture(suffix)) == (40, 30)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("jpg", {}), ("jpg", {"progressive": True}), ("png", {}), ("webp", {}), ("webp", {"lossless": True}), ("gif", {})],
)
def test_usual_files_are_read_without_pillow(size_of, alone, suffix, options):
    assert size_of(picture(suffix, **options)) == (40, 30)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_picture_on_its_side_is_turned(size_of, alone, suffix, orientation, order):
    turned = orientation in (5, 6, 7, 8)
    assert size_of(picture(suffix, exif=exif(orientation, order))) == ((30, 40) if turned else (40, 30))


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("suffix", ["webp", "tiff"])
def test_pillow_turns_what_is_not_read_here(size_of, suffix, orientation):
    assert size_of(picture(suffix, exif=exif(orientation))) == ((40, 30) if orientation == 1 else (30, 40))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_xmp_says_counts_where_exif_says_nothing(size_of, alone, orientation):
    size = (30, 40) if orientation == 6 else (40, 30)
    assert size_of(picture("jpg", xmp=XMP % orientation)) == size
    assert size_of(picture("jpg", xmp=XMP % orientation, exif=exif(3))) == (40, 30)
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", (XMP % orientation).decode())
    assert size_of(picture("png", pnginfo=info)) == size


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_long_data_before_the_size_are_passed_over(size_of, suffix):
    options = {"icc_profile": bytes(100_000), "exif": exif(6)} if suffix in ("jpg", "png", "webp") else {}
    assert size_of(picture(suffix, **options)) == ((30, 40) if options else (40, 30))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif"])
def test_a_file_cut_anywhere_has_the_size_that_training_would_find_or_none(tmp_path, suffix):
    whole = picture(suffix, exif=exif(6)) if suffix != "gif" else picture(suffix)
    path = tmp_path / "a"
    for length in range(min(len(whole), 400)):
        path.write_bytes(whole[:length])
        assert upright_size(path) in ((0, 0), (30, 40) if suffix != "gif" else (40, 30))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Tag data larger")
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_changed_byte_in_a_header_does_no_harm(tmp_path, suffix):
    whole = picture(suffix, exif=exif(6))
    path = tmp_path / "a"
    for place in range(2, min(len(whole), 300)):
        for byte in (0x00, 0xFF):
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            assert len(upright_size(path)) == 2


def test_sizes_are_those_of_the_decoded_picture(tmp_path):
    for suffix in ("jpg", "png", "webp", "gif", "bmp", "tiff"):
        for orientation in (1, 6):
            options = {"exif": exif(orientation)} if suffix not in ("gif", "bmp") else {}
            content = picture(suffix, **options)
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(content)
            assert upright_size(path) == decode(content, path).image.size


def test_what_is_no_picture_has_no_size_and_holds_nothing_up(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "empty.png").touch()
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "endless.jpg").write_bytes(b"\xff\xd8" + b"\xff\xe0\0\0" * 100_000)
    for name in ("pipe.png", "text.png", "empty.png", "script.png", "endless.jpg", "missing.png", "\0.png"):
        assert upright_size(tmp_path / name) == (0, 0)
