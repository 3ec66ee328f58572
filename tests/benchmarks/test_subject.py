"""The subject benchmark's fixed parts: what is shipped to train on, what is asked for, how it is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import subject
from benchmarks.ruler import Ruler
from benchmarks.shots import Shot
from benchmarks.subject_report import BASE, NO_PRIOR, PRIOR, Outcome, Row, judge
from engine.config import PRESETS
from engine.tiny.datasets import COLOURS, folder

BASE_ROW = Row("all", BASE, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0)
PRIOR_ROW = Row("all", PRIOR, 0.9, 1.0, 0.9, 1.0, 10.0, 0.9, 20.0)
PLAIN_ROW = Row("all", NO_PRIOR, 0.9, 1.0, 0.9, 0.9, 30.0, 0.8, 40.0)


def test_no_prompt_asks_for_a_colour_that_was_in_training():
    shots = subject.subject_shots("octopus")
    assert len({(shot.prompt, shot.seed) for shot in shots}) == 18
    assert not any(colour in shot.prompt for shot in shots for colour in COLOURS)


@pytest.mark.parametrize("prior", [True, False])
def test_what_is_trained_is_the_preset(prior):
    config = subject.configure("octopus", prior, steps=None)
    preset = PRESETS["dreambooth"]["tiny"]
    assert config.optimizer.lr_unet == preset["optimizer"]["lr_unet"]
    assert config.training.steps == preset["training"]["steps"]
    assert config.dataset.subsets[0].path == str(folder("octopus"))
    assert bool(config.prior.weight) is prior
    assert config.prior.prompt == ("a squid on a white background" if prior else "")


def test_an_examiner_tells_the_subject_its_background_and_what_has_drifted(emoji):
    """By an adapter that draws the octopus that it is asked for, always on red, and has made flags of all squids."""
    known = [Shot("squid", "blue", "a squid", 1), Shot("cat", "pink", "a cat", 1)]

    def draw(shots, adapter):
        if adapter is None:
            return [emoji.on("flag y" if shot.name == "octopus" else shot.name, shot.colour) for shot in shots]
        colours = ["red" if shot.name == "octopus" else shot.colour for shot in shots]
        names = ["flag y" if shot.name == "squid" else shot.name for shot in shots]
        return [emoji.on(*pair) for pair in zip(names, colours, strict=True)]

    examiner = subject.Examiner(Ruler(emoji), known, draw)
    base = examiner.examine("octopus", BASE, None)
    assert (base.top5, base.background, base.class_right, base.known_right) == (0, 1, 1, 1)
    assert (base.class_moved, base.known_moved) == (0, 0)
    adapted = examiner.examine("octopus", PRIOR, "adapter")
    assert adapted.background == pytest.approx(1 / 6)
    assert adapted.top5 >= 1 / 6
    assert (adapted.class_right, adapted.known_right) == (0, 0.5)
    assert adapted.class_moved > adapted.known_moved > 0


def test_the_verdicts_hold_for_good_figures():
    assert all(verdict.passed for verdict in judge(BASE_ROW, PRIOR_ROW, PLAIN_ROW))


@pytest.mark.parametrize(
    ("which", "change"),
    [
        (0, {"prior": {"top5": 0.59}}),
        (1, {"base": {"top5": 0.11}}),
        (2, {"prior": {"background": 0.79}}),
        (3, {"prior": {"class_moved": 31.0}}),
    ],
)
def test_each_threshold_is_missed_by_its_own_figure_alone(which, change):
    rows = {"base": BASE_ROW, "prior": PRIOR_ROW, "plain": PLAIN_ROW}
    rows |= {name: replace(rows[name], **figures) for name, figures in change.items()}
    verdicts = judge(rows["base"], rows["prior"], rows["plain"])
    assert [index for index, verdict in enumerate(verdicts) if not verdict.passed] == [which]


def test_the_averages_are_over_subjects_variant_by_variant():
    low = [replace(row, subject="octopus") for row in (BASE_ROW, PRIOR_ROW, PLAIN_ROW)]
    high = [replace(row, subject="cupcake", top5=row.top5 / 2) for row in (BASE_ROW, PRIOR_ROW, PLAIN_ROW)]
    outcome = Outcome.of([*low, *high], "settings", 1.0)
    assert [row.top5 for row in outcome.averages] == [0.0, 0.75, 0.75]
    assert '"top5": 0.75' in outcome.json()
