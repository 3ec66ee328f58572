from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from engine.data import images
from engine.data.check import Rules, check, check_lengths
from engine.data.images import load_rgb

RULES = Rules(resolution=64, step=8)


def only_problem(path, rules=RULES):
    report = check([path], rules)
    assert not report.facts
    (problem,) = report.problems
    assert problem.advice and problem.expected
    return problem


def whats(path, rules=RULES):
    report = check([path], rules)
    assert not report.problems and path in report.facts
    load_rgb(path)  # what was accepted can be loaded
    return [note.what for note in report.notes]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_file_is_found(tmp_path, noise, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    noise().save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    problem = only_problem(path)
    assert problem.where == str(path)
    assert problem.found == "a truncated file: its end is missing"


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_changed_byte_in_a_png_is_found(tmp_path, noise, place):
    path = tmp_path / "a.png"
    noise().save(path)
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0xFF
    path.write_bytes(content)
    assert only_problem(path).found.startswith("a corrupt file (")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_is_refused(tmp_path, noise, suffix):
    path = tmp_path / f"a.{suffix}"
    noise(seed=1).save(path, save_all=True, append_images=[noise(seed=2), noise(seed=3)])
    assert only_problem(path).found == "3 frames or pages"


def test_several_pages_are_refused(tmp_path, noise):
    noise(seed=1).save(tmp_path / "a.tif", save_all=True, append_images=[noise(seed=2)])
    assert only_problem(tmp_path / "a.tif").found == "2 frames or pages"


def test_a_still_gif_is_fine(tmp_path, noise):
    noise().save(tmp_path / "a.gif")
    assert whats(tmp_path / "a.gif") == []


def test_a_telephones_jpeg_with_a_second_view_is_one_picture(tmp_path, noise):
    noise(seed=1).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[noise(seed=2)])
    assert whats(tmp_path / "a.jpg") == []
    shown = np.asarray(load_rgb(tmp_path / "a.jpg")).astype(int)
    first, second = (np.abs(shown - np.asarray(noise(seed=seed))).mean() for seed in (1, 2))
    assert first < 0.7 * second


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file (0 bytes)"),
        (b"this is not a picture\n", "text"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
        (b"\x7fELF\x02\x01\x01\x00" * 40, "content of no known image format"),
    ],
)
def test_a_file_that_is_no_picture_is_refused_whatever_its_name(tmp_path, content, found):
    (tmp_path / "a.png").write_bytes(content)
    assert only_problem(tmp_path / "a.png").found == found


def test_the_content_decides_not_the_suffix(tmp_path, noise):
    noise().save(tmp_path / "a.jpg", format="PNG")
    assert whats(tmp_path / "a.jpg") == []


def test_too_small_is_what_must_be_enlarged_too_far_to_cover_its_bucket(tmp_path, noise):
    noise(27, 35).save(tmp_path / "small.png")
    problem = only_problem(tmp_path / "small.png")
    assert problem.expected == "a picture that covers 56×72 when enlarged at most 2 times"
    assert problem.found == "27×35 pixels, to be enlarged 2.1 times"
    noise(32, 32).save(tmp_path / "enough.png")
    report = check([tmp_path / "enough.png"], RULES)
    assert [str(note) for note in report.notes] == [f"{tmp_path}/enough.png: enlarged to cover its bucket (2.00 times)"]
    assert only_problem(tmp_path / "enough.png", Rules(64, 8, max_upscale=1.9)).found.endswith("2.0 times")


def test_a_picture_of_one_pixel_is_too_small(tmp_path, noise):
    noise(1, 1).save(tmp_path / "a.png")
    assert only_problem(tmp_path / "a.png").found == "1×1 pixels, to be enlarged 64.0 times"


def test_a_decompression_bomb_is_refused_before_it_unfolds(tmp_path):
    Image.new("1", (8, 8)).save(tmp_path / "bomb.png")
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    assert only_problem(tmp_path / "bomb.png").found == "more than 179 million pixels"


def test_a_file_of_impossible_size_is_not_read(tmp_path, monkeypatch):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(images.MOST_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    assert only_problem(tmp_path / "a.png").found == "a file of 1.0 GiB"


def test_a_file_that_may_not_be_read_is_a_problem(tmp_path, noise, monkeypatch):
    noise().save(tmp_path / "a.png")

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert only_problem(tmp_path / "a.png").found == "permission denied"


def test_broken_links_pipes_and_folders_with_an_images_name_are_problems(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    found = [only_problem(tmp_path / f"{name}.png").found for name in ("link", "pipe", "folder")]
    assert found == ["no such file or directory", "no regular file", "no regular file"]


def test_a_name_that_is_not_text_is_a_problem_that_can_be_printed(tmp_path, noise):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    try:
        noise().save(path, format="PNG")
    except OSError:
        pytest.skip("this file system takes no such names")
    problem = only_problem(path)
    str(problem).encode()
    assert problem.expected == "a name in UTF-8"


def test_32_bit_samples_are_refused(tmp_path):
    Image.fromarray(np.ones((64, 64), np.float32)).save(tmp_path / "a.tif")
    assert only_problem(tmp_path / "a.tif").found == "samples of the kind 'F'"


def test_what_is_changed_on_the_way_is_said(tmp_path, noise, png16):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise(80, 64).save(tmp_path / "turned.jpg", exif=exif)
    noise(80, 64).save(tmp_path / "turned.tif", exif=exif)
    noise().convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.new("RGBA", (64, 64), (1, 2, 3, 4)).save(tmp_path / "alpha.png")
    image = noise().quantize(8)
    image.save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "grey16.png")
    (tmp_path / "rgb16.png").write_bytes(png16(np.zeros((64, 64, 3), np.uint16)))
    noise().save(tmp_path / "plain.png")
    said = {path.name: whats(path, Rules(64, 8, background=(16, 32, 255))) for path in tmp_path.iterdir()}
    assert said == {
        "turned.jpg": ["turned upright by its EXIF orientation"],
        "turned.tif": ["turned upright by its EXIF orientation"],
        "cmyk.jpg": ["CMYK converted to RGB"],
        "alpha.png": ["transparent parts laid over #1020ff"],
        "palette.png": ["transparent parts laid over #1020ff"],
        "grey16.png": ["16 bits a sample scaled to 8"],
        "rgb16.png": ["16 bits a sample scaled to 8"],
        "plain.png": [],
    }


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_size_and_bucket_are_those_of_the_picture_upright(tmp_path, noise, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / f"a.{suffix}"
    noise(100, 80).save(path, exif=exif)
    facts = check([path], RULES).facts[path]
    assert (facts.width, facts.height) == load_rgb(path).size == (80, 100)
    assert facts.bucket == (56, 72)


@pytest.mark.parametrize("name", ["-rf.png", "two\nlines.png", "bell\a.png", " blank .png", "turned\u202egnp.png"])
def test_odd_names_are_used_and_said_in_one_printable_line(tmp_path, noise, name):
    noise().save(tmp_path / name)
    (note,) = check([tmp_path / name], RULES).notes
    assert note.what == "unusual file name"
    assert str(note).isprintable()


@pytest.mark.parametrize("name", ["a (1).png", "Kätzchen.png", "猫.png", "a.b.c.png", "IMG_0001.JPG"])
def test_common_names_are_not_remarked_upon(tmp_path, noise, name):
    noise().save(tmp_path / name, format="PNG")
    assert whats(tmp_path / name) == []


def test_images_that_share_a_caption_file_and_copies_are_said(tmp_path, noise):
    noise(seed=1).save(tmp_path / "a.png")
    noise(seed=2).save(tmp_path / "a.jpg")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    report = check(sorted(tmp_path.iterdir()), RULES)
    assert [str(note) for note in report.notes] == [
        f"{tmp_path}/a.jpg: images of one name share their caption (with a.png)",
        f"{tmp_path}/copy.png: the same file twice (as a.png)",
    ]


def test_everything_is_reported_at_once_in_the_order_asked_and_progress_counts_it(tmp_path, noise):
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for i, path in enumerate(paths):
        if i % 3:
            noise(seed=i).save(path)
        else:
            path.write_bytes(b"")
    calls = []
    report = check([*paths, paths[1]], RULES, lambda done, total: calls.append((done, total)))
    assert list(report.facts) == [path for i, path in enumerate(paths) if i % 3]
    assert [problem.where for problem in report.problems] == [str(path) for i, path in enumerate(paths) if i % 3 == 0]
    assert calls == [(i, 9) for i in range(1, 10)]


def test_what_progress_raises_ends_the_look(tmp_path, noise):
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for path in paths:
        noise(seed=1).save(path)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(paths, RULES, stop)


def test_captions_longer_than_the_encoder_reads_are_said_and_counted_once():
    counted = []

    def count(caption):
        counted.append(caption)
        return len(caption.split())

    captions = [(Path("a.png"), "one two three"), (Path("b.png"), "one two"), (Path("c.png"), "one two three")]
    notes = check_lengths(captions, count, 2)
    assert [str(note) for note in notes] == [
        f"{name}.png: caption longer than the text encoder reads (3 tokens, 2 are read)" for name in "ac"
    ]
    assert counted == ["one two three", "one two"]
