"""The ruler: exact about what it is shown, indifferent to where its drawings came from."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.ruler import Ruler, background, moved
from engine import tiny
from engine.errors import UserError
from engine.tiny.drawings import Emoji


def test_every_emoji_is_nearest_to_itself_on_every_colour(emoji):
    ruler = Ruler(emoji)
    ranks = {ruler.rank(emoji.on(name, colour), name, colour) for name in emoji.names for colour in tiny.COLOURS}
    assert ranks == {1}


def test_a_rank_counts_the_emoji_that_are_nearer(emoji):
    ruler, image = Ruler(emoji), emoji.on("cat", "red")
    nearest_first = np.argsort(ruler.distances(image, "red"))
    assert [ruler.rank(image, emoji.names[index], "red") for index in nearest_first] == list(range(1, 9))


@pytest.mark.parametrize("colour", tiny.COLOURS)
def test_distances_are_those_of_composited_and_pooled_pictures(emoji, colour):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))

    def pooled(picture):
        return np.asarray(picture, np.float64).reshape(16, 4, 16, 4, 3).mean((1, 3))

    expected = [np.sqrt(np.square(pooled(emoji.on(name, colour)) - pooled(image)).mean()) for name in emoji.names]
    assert Ruler(emoji).distances(image, colour) == pytest.approx(expected, abs=0.5)


def test_a_picture_is_held_against_the_requested_colour_and_not_its_own(emoji):
    ruler, image = Ruler(emoji), emoji.on("cat", "red")
    cat = emoji.names.index("cat")
    assert ruler.distances(image, "red")[cat] < 1 < 20 < ruler.distances(image, "green")[cat]


@pytest.mark.parametrize("colour", tiny.COLOURS)
def test_the_background_is_read_off_the_rim_whatever_is_in_the_middle(colour):
    rim = tuple(min(255, max(0, level + 12)) for level in tiny.COLOURS[colour])
    image = Image.new("RGB", (64, 64), rim)
    ImageDraw.Draw(image).rectangle((1, 1, 62, 62), fill="#ff00ff")
    ImageDraw.Draw(image).rectangle((10, 40, 40, 63), fill="#00ffff")
    assert background(image) == colour


def test_a_picture_has_moved_by_the_root_mean_square_of_its_levels():
    black, dark = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), (30, 0, 0))
    assert moved(black, black) == 0
    assert moved(black, dark) == pytest.approx(30 / np.sqrt(3))


def test_names_lose_their_punctuation_and_emoji_without_a_drawing_are_left_out(emoji):
    assert "lost" not in emoji.names
    assert {"hot dog", "flag x"} < set(emoji.names)


def test_the_first_weights_knew_neither_other_categories_nor_what_was_kept_from_them(emoji):
    assert emoji.first_known() == ["squid", "cat", "hot dog"]


def test_an_archive_is_read_like_the_folder_that_it_holds(package, emoji, tmp_path):
    archive = tmp_path / "emoji.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(package, "package")
    packed = Emoji.read(archive)
    assert packed.names == emoji.names
    assert np.array_equal(packed.drawings, emoji.drawings)
    assert np.array_equal(Emoji.read(package.parent).drawings, emoji.drawings)


def test_drawings_that_are_not_there_are_asked_for_by_name(tmp_path):
    (tmp_path / "text.tgz").write_text("no archive")
    with tarfile.open(tmp_path / "cut.tgz", "w:gz") as tar:
        tar.add(__file__, "package/img/twitter/64/a.png")
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "cut.tgz").read_bytes()[:900])
    for source in (tmp_path / "nowhere", tmp_path / "text.tgz", tmp_path / "cut.tgz", tmp_path):
        with pytest.raises(UserError, match=r"npm pack emoji-datasource-twitter@16\.0\.0") as refused:
            Emoji.read(source)
        assert str(source) in str(refused.value)
        assert "Error" not in str(refused.value)
