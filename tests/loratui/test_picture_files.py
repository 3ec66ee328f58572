"""Odd picture files: what is shown of them, or the words in place of it, and what is remembered."""

from __future__ import annotations

import os
import struct
import zlib

import pytest
from PIL import Image

from loratui import picture_files
from loratui.picture_files import PictureCache, Unreadable, read_picture

BOX = (16, 16)


def save(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def why_not(path) -> str:
    with pytest.raises(Unreadable) as caught:
        read_picture(path, BOX)
    return str(caught.value)


def quarters() -> Image.Image:
    """Red, green over blue, white: 32×32."""
    image = Image.new("RGB", (32, 32), "red")
    for colour, at in (("lime", (16, 0)), ("blue", (0, 16)), ("white", (16, 16))):
        image.paste(colour, (*at, at[0] + 16, at[1] + 16))
    return image


def test_a_truncated_file_says_so(tmp_path):
    path = save(tmp_path / "a.png", Image.effect_noise((64, 64), 80))
    path.write_bytes(path.read_bytes()[:600])
    assert "truncated" in why_not(path)


def test_what_is_no_picture_at_all_is_told_in_words(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("a caption, misnamed")
    os.mkfifo(tmp_path / "pipe.png")
    assert why_not(tmp_path / "empty.png") == "the file is empty"
    assert why_not(tmp_path / "text.png") == "it is none of PNG, JPEG, WEBP, BMP, TIFF, GIF"
    assert why_not(tmp_path) == "it is a folder"
    assert why_not(tmp_path / "pipe.png") == "it is not a file"
    assert why_not(tmp_path / "gone.png") == "the file is not there"
    assert why_not(tmp_path / "nul\0.png")


def test_other_formats_are_not_opened_even_if_pillow_knows_them(tmp_path):
    assert why_not(save(tmp_path / "a.png", quarters(), format="PPM")).startswith("it is none of")


@pytest.mark.parametrize(("width", "height"), [(20_000, 5_001), (60_000, 60_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, width, height):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    assert "100 million" in why_not(path)


def test_sixteen_bits_are_brought_down_to_eight(tmp_path):
    wide = Image.frombytes("I;16", (2, 1), struct.pack("<2H", 0, 65535))
    image = read_picture(save(tmp_path / "a.png", wide), (2, 1))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(0, 0, 0), (255, 255, 255)]


def test_a_palette_with_a_transparent_colour_shows_the_checker(tmp_path):
    image = Image.new("P", (8, 8))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (4, 0, 8, 8))
    shown = read_picture(save(tmp_path / "a.png", image, transparency=0), (8, 8))
    assert shown.getpixel((7, 7)) == (0, 255, 0)
    assert {shown.getpixel((x, y)) for x in range(4) for y in range(8)} == {(96, 96, 96), (128, 128, 128)}


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("RGB", (32, 32), (200, 30, 30)).convert("CMYK"))
    red, green, blue = read_picture(path, BOX).getpixel((8, 8))
    assert red > 180 and green < 50 and blue < 50


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_of_an_animation_the_first_picture_is_shown(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("blue", "red")]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert read_picture(path, (8, 8)).getpixel((4, 4)) == (0, 0, 255)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_still_have_a_pixel(tmp_path, size):
    assert min(read_picture(save(tmp_path / "a.png", Image.new("RGB", size)), BOX).size) >= 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_its_orientation(tmp_path, suffix, orientation):
    lying = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    image = quarters().resize((64, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image.transpose(lying[orientation]) if orientation in lying else image
    shown = read_picture(save(tmp_path / f"a.{suffix}", stored, exif=exif), (32, 32))
    assert shown.size == (32, 16)
    corners = [shown.getpixel(at) for at in ((4, 4), (28, 4), (4, 12), (28, 12))]
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert all(
        abs(a - b) < 25 for got, want in zip(corners, expected, strict=True) for a, b in zip(got, want, strict=True)
    )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_tags_do_not_spoil_a_picture(tmp_path):
    path = save(tmp_path / "a.jpg", quarters(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_picture(path, BOX).size == (16, 16)


def test_a_file_is_read_once_per_size_until_it_changes(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(picture_files, "_read", lambda path, box: reads.append(box) or Image.new("RGB", box))
    path = save(tmp_path / "a.png", quarters())
    cache = PictureCache()
    assert cache.read(path, (4, 4)) is cache.read(path, (4, 4))
    cache.read(path, (8, 8))
    assert reads == [(4, 4), (8, 8)]
    os.utime(path, ns=(1, 1))
    cache.read(path, (8, 8))
    assert reads[2:] == [(8, 8)]


def test_what_was_not_used_for_longest_is_forgotten_beyond_the_limit(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(picture_files, "_read", lambda path, box: reads.append(path.name) or Image.new("RGB", box))
    files = [save(tmp_path / f"{name}.png", quarters()) for name in "abc"]
    cache = PictureCache(limit=2 * 4 * 16 * 16)
    for index in (0, 1, 0, 2, 0, 1):
        cache.read(files[index], BOX)
    assert reads == ["a.png", "b.png", "c.png", "b.png"]


def test_a_picture_larger_than_the_limit_is_still_remembered(tmp_path):
    path = save(tmp_path / "a.png", quarters())
    cache = PictureCache(limit=1)
    assert cache.read(path, BOX) is cache.read(path, BOX)
