from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from engine.data.images import colour, fit, load_rgb
from engine.errors import UserError

RAMP = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)


def pixels(path, **settings):
    image = load_rgb(path, **settings)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_a_colour_is_read_from_its_hex_form():
    assert colour("#0a7fFF") == (10, 127, 255)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_a_plain_picture_comes_as_it_is(tmp_path, noise, suffix):
    noise().save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(pixels(tmp_path / f"a.{suffix}"), np.asarray(noise()))


@pytest.mark.parametrize(("suffix", "order"), [("png", "<"), ("tif", "<"), ("tif", ">")])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix, order):
    Image.fromarray(RAMP.astype(f"{order}u2")).save(tmp_path / f"a.{suffix}")
    assert np.abs(pixels(tmp_path / f"a.{suffix}")[..., 0] - RAMP / 257).max() <= 0.5


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_and_alpha_are_scaled_not_clipped(tmp_path, png16, channels):
    samples = np.stack([RAMP, RAMP[::-1], RAMP.T, np.full_like(RAMP, 65535)], axis=-1)[..., 4 - channels :]
    (tmp_path / "a.png").write_bytes(png16(samples))
    expected = {2: samples[..., [0, 0, 0]], 3: samples, 4: samples[..., :3]}[channels] / 257
    assert np.abs(pixels(tmp_path / "a.png") - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_picture_stands_upright_whatever_way_it_was_stored(tmp_path, orientation, suffix):
    """The oracle: viewers show row 0 and column 0 of the stored picture at these sides (EXIF 2.3, tag 0x0112)."""
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[32:, :16] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright)[:, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, **lossless)
    found = pixels(tmp_path / f"a.{suffix}")
    assert found.shape == upright.shape
    assert np.abs(found - upright).max() < 16


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("damage", [b"", b"II*\0", b"not exif at all", b"II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"])
def test_damaged_exif_leaves_the_picture_as_it_lies(tmp_path, noise, damage):
    noise().save(tmp_path / "a.png", exif=b"Exif\0\0" + damage)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(noise()))


def transparent(mode):
    """A picture, clear on its left half, of a mode that can say so, and what its right half looks like."""
    if mode in ("RGBA", "LA"):
        image = Image.new("RGB", (8, 8), (200, 200, 200)).convert(mode)
        image.putalpha(Image.fromarray(np.repeat([[0] * 4 + [255] * 4], 8, axis=0).astype(np.uint8)))
        return image, {}
    image = Image.new("RGB", (8, 8), (200, 200, 200))
    image.paste((1, 1, 1), (0, 0, 4, 8))
    if mode == "P":
        image = image.quantize(2)
        return image, {"transparency": image.getpixel((0, 0))}
    image = image.convert(mode)
    return image, {"transparency": image.getpixel((0, 0))}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_shows_the_background(tmp_path, mode):
    image, settings = transparent(mode)
    image.save(tmp_path / "a.png", **settings)
    found = pixels(tmp_path / "a.png", background=(10, 20, 30))
    assert (found[:, :4] == (10, 20, 30)).all()
    assert (found[:, 4:] == 200).all()


def test_16_bit_grey_with_a_transparent_shade_shows_the_background_there(tmp_path):
    grey = np.full((8, 8), 51400, np.uint16)
    grey[:, :4] = 257
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=257)
    found = pixels(tmp_path / "a.png", background=(10, 20, 30))
    assert (found[:, :4] == (10, 20, 30)).all()
    assert (found[:, 4:] == 200).all()


def test_half_transparent_pixels_are_mixed_with_the_background(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 100, 51)).save(tmp_path / "a.png")
    assert np.abs(pixels(tmp_path / "a.png", background=(0, 100, 100))[0, 0] - (51, 80, 100)).max() <= 1


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_becomes_the_colours_it_prints(tmp_path, suffix):
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / f"a.{suffix}")
    assert np.abs(pixels(tmp_path / f"a.{suffix}")[8, 8] - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_pictures_come_in_their_colours(tmp_path, mode):
    image = Image.new("RGB", (8, 8), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 4, 8))
    image.convert(mode).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(image))


def test_a_colour_profile_is_applied_and_a_useless_one_is_passed_over(tmp_path):
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "srgb.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image.save(tmp_path / "unfit.png", icc_profile=lab)
    image.save(tmp_path / "broken.png", icc_profile=b"no profile")
    image.save(tmp_path / "wide.png", icc_profile=wide_gamut_profile())
    for name in ("srgb", "unfit", "broken"):
        assert np.array_equal(pixels(tmp_path / f"{name}.png"), pixels(tmp_path / "plain.png")), name
    red, green, blue = pixels(tmp_path / "wide.png")[0, 0]
    assert red > 205 and green < 100 and blue < 50  # the same numbers in a wider gamut are a stronger colour


def wide_gamut_profile() -> bytes:
    """sRGB's profile with the red primary's matrix column pushed outward, under another name."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for entry in range(132, 132 + 12 * count, 12):
        tag, start = bytes(profile[entry : entry + 4]), int.from_bytes(profile[entry + 4 : entry + 8], "big")
        if tag == b"rXYZ":
            for place, value in zip((8, 12, 16), (0.65, 0.28, 0.0), strict=True):
                profile[start + place : start + place + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
        if tag == b"desc":
            length = int.from_bytes(profile[entry + 8 : entry + 12], "big")
            body = bytes(profile[start : start + length])
            profile[start : start + length] = body.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
    return bytes(profile)


def test_a_file_that_changed_since_it_was_checked_is_refused(tmp_path, noise):
    noise(seed=1).save(tmp_path / "a.png")
    sha256 = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    load_rgb(tmp_path / "a.png", sha256=sha256)
    noise(seed=2).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="another content than when the images were checked"):
        load_rgb(tmp_path / "a.png", sha256=sha256)


def test_a_picture_that_fits_already_is_not_touched(noise):
    image = noise(48, 32)
    assert np.array_equal(np.round((fit(image, 48, 32) + 1) * 127.5).transpose(1, 2, 0), np.asarray(image))


def test_fit_gives_planes_of_rows_in_minus_one_to_one():
    image = Image.new("RGB", (10, 20), (255, 0, 51))
    found = fit(image, 4, 8)
    assert found.shape == (3, 8, 4) and found.dtype == np.float32 and found.flags.c_contiguous
    assert found[0].min() == 1 and found[1].max() == -1 and np.allclose(found[2], -0.6)


def test_the_crop_moves_from_one_side_to_the_other_along_the_room_that_is_left():
    columns = np.repeat(np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 20, axis=0), 3, axis=2)
    wide = Image.fromarray(columns)  # 60×20: column x has the value 4x
    for u, first in ((0, 0), (0.5, 20), (1, 40)):
        found = np.round((fit(wide, 20, 20, crop=(u, 0.9)) + 1) * 127.5)[0, 0]
        assert np.array_equal(found, np.arange(first, first + 20) * 4), u
    tall = wide.transpose(Image.Transpose.TRANSPOSE)
    for v, first in ((0, 0), (0.5, 20), (1, 40)):
        found = np.round((fit(tall, 20, 20, crop=(0.9, v)) + 1) * 127.5)[0, :, 0]
        assert np.array_equal(found, np.arange(first, first + 20) * 4), v


@given(st.integers(1, 200), st.integers(1, 200), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_any_picture_fits_and_flipping_is_the_last_thing_done(width, height, u, v, flip):
    image = Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8))
    straight, mirrored = fit(image, 32, 24, crop=(u, v)), fit(image, 32, 24, crop=(u, v), flip=True)
    assert straight.shape == (3, 24, 32) and np.abs(straight).max() <= 1
    assert np.array_equal(mirrored, straight[:, :, ::-1])


def test_aspect_is_kept_when_scaling():
    """A circle stays round: equal extent along both axes after a picture of odd size was cut and scaled."""
    y, x = np.mgrid[:301, :457]
    disc = ((x - 228) ** 2 + (y - 150) ** 2 < 100**2).astype(np.uint8) * 255
    found = fit(Image.fromarray(np.stack([disc] * 3, axis=-1)), 64, 64)[0] > 0
    assert found.any(axis=0).sum() == found.any(axis=1).sum()
