from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest

from engine import tiny
from engine.tiny import scenes


def drawn(emoji, count=2000, **options):
    chance = Random(7)
    return [scenes.draw(emoji.names, chance, **options) for _ in range(count)]


def test_a_scene_is_a_function_of_its_chance(emoji):
    assert scenes.draw(emoji.names, Random(3)) == scenes.draw(emoji.names, Random(3))


def test_more_than_half_of_the_scenes_say_nothing_of_size_or_place(emoji):
    kinds = Counter(scene.kind for scene in drawn(emoji))
    assert kinds["plain"] > sum(kinds.values()) / 2 and set(kinds) == set(scenes.KINDS)


@pytest.mark.parametrize("freely", [0.0, 1.0])
def test_what_a_caption_says_holds_in_its_picture(emoji, freely):
    for scene in drawn(emoji, freely=freely):
        words = scene.caption.replace(",", "").split()
        assert all(figure.name in scene.caption for figure in scene.figures)
        assert ("small" in words) == any(figure.side in (32, 28) for figure in scene.figures), scene
        assert ("large" in words) == any(figure.side == 84 for figure in scene.figures), scene
        named = {colour for colour in tiny.COLOURS if colour in words}
        assert named <= {scene.colour}, scene
        if scene.kind == "placed":
            figure = scene.figures[0]
            middle = figure.left + figure.side / 2, figure.top + figure.side / 2
            assert ("left" in words) == (middle[0] < 31) and ("right" in words) == (middle[0] > 33), scene
            assert ("top" in words) == (middle[1] < 31) and ("bottom" in words) == (middle[1] > 33), scene


def test_of_two_the_first_named_is_left_or_above_unless_the_words_turn_it_round(emoji):
    for scene in drawn(emoji):
        if scene.kind != "pair":
            continue
        first, second = scene.figures
        named_first = scene.caption.index(first.name) < scene.caption.index(second.name)
        assert named_first != ("right of" in scene.caption or "below" in scene.caption), scene
        assert (first.left < second.left) != (first.top < second.top)


def test_words_by_chance_leave_what_is_said_in_one_piece(emoji):
    free = drawn(emoji, kinds=scenes.COMPOSED, freely=1.0)
    assert all(scene.colour in scene.caption.split() for scene in free)
    assert len({scene.caption for scene in free}) == len(free)
    assert abs(sum(scene.kind == "pair" for scene in free) / len(free) - scenes.COMPOSED["pair"]) < 0.03


def test_a_picture_is_the_drawing_over_its_colour(emoji):
    scene = scenes.Scene((scenes.Figure("blob c"),), "pink", "", "plain")
    expected = np.asarray(emoji.on("blob c", "pink"))
    assert np.abs(scenes.Painter(emoji).paint(scene).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("place", scenes.PLACES)
def test_a_placed_drawing_stays_inside_the_frame(emoji, place):
    figure = scenes.at("blob a", place)
    assert min(figure.left, figure.top) >= scenes.MARGIN
    assert max(figure.left, figure.top) + figure.side <= scenes.FRAME - scenes.MARGIN


def test_a_mask_covers_what_is_drawn_and_nothing_else(emoji):
    painter = scenes.Painter(emoji)
    scene = scenes.Scene((scenes.at("blob b", "top left"),), "red", "", "placed")
    mask, picture = painter.mask(scene), painter.paint(scene)
    assert 0.01 < mask.mean() < 0.5
    assert np.abs(picture[mask < 0.002].astype(int) - tiny.COLOURS["red"]).max() <= 1


def test_learned_are_whole_categories_and_drawings_that_stand_apart(emoji):
    twins = emoji.drawings.copy()
    twins[1] = twins[0]
    both = type(emoji)(emoji.names, ("Objects",) * 10, twins)
    assert "blob a" not in both.learned() and "blob b" not in both.learned() and "blob e" in both.learned()
    whole = type(emoji)(emoji.names, ("Food & Drink",) * 10, twins)
    assert whole.learned() == list(emoji.names)
    hidden = type(emoji)(("octopus", "rugby football", *emoji.names[2:]), ("Food & Drink",) * 10, twins)
    assert not {"octopus", "rugby football"} & set(hidden.learned())
