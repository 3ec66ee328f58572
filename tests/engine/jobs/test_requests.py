"""What a run refuses, with every problem at once and no traceback, and what a dry run leaves alone."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from engine import protocol
from engine.jobs import saver


def test_a_bad_config_is_refused_with_all_its_problems_and_no_traceback(attempt, submit, tmp_path):
    run = submit(tmp_path / "job")
    config = run.directory / protocol.CONFIG
    config.write_text(config.read_text().replace("steps = 4", "steps = -4").replace("rank = 2", "rankk = 2"))
    assert attempt(run, tmp_path)[0] == protocol.REFUSED
    assert {event.field for event in run.events(protocol.Refused)} == {"training.steps", "adapter.rankk"}
    assert run.end.state == protocol.read_status(run.directory).state == "refused"
    assert (run.directory / protocol.LOG).read_text() == ""


def test_bad_images_are_refused_with_all_their_problems_and_no_traceback(attempt, submit, images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "bad")
    (folder / "cut.png").write_bytes((images / "0.png").read_bytes()[:3000])
    (folder / "text.png").write_text("no picture")
    run = submit(tmp_path / "job", {"dataset": {"subsets": [{"path": str(folder), "class_tokens": "cat"}]}})
    assert attempt(run, tmp_path)[0] == protocol.REFUSED
    assert sorted(event.where for event in run.events(protocol.Refused)) == [
        str(folder / "cut.png"),
        str(folder / "text.png"),
    ]
    assert run.end.state == "refused"
    assert (run.directory / protocol.LOG).read_text() == ""


def test_a_job_without_a_request_is_refused(submit, workspace, tmp_path):
    run = submit(tmp_path / "job")
    (run.directory / protocol.CONFIG).unlink()
    assert run.start() == protocol.REFUSED
    assert run.events(protocol.Refused)[0].where.endswith(protocol.CONFIG)


def test_target_sets_that_train_nothing_are_refused_all_at_once(submit, workspace, tmp_path):
    sets = [
        {"targets": "unet.nowhere.*", "rank": 4, "alpha": 4.0},
        {"targets": "text_encoder.*", "rank": 4, "alpha": 4.0},
    ]
    run = submit(tmp_path / "job", {"adapter": {"sets": sets}, "optimizer": {"lr_text": 0.0}})
    assert run.start(dry_run=True) == protocol.REFUSED
    nowhere, at_rest = run.events(protocol.Refused)
    assert (nowhere.where, at_rest.where) == ("adapter.sets[0].targets", "adapter.sets[1].targets")
    assert "unet.nowhere.*" in nowhere.found
    assert "learning rate above 0 for `text_encoder`" in at_rest.expected


def test_a_run_that_would_adapt_no_module_is_refused(submit, workspace, tmp_path):
    sets = [{"targets": "*", "rank": 0, "alpha": 1.0}]
    run = submit(tmp_path / "job", {"adapter": {"sets": sets}})
    assert run.start(dry_run=True) == protocol.REFUSED
    assert run.events(protocol.Refused)[0].expected == "at least one module to adapt"


def test_a_dry_run_tells_the_plan_and_makes_nothing(submit, workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "empty"))
    run = submit(tmp_path / "job")
    assert run.start(dry_run=True) == protocol.DONE
    (plan,) = run.events(protocol.PlanMade)
    assert (plan.steps, plan.images, plan.class_images) == (4, 2, 5)
    assert sorted(path.name for path in run.directory.iterdir()) == ["config.toml", "events.jsonl", "status.json"]
    assert not (tmp_path / "empty").exists()


def megabytes(text: str) -> float:
    return float(text.split(" MB")[0].replace(",", ""))


def test_a_run_whose_files_would_not_fit_is_refused_before_its_first_step(
    submit, undisturbed, copied, workspace, tmp_path, monkeypatch
):
    """A resumed one asks for what is still to be written, not for everything again."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(saver.shutil, "disk_usage", lambda path: usage(0, 0, 0))
    fresh = submit(tmp_path / "job")
    assert fresh.start() == protocol.REFUSED
    (refused,) = fresh.events(protocol.Refused)
    assert refused.found == "0.0 MB"
    assert not fresh.events(protocol.Step)
    needed = megabytes(refused.expected)
    adapter, state = (
        (undisturbed.run.checkpoints / name).stat().st_size / 1e6
        for name in ("oct-step000002.safetensors", "oct-step000002.state/tensors.safetensors")
    )
    assert needed == pytest.approx(4 * adapter + 3 * state, rel=0.1)
    monkeypatch.setattr(saver.shutil, "disk_usage", lambda path: usage(0, 0, int(needed * 0.6e6)))
    assert copied(undisturbed.run).start() == protocol.DONE
