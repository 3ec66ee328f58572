"""What a journal's events come to."""

from __future__ import annotations

import math
import sys

from engine import protocol
from loratui.curves import Curve, Smoothed, Steps
from loratui.history import LINES, History


def step(number: int, loss: float | None = 0.1, **more) -> protocol.Step:
    return protocol.Step(t=1000.0 + number, step=number, loss=loss, lr={"unet": 1e-4}, seconds=1.0, **more)


def sample(at: int, index: int = 0, prompt: str = "a cat", seed: int = 42) -> protocol.Sample:
    path = f"samples/step-{at:06}-p{index}-s{seed}.png"
    return protocol.Sample(t=1000.0 + at, step=at, path=path, prompt=prompt, seed=seed, index=index)


def attempt(number: int = 1, t: float = 1000.0) -> protocol.Attempt:
    return protocol.Attempt(t=t, number=number, pid=1, host="h", boot_id="b")


def plan(steps: int = 100) -> protocol.PlanMade:
    return protocol.PlanMade(t=1000.0, text="24 images = 100 steps", steps=steps, epochs=1, images=24)


def history(*events: protocol.AnyEvent, smoothing: float = 0.98) -> History:
    made = History(smoothing)
    made.take([attempt(), plan(), *events])
    return made


def test_the_first_smoothed_loss_is_the_first_loss():
    made = history(step(1, 0.5), step(2, 0.3))
    assert math.isclose(made.steps.smoothed.values[0], 0.5, rel_tol=1e-6)
    assert 0.3 < made.steps.smoothed.values[1] < 0.5


def test_a_constant_loss_is_smoothed_to_itself():
    made = history(*(step(number, 0.25) for number in range(1, 300)))
    assert all(math.isclose(value, 0.25, rel_tol=1e-5) for value in made.steps.smoothed.values)


def test_a_loss_that_is_not_finite_is_marked_and_does_not_spoil_the_mean():
    made = history(step(1, 0.5), step(2, None), step(3, 0.5))
    assert list(made.steps.not_finite) == [2]
    assert math.isnan(made.steps.losses[1])
    assert math.isclose(made.steps.smoothed.values[2], 0.5, rel_tol=1e-6)
    assert any("not a finite number" in line.text for line in made.lines)


def test_a_loss_too_large_for_the_arrays_counts_as_not_finite():
    assert list(history(step(1, 1e300)).steps.not_finite) == [1]


def test_a_resumed_run_forgets_what_came_after_its_saved_step():
    made = history(
        *(step(number, 0.1) for number in range(1, 31)),
        protocol.Validation(step=20, loss=0.2, images="held-out", count=3),
        protocol.Validation(step=30, loss=0.3, images="held-out", count=3),
        protocol.Checkpoint(step=20, adapter="checkpoints/a.safetensors"),
        protocol.Checkpoint(step=30, adapter="checkpoints/b.safetensors"),
        protocol.Changed(step=25, field="optimizer.lr_unet", value=1e-5),
    )
    made.take([attempt(2), protocol.Resumed(step=20)])
    assert made.step == 20 and len(made.steps) == 20
    assert list(made.validation.steps) == [20]
    assert list(made.checkpoints) == [20]
    assert made.changes == []
    made.take([step(21, 0.7)])
    assert math.isclose(made.steps.losses[-1], 0.7, rel_tol=1e-6)


def test_a_run_that_begins_anew_forgets_all_of_the_attempt_before():
    made = history(*(step(number, 0.1) for number in range(1, 31)))
    made.take([attempt(2), plan(), step(1, 0.9)])
    assert list(made.steps.steps) == [1]
    assert math.isclose(made.steps.smoothed.values[0], 0.9, rel_tol=1e-6)


def test_the_mean_goes_on_after_a_resume_as_if_nothing_had_happened():
    losses = [0.1 + 0.01 * math.sin(number) for number in range(200)]
    straight, resumed = Steps(0.9), Steps(0.9)
    for number, loss in enumerate(losses, start=1):
        straight.append(number, loss, {})
    for number, loss in enumerate(losses[:150], start=1):
        resumed.append(number, loss if number <= 100 else 9.0, {})
    resumed.cut(100)
    for number, loss in enumerate(losses[100:], start=101):
        resumed.append(number, loss, {})
    pairs = zip(straight.smoothed.values, resumed.smoothed.values, strict=True)
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in pairs)


def test_pictures_of_a_void_step_come_back_when_the_run_reaches_it_again():
    """The engine does not draw again what lies on the disk, so nothing would tell of them a second time."""
    made = history(*(step(number) for number in range(1, 31)), sample(10), sample(30))
    made.take([attempt(2), protocol.Resumed(step=20)])
    assert made.grid()[0] == [10]
    before = made.samples_version
    made.take([step(number) for number in range(21, 30)])
    assert made.grid()[0] == [10] and made.samples_version == before
    made.take([step(30)])
    assert made.grid()[0] == [10, 30] and made.samples_version > before


def test_a_sample_grid_has_a_row_for_each_prompt_and_seed_in_the_order_of_the_prompts():
    made = history(step(1), sample(1, 1, "[/foo] b"), sample(1, 0, "a"), sample(1, 2, "a", seed=7))
    steps, rows, cells = made.grid()
    assert steps == [1]
    assert rows == [(0, "a", 42), (1, "[/foo] b", 42), (2, "a", 7)]
    assert cells[1, rows[1]].path == "samples/step-000001-p1-s42.png"


def test_samples_of_one_step_share_a_line():
    made = history(step(1), sample(1, 0), sample(1, 1))
    assert [line.text for line in made.lines if "drew" in line.text] == ["step 1: drew p0, p1"]


def test_pictures_of_a_job_that_does_not_train_have_no_step_in_their_line():
    made = History()
    made.take([attempt(), protocol.Stage(name="draw", total=50, unit="steps"), sample(0)])
    assert made.lines[-1].text == "drew p0"
    assert made.grid()[0] == [0]


def test_the_list_of_lines_does_not_grow_without_end():
    made = History()
    made.take([protocol.Notice(t=1.0, text=f"note {number}") for number in range(3 * LINES)])
    assert len(made.lines) <= LINES
    assert made.lines[-1].text == f"note: note {3 * LINES - 1}"


def test_the_speed_is_the_median_of_the_last_steps_and_gives_the_end():
    made = history(*(step(number) for number in range(1, 41)))
    made.take([protocol.Step(t=1041.0, step=41, loss=0.1, seconds=60.0)])
    assert made.seconds == 1.0
    assert made.ends == 1041.0 + 59


def test_an_end_is_not_foretold_before_the_first_step_and_after_the_last():
    assert history().ends is None
    assert history(*(step(number) for number in range(1, 101))).ends is None


def test_the_time_between_two_attempts_does_not_count():
    made = History()
    made.take([attempt(1, t=100.0), protocol.Stage(t=160.0, name="train")])
    made.take([attempt(2, t=5000.0), protocol.Stage(t=5030.0, name="train")])
    assert made.spent() == 90.0
    assert made.spent(now=5100.0) == 160.0


def test_a_stage_shows_how_far_it_has_come_also_where_its_beginning_was_not_told():
    made = History()
    made.take(
        [protocol.Stage(name="cache", total=24, unit="images"), protocol.Progress(stage="cache", done=12, total=24)]
    )
    assert (made.stage.name, made.stage.done, made.stage.total, made.stage.unit) == ("cache", 12, 24, "images")
    made.take([protocol.Progress(stage="class-images", done=5, total=200)])
    assert (made.stage.name, made.stage.done, made.stage.total) == ("class-images", 5, 200)


def test_an_attempt_forgets_how_the_one_before_ended():
    made = history(protocol.Refused(where="config"), protocol.End(state="refused", code=2))
    assert made.end and made.refused
    made.take([attempt(2)])
    assert made.end is None and made.refused == [] and made.stages == {}


def test_steps_that_no_run_can_have_are_passed_over():
    made = history(step(0), step(-1), step(2**40), sample(-3))
    assert len(made.steps) == 0 and made.grid()[0] == []


def test_a_validation_told_again_replaces_the_one_before():
    curve = Curve()
    for at, value in ((10, 0.3), (30, 0.1), (20, 0.2), (20, 0.25), (40, None)):
        curve.put(at, value)
    assert list(curve.steps) == [10, 20, 30, 40]
    assert math.isclose(curve.values[1], 0.25, rel_tol=1e-6)
    assert math.isclose(curve.at(45), 0.1, rel_tol=1e-6)
    assert curve.at(5) is None


def test_the_best_validation_is_known_also_after_it_was_replaced_or_forgotten():
    curve = Curve()
    for at, value in ((10, 0.3), (20, 0.1), (30, 0.2), (40, None)):
        curve.put(at, value)
    assert curve.best[0] == 20
    curve.put(20, 0.25)
    assert curve.best[0] == 30
    curve.cut(25)
    assert curve.best[0] == 20
    curve.cut(5)
    assert curve.best is None


def test_an_array_that_was_not_only_appended_to_is_another():
    """Charts take in what was appended, and everything anew where the array is another."""
    steps, curve = Steps(0.9), Curve()
    for number in (10, 20, 30):
        steps.append(number, 0.1, {"unet": 1.0})
        curve.put(number, 0.1)
    arrays = [steps.steps, steps.losses, steps.smoothed.values, steps.rates["unet"], curve.steps, curve.values]
    steps.append(40, 0.1, {"unet": 1.0})
    curve.put(40, 0.1)
    same = [steps.steps, steps.losses, steps.smoothed.values, steps.rates["unet"], curve.steps, curve.values]
    assert all(one is other for one, other in zip(arrays, same, strict=True))
    steps.cut(20)
    curve.put(25, 0.1)
    others = [steps.steps, steps.losses, steps.smoothed.values, steps.rates["unet"], curve.steps, curve.values]
    assert all(one is not other for one, other in zip(arrays, others, strict=True))
    assert list(curve.steps) == [10, 20, 25, 30, 40]


def test_a_part_whose_rate_is_told_later_has_none_before():
    steps = Steps(0.9)
    steps.append(1, 0.1, {"unet": 1.0})
    steps.append(2, 0.1, {"unet": 1.0, "text": 2.0})
    steps.append(3, 0.1, {})
    assert math.isnan(steps.rates["text"][0]) and steps.rates["text"][1] == 2.0
    assert len(steps.rates["unet"]) == len(steps.rates["text"]) == 3


def test_the_step_nearest_to_a_place_is_found():
    steps = Steps(0.9)
    assert steps.index(5) == -1
    for number in (10, 20, 30):
        steps.append(number, 0.1, {})
    assert [steps.index(at) for at in (0, 14, 16, 99)] == [0, 0, 1, 2]


def test_a_mean_made_elsewhere_catches_up_with_the_steps_since():
    made = history(*(step(number, 0.1 * number) for number in range(1, 11)))
    other = Smoothed(0.5).extend(made.steps.losses)
    made.take([step(11, 0.4)])
    made.smooth(other)
    assert len(made.steps.smoothed.values) == 11
    assert list(made.steps.smoothed.values) == list(Smoothed(0.5).extend(made.steps.losses).values)


def test_a_million_steps_take_less_than_thirty_megabytes():
    made = History()
    rates = {"unet": 1e-4, "text_encoder": 5e-6}
    for start in range(1, 1_000_001, 1000):
        made.take([protocol.Step(step=n, loss=0.1, lr=rates, seconds=0.2) for n in range(start, start + 1000)])
    arrays = [made.steps.steps, made.steps.losses, made.steps.smoothed.values, *made.steps.rates.values()]
    assert made.step == len(made.steps) == 1_000_000
    assert sum(map(sys.getsizeof, arrays)) < 25_000_000
    assert not made.lines[1:]
