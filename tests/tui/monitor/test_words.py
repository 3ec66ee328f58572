"""What the monitor says of a run, of its commands and of the machine, without a screen."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tui_recordings import NOW, story

from engine import protocol
from engine.protocol.messages import DeviceFigures, GpuFigures, JobDetails, JobSummary
from loratui.history import History
from loratui.outcomes import Outcome
from loratui.screens import monitor_samples as samples
from loratui.screens import monitor_text as text
from loratui.screens.monitor_charts import loss_series, markers, other_smoothing, rate_series
from loratui.screens.monitor_commands import Sent, rate_check, rates, told, why_not
from loratui.screens.monitor_machine import Load, machine, main_load
from loratui.screens.monitor_text import Seen

GIB = 1 << 30


@pytest.fixture(autouse=True)
def in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def row(state: str, **more) -> JobSummary:
    fields = {"id": "r1", "project": "my-cat", "kind": "train", "name": "pivotal", "path": "/ws/r1", "steps": 200}
    return JobSummary(**(fields | {"state": state} | more))


def seen(state: str = "running", steps: int = 120, now: float = NOW, events=(), details=None, **more) -> Seen:
    """A run of 200 steps that came as far as `steps`, its last step just now."""
    history = History()
    history.take(story(steps, 200, NOW - 2 - 1.5 * steps, 4, "", "", ()))
    history.take(events)
    return Seen("r1", history, state, row(state, **more), now, details)


def lines(texts) -> str:
    return "\n".join(one.plain for one in texts)


# --- title ------------------------------------------------------------------------------------------------------------


def test_a_title_leaves_out_what_matters_least_where_there_is_no_room():
    assert text.title(seen(), 120).plain == " my-cat  pivotal  ● running  120/200  1.50 s/it  ends 11:09"
    assert text.title(seen(), 55).plain == " pivotal  ● running  120/200  1.50 s/it  ends 11:09"
    assert text.title(seen(), 30).plain == " pivotal  ● running  120/200"
    assert text.title(seen(), 10).plain == " pivotal  ● running"


def test_a_run_that_is_silent_for_longer_than_its_steps_take_is_said_to_be():
    assert "silent" not in text.title(seen(now=NOW + 59), 120).plain
    assert "? silent for 2 min" in text.title(seen(now=NOW + 150), 120).plain
    slow = [protocol.Step(t=NOW, step=step, loss=0.1, seconds=30.0) for step in range(121, 175)]
    assert "silent" not in text.title(seen(now=NOW + 500, events=slow), 120).plain
    assert "silent" not in text.title(seen("paused", now=NOW + 500), 120).plain


def test_a_run_that_is_over_says_how_long_it_took_and_when_it_ended():
    assert text.when(seen("done", 200)) == "took 5:02, until 11:06"
    assert text.when(seen("done", 200, now=NOW + 86400)) == "took 5:02, until Wed 11:06"
    assert text.when(seen("done", 200, now=NOW + 30 * 86400)) == "took 5:02, until 2026-11-18"


@pytest.mark.parametrize(
    ("seconds", "words"), [(9, "0 s"), (45, "40 s"), (60, "1 min"), (3599, "59 min"), (11100, "3 h 05")]
)
def test_spans_that_go_on_are_told_coarsely(seconds, words):
    assert text.coarse(seconds) == words


def test_the_figures_of_a_step_are_those_of_that_step():
    newest, inspected = text.at_step(seen().history, None), text.at_step(seen().history, 60)
    assert newest[0].plain.startswith(" step 120  loss 0.0749  smoothed ")
    assert inspected[0].plain.startswith("▏step 60  loss ")
    assert "lr unet 7.0e-5  lr text 5.0e-6  best val 0.0628 at 110" in inspected[1].plain
    assert text.at_step(History(), None) == []


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_a_failure_is_told_with_its_cause_its_advice_and_how_to_go_on():
    end = protocol.End(state="failed", code=1, cause="out of memory [/foo]", advice=["training.batch = 1"], step=31)
    said = lines(text.trouble(seen("failed", 31, events=[end])))
    assert "✗ failed at step 31: out of memory [/foo]" in said
    assert "→ training.batch = 1" in said
    assert "r tries it again" in said


def test_a_crash_is_told_as_the_host_explains_it():
    details = JobDetails(summary=row("crashed", cause="the machine was restarted", advice=["resume it"]), config="")
    said = lines(text.trouble(seen("crashed", 90, details=details)))
    assert "✗ crashed at step 90: the machine was restarted" in said and "→ resume it" in said


def test_a_refusal_lists_every_problem():
    events = [
        protocol.Refused(where="images/[a].png", expected="an image", found="4 bytes"),
        protocol.Refused(where="config", field="adapter.rank", expected="1 to 320", found="0", advice="8 is usual"),
        protocol.End(state="refused", code=2),
    ]
    said = lines(text.trouble(seen("refused", 0, events=events)))
    assert "images/[a].png" in said and "adapter.rank" in said and "8 is usual" in said
    assert "set it right in Train" in said


@pytest.mark.parametrize(("state", "words"), [("stopped", "saved"), ("released", "device given back")])
def test_a_run_that_was_left_off_says_how_it_goes_on(state, words):
    assert f"after step 120, {words}; r goes on from there" in lines(text.trouble(seen(state)))


def test_a_run_that_is_well_has_no_trouble():
    assert all(not text.trouble(seen(state)) for state in ("running", "paused", "done", "queued"))


def test_control_codes_in_a_cause_do_not_reach_the_terminal():
    said = lines(text.trouble(seen("elsewhere", cause="on \x1b[31mhost")))
    assert "\x1b" not in said and "host" in said


# --- before the first step --------------------------------------------------------------------------------------------


def test_the_story_of_a_run_is_its_plan_and_its_stages():
    history = [
        protocol.Stage(name="cache", total=24, unit="images"),
        protocol.Progress(stage="cache", done=12, total=24),
    ]
    said = lines(text.story(seen(steps=0, events=history), 60))
    assert "24 images × 1 repeat" in said
    assert "✓ looking at the images" in said
    assert "● encoding the images            12/24  ████" in said and "░" in said


def test_the_story_of_a_failure_ends_with_its_log():
    details = JobDetails(summary=row("failed"), config="", log="[/foo] one\ntwo\x07")
    assert lines(text.story(seen("failed", 0, details=details), 60)).endswith("the end of its log:\n[/foo] one\ntwo·")


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "outcome", "over", "words"),
    [
        (Sent("pause", NOW, "r1"), None, False, "… pause: sent 11:06, the run has yet to read it"),
        (Sent("pause", NOW, "r1", "a1"), Outcome("pause", True, "it holds"), False, "… pause: taken: it holds"),
        (Sent("pause", NOW, "r1", "a1"), Outcome("pause", True, "", "paused"), True, "✓ pause: taken: paused"),
        (Sent("pause", NOW, "r1", "a1"), Outcome("pause", False, "no"), False, "✗ pause: not taken: no"),
        (Sent("pause", NOW, "r1", "a1"), None, True, "✗ pause: the run ended before it had read it"),
        (
            Sent("pause", NOW, "r1", "a1"),
            Outcome("pause", True, "soon"),
            True,
            "? pause: taken: soon; then the run ended",
        ),
        (Sent("pause", NOW, "r1", failed="[/foo]"), None, True, "✗ pause: [/foo]"),
        (Sent("stop", NOW, "r1", done=True), None, True, "✓ stop: done"),
    ],
)
def test_a_command_says_how_far_it_has_come(sent, outcome, over, words):
    assert told(sent, outcome, over, NOW).plain == f" {words}"


@pytest.mark.parametrize(
    ("verb", "run", "reason"),
    [
        ("pause", seen("queued"), "it waits in the queue"),
        ("stop", seen("elsewhere"), "it runs on another machine"),
        ("rate", seen("crashed"), "the run has ended"),
        ("sample", seen(kind="generate"), "it draws pictures and does not train"),
        ("checkpoint", seen(steps=0), "there is nothing to save yet"),
        ("pause", seen(kind="generate"), ""),
        ("stop", seen("stalled"), ""),
        ("retry", seen("running"), "it is running"),
        ("retry", seen("crashed"), ""),
        ("log", seen("queued"), "it has no log before it starts"),
        ("smoother", seen(steps=0), "there are no losses to show"),
        ("newest", seen(), "the cursor is there"),
        ("pause", None, "no run is shown"),
    ],
)
def test_what_can_not_be_done_says_why(verb, run, reason):
    assert why_not(verb, run, pointed=False) == reason


def test_the_rates_of_a_run_are_those_of_its_config_and_what_was_changed():
    config = "[optimizer]\nlr_unet = 2e-4\nlr_text = 0.0\n"
    assert rates(config, []) == {"lr_unet": 2e-4}
    changed = [protocol.Changed(step=1, field="optimizer.lr_unet", value=1e-5)]
    assert rates(config, changed) == {"lr_unet": 1e-5}
    assert set(rates("not [toml", [])) == {"lr_unet", "lr_text"}


def test_a_rate_is_a_number_that_the_schema_allows():
    check = rate_check("lr_unet")
    assert check("5e-5") == ""
    assert "a number" in check("many")
    assert "expected" in check("20") and "expected" in check("-1")
    assert "more than 0" in check("0")


# --- machine ----------------------------------------------------------------------------------------------------------


def gpu(uuid: str = "GPU-1", index: int = 0, **more) -> GpuFigures:
    return GpuFigures(uuid=uuid, name="NVIDIA H100", index=index, **more)


def figures(gpus=(), **more) -> DeviceFigures:
    values = {"t": NOW, "cpu": 31.0, "memory_used": 9 * GIB, "memory_total": 128 * GIB, "disk_free": 80 * GIB}
    return DeviceFigures(**(values | {"gpus": list(gpus)} | more))


def test_figures_of_the_machine_are_coarse_and_the_runs_own_device_comes_first():
    both = [gpu(), gpu("GPU-2", 1, utilization=97, memory_used=17 * GIB, memory_total=80 * GIB, power=512.0)]
    said = [line.plain for line in machine(figures(both), "GPU-2", 60)]
    assert said[0] == "gpu1  95 %  17.0/80 GB  510 W  H100"
    assert said[1] == "gpu0  H100"
    assert said[2] == "cpu 30 %  ram 9.0/128 GB  disk 80 GB free"
    assert machine(figures(both), "GPU-2", 20)[0].plain == "gpu1  95 %  510 W"


def test_a_machine_without_a_gpu_shows_its_processor_and_what_is_wrong():
    said = [line.plain for line in machine(figures(problem="driver [/foo] is gone"), "cpu", 60)]
    assert said[0] == "? driver [/foo] is gone" and said[1].startswith("cpu 30 %")
    assert main_load(figures(), "cpu") == 31.0
    assert main_load(figures([gpu(utilization=97)]), "GPU-1") == 97.0


def test_the_course_of_a_load_is_its_mean_over_some_seconds():
    load = Load()
    assert not load.take(100.0, 50.0)
    assert not load.take(104.0, 100.0)
    assert load.take(106.0, 0.0)
    assert list(load.course) == [(4 * 50 + 100) / 5]
    assert load.take(116.0, 0.0)
    assert list(load.course)[1:] == [(100 * 1) / 5, 0.0]


# --- charts and samples -----------------------------------------------------------------------------------------------


def test_series_are_the_historys_own_arrays_so_that_they_may_grow():
    history = seen().history
    validation, smoothed, raw = loss_series(history)
    assert raw.ys is history.steps.losses and smoothed.ys is history.steps.smoothed.values
    assert (smoothed.name, validation.name, validation.kind) == ("smoothed .98", "validation", "dots")
    assert [one.name for one in rate_series(history)] == ["unet", "text"]


def test_a_loss_that_is_not_smoothed_is_shown_once():
    history = History(smoothing=0.0)
    history.take(story(10, 200, NOW, 0, "", "", ()))
    assert [one.name for one in loss_series(history)] == ["validation", "train"]


def test_samples_checkpoints_and_changed_rates_are_marked_at_their_steps():
    change = protocol.Changed(step=70, field="optimizer.lr_unet", value=3e-5)
    found = markers(seen(events=[change]).history)
    assert [(mark.x, mark.letter) for mark in found if mark.letter != "c"] == [(50, "s"), (70, "r"), (100, "s")]
    assert [mark.x for mark in found if mark.letter == "c"] == [20, 40, 60, 80, 100, 120]
    assert "lr_unet = 3.0e-5" in [mark.text for mark in found]


def test_smoothing_stops_at_its_ends():
    assert other_smoothing(0.98, 1) == 0.99
    assert other_smoothing(0.0, -1) == 0.0
    assert other_smoothing(0.999, 1) == 0.999
    assert other_smoothing(0.97, 0) == 0.98


def test_samples_are_a_table_of_prompts_and_steps():
    table = samples.by_step(seen().history, Path("/ws/r1"))
    assert table.steps == [50, 100]
    assert table.prompts == ["an ohwx cat on a sofa", "an ohwx cat [best quality] in rain"]
    assert table.pictures[100, 1] == Path("/ws/r1/samples/step-000100-p1-s42.png")
    assert table.notes[100, 1] == "step 100 · seed 42 · an ohwx cat [best quality] in rain"


@pytest.mark.parametrize("name", ["../secret.png", "samples/../../x.png", "/etc/passwd", "", "a\0b"])
def test_a_sample_of_a_training_lies_in_its_folder(name):
    assert samples.inside(Path("/ws/r1"), name) is None


def test_pictures_of_a_job_that_draws_are_numbered():
    history = History()
    history.take(
        protocol.Sample(t=NOW, step=0, path=f"/out/{at}.png", prompt="a cat", seed=at, index=at) for at in (1, 0, 2)
    )
    table = samples.by_number(history, Path("/ws/r1"))
    assert (table.steps, table.prompts) == ([1, 2, 3], ["a cat"])
    assert [table.pictures[number, 0].name for number in (1, 2, 3)] == ["0.png", "1.png", "2.png"]
