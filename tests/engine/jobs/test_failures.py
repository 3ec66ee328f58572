"""Full disk, NaN and out of memory end a run with its last good state, the cause, and settings that would help."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import weakref
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from engine import files, protocol
from engine.data import cache
from engine.jobs import failures, saver
from engine.journal import Journal
from engine.training.loop import Trainer
from engine.training.metrics import Diverged, Metrics
from engine.training.optimizer import FlatAdamW

SYNC = files.sync


def refuse(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """Let the disk be full for every file whose temporary path matches."""

    def sync(path: Path) -> None:
        if fnmatch(str(path), pattern):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        SYNC(path)

    monkeypatch.setattr(files, "sync", sync)


@pytest.mark.parametrize(
    ("pattern", "named", "resumed"),
    [
        ("*/.oct-step000004.*.safetensors", "oct-step000004.safetensors", 2),
        ("*/.oct-step000004.state.tmp/*", "oct-step000004.state", 2),
        ("*/.step-000004-*.png", "step-000004-p0-s42.png", 4),
    ],
    ids=["adapter", "state", "picture"],
)
def test_a_full_disk_is_told_and_what_was_saved_stays_good(
    pattern, named, resumed, submit, undisturbed, workspace, tmp_path, monkeypatch
):
    run = submit(tmp_path / "job")
    refuse(monkeypatch, pattern)
    assert run.start() == protocol.FAILED
    assert run.end.state == "failed"
    assert run.end.cause.startswith("the disk is full: ")
    assert run.end.cause.endswith(named)
    assert any("make room" in advice for advice in run.end.advice)
    assert run.states[-1] == resumed
    assert not run.leftovers()
    monkeypatch.setattr(files, "sync", SYNC)
    assert run.start() == protocol.DONE
    assert run.resumed == [resumed]
    assert run.equals(undisturbed.run)


def test_a_full_disk_of_the_cache_is_told(submit, undisturbed, workspace, tmp_path, monkeypatch):
    """Latents are written by a library that wraps the system's error in one of its own."""
    run = submit(tmp_path / "job", {"dataset": {"resolution": 48}, "prior": {"weight": 0.0}})

    def full(*arguments, **options) -> None:
        raise cache.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(cache, "save_file", full)
    assert run.start() == protocol.FAILED
    assert run.end.cause.startswith(f"the disk is full: {workspace}")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_for_good_still_takes_the_cause(small_disk, attempt, submit, undisturbed):
    """Adapters, states, journal, status and log: all of it lies on the disk that something else has filled."""
    run = submit(small_disk / "job")
    code, _ = attempt(run, undisturbed.workspace, place="create", name=".oct-step000004.*.safetensors", act="fill")
    assert code == protocol.FAILED
    assert run.end.cause.startswith("the disk is full: ")
    assert protocol.read_status(run.directory).cause == run.end.cause
    assert run.states == [2]
    assert not run.leftovers()
    (run.directory / "ballast").unlink()
    assert attempt(run, undisturbed.workspace)[0] == protocol.DONE
    assert run.equals(undisturbed.run)


def poison(monkeypatch: pytest.MonkeyPatch, at: tuple[int, int], what) -> None:
    """Do something after the gradient of one micro-batch was added: `what(trainer, losses)` returns the losses."""
    micro_step = Trainer.micro_step

    def poisoned(self: Trainer, step: int, micro: int) -> torch.Tensor:
        losses = micro_step(self, step, micro)
        return what(self, losses) if (step, micro) == at else losses

    monkeypatch.setattr(Trainer, "micro_step", poisoned)


def test_a_loss_that_is_not_a_number_ends_the_run_at_the_state_before(
    submit, undisturbed, workspace, tmp_path, monkeypatch
):
    run = submit(tmp_path / "job")
    poison(monkeypatch, (3, 1), lambda trainer, losses: losses * torch.nan)
    assert run.start() == protocol.FAILED
    assert run.end.cause == "the loss was not a finite number at step 3"
    assert any(advice.startswith("optimizer.lr_unet") for advice in run.end.advice)
    assert [event.loss for event in run.events(protocol.Step) if event.step == 3] == [None]
    assert run.states == [2]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "oct-step000002.safetensors",
        "oct-step000002.state",
    ]
    adapter = "checkpoints/oct-step000002.safetensors"
    assert run.adapter(adapter)[0] == undisturbed.run.adapter(adapter)[0]


def test_a_gradient_that_is_not_a_number_never_reaches_the_parameters(
    submit, undisturbed, workspace, tmp_path, monkeypatch
):
    run = submit(tmp_path / "job", {"training": {"steps": 2}, "saving": {"every": 1}})

    def spoil(trainer: Trainer, losses: torch.Tensor) -> torch.Tensor:
        trainer.flat.gradient[7] = torch.nan
        return losses

    poison(monkeypatch, (2, 1), spoil)
    assert run.start() == protocol.DONE
    assert [event.grad_norm is None for event in run.events(protocol.Step)] == [False, True]
    before, after = (saver.state.load(path)[1] for path in saver.state.find(run.checkpoints))
    assert all(torch.equal(before[name], after[name]) for name in before if name != "average")
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_a_gradient_that_is_never_a_number_ends_the_run(tmp_path):
    def told(metrics: Metrics, steps: range, norm: float) -> None:
        for step in steps:
            metrics.add(step, torch.tensor([0.1, 0.1, 0.0, norm]), {})
        metrics.flush()

    with Journal(tmp_path) as journal:
        metrics = Metrics(journal)
        told(metrics, range(1, Metrics.GATED), torch.inf)
        told(metrics, range(Metrics.GATED, 30), 1.0)
        with pytest.raises(Diverged, match=r"^the gradient was not finite .* step 54$"):
            told(metrics, range(30, 100), torch.nan)


def test_numbers_that_the_file_could_not_hold_are_not_written(submit, undisturbed, workspace, tmp_path, monkeypatch):
    run = submit(tmp_path / "job", {"saving": {"precision": "fp16"}, "training": {"ema": 0.0}})
    step = FlatAdamW.step

    def exploding(self: FlatAdamW) -> torch.Tensor:
        norm = step(self)
        self.flat.value[3] = 7e4
        return norm

    monkeypatch.setattr(FlatAdamW, "step", exploding)
    assert run.start() == protocol.FAILED
    assert run.end.cause == "the adapter's numbers were beyond 65504, the largest of fp16, at step 2"
    assert not list(run.checkpoints.iterdir())


@pytest.mark.parametrize(
    ("error", "cause", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory", "training.batch = 1"),
        (ZeroDivisionError("of ours"), "ZeroDivisionError: of ours", "engine.log"),
    ],
    ids=["memory", "defect"],
)
def test_an_error_in_the_middle_of_a_step_costs_that_step_alone(
    error, cause, advice, submit, undisturbed, workspace, tmp_path, monkeypatch
):
    run = submit(tmp_path / "job")

    def fail(trainer: Trainer, losses: torch.Tensor) -> torch.Tensor:
        raise error

    with monkeypatch.context() as failing:
        poison(failing, (4, 0), fail)
        assert run.start() == protocol.FAILED
    assert run.end.cause == cause
    assert any(advice in line for line in run.end.advice)
    assert run.end.step == 3
    assert run.states == [2, 3]
    assert run.start() == protocol.DONE
    assert run.resumed == [3]
    assert run.equals(undisturbed.run)


def test_the_memory_of_a_failed_step_is_free_when_its_run_is_saved(
    submit, undisturbed, workspace, tmp_path, monkeypatch
):
    run, kept, alive = submit(tmp_path / "job"), [], []

    def fail(trainer: Trainer, losses: torch.Tensor) -> torch.Tensor:
        activations = torch.zeros(8)
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError

    def save(self: saver.Saver, step: int) -> None:
        alive.append(kept[0]() is not None)

    poison(monkeypatch, (2, 0), fail)
    monkeypatch.setattr(saver.Saver, "save", save)
    assert run.start() == protocol.FAILED
    assert alive == [False]


def test_an_error_is_not_hidden_by_a_save_that_fails_too(submit, undisturbed, workspace, tmp_path, monkeypatch):
    run = submit(tmp_path / "job")

    def fail(trainer: Trainer, losses: torch.Tensor) -> torch.Tensor:
        refuse(monkeypatch, "*")
        raise torch.OutOfMemoryError

    poison(monkeypatch, (2, 0), fail)
    assert run.start() == protocol.FAILED
    assert run.end.cause == "out of memory"


def test_a_stop_whose_save_fails_is_a_failure(submit, undisturbed, workspace, tmp_path, monkeypatch):
    run, stop = submit(tmp_path / "job"), threading.Event()

    def end(trainer: Trainer, losses: torch.Tensor) -> torch.Tensor:
        refuse(monkeypatch, "*.safetensors")
        stop.set()
        return losses

    poison(monkeypatch, (1, 0), end)
    assert run.start(stop=stop) == protocol.FAILED
    assert run.end.cause.startswith("the disk is full")


def test_a_machine_without_memory_is_known_by_the_words_of_torch():
    cause, advice = failures.explain(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), None)
    assert cause == "out of memory"
    assert advice
