"""The benchmark of the base: its exams are what they say, and who draws what was asked for passes them."""

from __future__ import annotations

import pytest
from rich.console import Console

from benchmarks import tiny_base
from benchmarks.ruler import Ruler
from benchmarks.tiny_base_report import SHARE, Figure, Outcome
from benchmarks.tiny_exams import FIRST, FREE, FREE_FORMS, KNOWN, PAIRS, PLACES, SIZES, Judge, exams
from engine import tiny
from engine.tiny import scenes
from engine.tiny.scorer import Scorer

NAMES = ("octopus", "squid", "cat", "hot dog", "cupcake", "hammer")


@pytest.fixture
def asked():
    return exams(NAMES, NAMES[:3], share=0.1)


@pytest.fixture
def judge(emoji):
    return Judge(Ruler(emoji), scenes.Painter(emoji), NAMES)


def figures(judge, asked, drawn) -> dict[tuple[str, str], Figure]:
    truths = {exam: [judge.truth(question) for question in questions] for exam, questions in asked.items()}
    return {(one.exam, one.what): one for one in tiny_base.measure(judge, asked, drawn, truths)}


def test_exams_are_always_the_same_and_spread_over_names_and_colours():
    whole = exams(NAMES, NAMES[:3])
    assert whole == exams(NAMES, NAMES[:3])
    assert {exam: len(questions) for exam, questions in whole.items()} == {
        KNOWN: 600, FIRST: 600, PLACES: 96, SIZES: 96, PAIRS: 96, FREE: 96,
    }  # fmt: skip
    for questions in whole.values():
        assert {question.colour for question in questions} == set(tiny.COLOURS)
    assert {question.name for question in whole[KNOWN]} == set(NAMES)
    assert {question.name for question in whole[FIRST]} == set(NAMES[:3])


def test_free_wordings_are_none_of_those_in_training(asked):
    known = {
        form.format(name=question.name, colour=question.colour) for form in scenes.FORMS for question in asked[FREE]
    }
    assert not known & {question.prompt for question in asked[FREE]}


def test_who_draws_what_was_asked_for_is_right_in_everything(judge, asked):
    drawn = {exam: [judge.truth(question) for question in questions] for exam, questions in asked.items()}
    found = figures(judge, asked, drawn)
    for key in ((KNOWN, "colour"), (PLACES, "place"), (PAIRS, "order"), (KNOWN, "top 1"), (FIRST, "top 1")):
        assert found[key].found == found[key].ideal == 1, key
    assert not any(figure.missed for figure in found.values())


def test_who_mixes_up_places_sizes_and_order_is_told_of_each(judge, asked):
    def mixed_up(question):
        other = question.others[0] if question.others else question.figures
        return judge.truth(type(question)(question.name, question.colour, "", 1, other))

    drawn = {exam: [mixed_up(question) for question in questions] for exam, questions in asked.items()}
    found = figures(judge, asked, drawn)
    assert [found[key].found for key in ((PLACES, "place"), (SIZES, "size"), (PAIRS, "order"))] == [0, 0, 0]
    assert found[KNOWN, "top 1"].found == 1


def test_a_bar_is_missed_by_less_and_by_nothing_else(judge, asked, emoji):
    drawn = {exam: [emoji.on("flag y", question.colour) for question in asked[exam]] for exam in asked}
    found = figures(judge, asked, drawn)
    assert {key for key, figure in found.items() if figure.missed} == {(KNOWN, "top 1"), (FIRST, "top 1")}
    assert found[KNOWN, "top 1"].ideal == 1


def test_of_the_words_of_freer_captions_only_small_ones_were_ever_taught():
    said, forms = ({word for form in some for word in form.split()} for some in (FREE_FORMS, scenes.FORMS))
    taught = forms | {"one", *scenes.FILLERS}
    assert {word.strip(",") for word in said & taught} <= {
        "a",
        "and",
        "is",
        "of",
        "on",
        "one",
        "we",
        "{name}",
        "{colour}",
    }
    assert not {"wall", "wall,", "paper", "printed", "front", "behind", "look", "there", "everything"} & taught
    assert not set(scenes.FILLERS) & set(Scorer.load().names)


def test_the_scorer_is_asked_for_the_rank_of_the_right_caption():
    import torch

    class Scorer:
        def text(self, captions):
            return torch.eye(len(captions))

        def images(self, images):
            return torch.tensor([[1.0, 0, 0], [0, 1, 2], [1, 1, 0]])

    assert tiny_base.retrieved(Scorer(), ["a", "b", "c"], [None] * 3) == [1, 2, 3]


def test_the_table_says_what_held_and_what_was_missed():
    shares = [
        Figure("known", "top 1", 0.91, SHARE, "[/foo]", 1.0, 0.9),
        Figure("known", "colour", 0.5, SHARE, "", 1.0, 0.97),
    ]
    outcome = Outcome.of("tiny", 3, shares, 12, 1.0)
    with (console := Console(width=120)).capture() as captured:
        console.print(outcome.tables(), markup=False)
    assert "91.0%" in captured.get() and "holds" in captured.get() and "MISSED" in captured.get()
    assert "[/foo]" in captured.get()
    assert '"found": 0.91' in outcome.json()
