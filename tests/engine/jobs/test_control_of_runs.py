"""Live runs are paused, released, stopped, saved, sampled and changed, in every stage; the bits are those of a run that
was left alone, or, after a change, of a run with the same change.

A job runs in a thread of its own and is caught at gates: functions that it calls where a test wants it to be busy.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable

import pytest
import torch

from engine import control, files, protocol, worker
from engine.config import Request, to_toml
from engine.data import cache
from engine.host.launch import CONTROL_OFFSET
from engine.sampling import sampler
from engine.training import metrics, milestones, prior, state
from engine.training.loop import Trainer

DEADLINE = 60.0
LIGHT = {"training": {"accumulate": 1, "validate_every": 0}, "prior": {"images": 2}}


class Killed(BaseException):
    """Ends a job like a kill: nothing is saved, and no last word is said."""


class Gate:
    """Catches a job where it calls a function: it waits there, busy, until the gate is opened."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: object, name: str, place: Callable[..., bool] | None = None):
        self.reached, self.opened = threading.Event(), threading.Event()
        original = getattr(owner, name)

        def caught(*arguments, **options):
            if place is None or place(*arguments, **options):
                self.reached.set()
                assert self.opened.wait(DEADLINE)
            return original(*arguments, **options)

        patch.setattr(owner, name, caught)


class Live:
    """An attempt at a job, in a thread, and what is said to it."""

    def __init__(self, run):
        self.run, self.code = run, None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.before = len(run.events()) if (run.directory / protocol.JOURNAL).exists() else 0
        self.thread.start()

    def _work(self) -> None:
        try:
            self.code = self.run.start(stop=self.stop)
        except Killed:
            self.code = -9

    def events(self, *kinds) -> list[protocol.AnyEvent]:
        """What this attempt has told."""
        lines = list(protocol.JournalReader(self.run.directory / protocol.JOURNAL).read())[self.before :]
        return [event for event in lines if isinstance(event, kinds)]

    def until(self, condition: Callable[[], object]):
        deadline = time.monotonic() + DEADLINE
        while not (value := condition()):
            assert self.thread.is_alive(), self.run.events()[-1]
            assert time.monotonic() < deadline, "nothing came of it"
            time.sleep(0.005)
        return value

    def catch(self, gate: Gate) -> None:
        self.until(gate.reached.is_set)

    def seen(self, *kinds) -> protocol.AnyEvent:
        return self.until(lambda: self.events(*kinds))[-1]

    def say(self, *commands: dict) -> list[protocol.Acknowledged]:
        """Give commands in one write and wait for their answers."""
        told = len(self.events(protocol.Acknowledged))
        lines = [{"id": f"{told + number}", "t": time.time()} | command for number, command in enumerate(commands)]
        with (self.run.directory / protocol.CONTROL).open("ab") as file:
            file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self.until(lambda: len(self.events(protocol.Acknowledged)) == told + len(commands))
        return self.events(protocol.Acknowledged)[told:]

    def end(self) -> int:
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()
        return self.code


def command(name: str, **fields) -> dict:
    return {"name": name, **fields}


@pytest.fixture
def live(monkeypatch):
    """`live(run)` starts an attempt; no job outlives the test."""
    monkeypatch.setattr(control.Control, "LOOK_SECONDS", 0.02)
    started = []

    def start(run) -> Live:
        started.append(Live(run))
        return started[-1]

    yield start
    for attempt in started:
        attempt.stop.set()
        attempt.thread.join(DEADLINE)


@pytest.fixture
def gate(monkeypatch):
    """`gate(owner, name, place)`; all are opened at the end."""
    made = []

    def make(owner: object, name: str, place: Callable[..., bool] | None = None) -> Gate:
        made.append(Gate(monkeypatch, owner, name, place))
        return made[-1]

    yield make
    for each in made:
        each.opened.set()


@pytest.fixture
def in_step(gate):
    """`in_step(3)`: a gate in the middle of step 3."""
    return lambda wanted: gate(Trainer, "micro_step", lambda trainer, step, micro: step == wanted)


@pytest.fixture(scope="module")
def alone(submit, tmp_path_factory):
    """A run that was left alone, and the workspace with its caches."""
    folder = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORATUI_WORKSPACE", str(folder))
        run = submit(folder / "job", LIGHT)
        assert run.start() == protocol.DONE
        yield run
    torch.set_num_threads(threads)


def same_end(run, other) -> bool:
    """Whether two runs ended in the same bits, whatever else was saved on the way."""
    return run.adapter()[0] == other.adapter()[0]


def paths(events) -> list[str]:
    return [event.path for event in events]


def test_a_paused_run_saves_and_draws_when_asked_and_goes_on_to_the_same_bits(
    alone, submit, live, in_step, tmp_path, monkeypatch
):
    run, middle = submit(tmp_path / "job", LIGHT), in_step(1)
    shift, monotonic = [0.0], time.monotonic
    monkeypatch.setattr(metrics.time, "monotonic", lambda: monotonic() + shift[0])
    job = live(run)
    job.catch(middle)
    asked = [command("pause"), command("checkpoint"), command("sample", prompt="a dog --d 7 --w 32"), command("sample")]
    assert [answer.taken for answer in job.say(*asked)] == [True] * 4
    middle.opened.set()
    assert job.seen(protocol.Paused).step == 1
    assert job.seen(protocol.Checkpoint).step == 1
    drawn = job.until(lambda: [event for event in job.events(protocol.Sample) if event.step == 1][1:])
    assert [(event.path, event.prompt) for event in drawn] == [("samples/step-000001-p0-s42.png", "ohwx cat")]
    assert job.say(command("sample", prompt="a dog --d 7 --w 32"), command("checkpoint"))[1].text == "saved now"
    notice = job.until(lambda: [event.text for event in job.events(protocol.Notice) if "already" in event.text])
    assert notice == ["step 1 is saved already"]
    assert protocol.read_status(run.directory).state == "paused"
    shift[0] = 1000.0
    job.say(command("resume"))
    assert job.end() == protocol.DONE
    now = [event for event in job.events(protocol.Sample) if "now" in event.path]
    assert paths(now) == [f"samples/step-000001-now-{number}-s7.png" for number in (1, 2)]
    first, second = ((run.directory / path).read_bytes() for path in paths(now))
    assert first == second
    assert [event.index for event in now] == [1, 2]
    assert job.events(protocol.Continued)[0].step == 1
    assert all(event.seconds < 900 for event in job.events(protocol.Step))
    assert same_end(run, alone)


@pytest.mark.parametrize(
    ("stage", "owner", "name"),
    [
        ("class-images", prior, "_save"),
        ("cache", cache.LatentCache, "_make"),
        ("draw", sampler, "first_noise"),
    ],
)
def test_before_the_first_step_a_run_can_be_paused_and_keeps_what_it_is_asked_for(
    stage, owner, name, alone, submit, live, gate, tmp_path, monkeypatch
):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path))
    run = submit(tmp_path / "job", LIGHT)
    busy = gate(owner, name, (lambda *_: run.stage == "draw") if stage == "draw" else None)
    job = live(run)
    job.catch(busy)
    pause, saved, drawn = job.say(command("pause"), command("checkpoint"), command("sample", prompt="a dog"))
    assert (pause.taken, saved.taken, drawn.taken) == (True, False, True)
    assert (saved.text, drawn.text) == ("there is nothing to save yet", "drawn when training begins")
    busy.opened.set()
    assert job.seen(protocol.Paused).step == 0
    assert run.stage == stage
    assert not job.say(command("checkpoint"))[0].taken
    job.say(command("resume"))
    assert job.end() == protocol.DONE
    assert [event.step for event in job.events(protocol.Sample) if "now" in event.path] == [0]
    assert same_end(run, alone)


def test_a_run_that_was_told_to_stop_is_not_stopped_again_by_the_same_line(alone, submit, live, in_step, tmp_path):
    run, middle = submit(tmp_path / "job", LIGHT), in_step(3)
    job = live(run)
    job.catch(middle)
    job.say(command("sample", prompt="a dog"), command("stop"))
    middle.opened.set()
    assert job.end() == protocol.INTERRUPTED
    assert (run.end.state, run.end.step, run.states) == ("stopped", 3, [2, 3])
    assert job.events(protocol.Notice)[-1].text == "sample: not done, the job has ended before"
    assert live(run).end() == protocol.DONE
    assert run.resumed == [3]
    assert same_end(run, alone)


def test_a_stop_while_the_images_are_encoded_comes_after_that_image(submit, live, gate, tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path))
    run, busy = submit(tmp_path / "job", LIGHT, {"prior": {"weight": 0.0}}), gate(cache.LatentCache, "_make")
    job = live(run)
    job.catch(busy)
    job.say(command("stop"))
    busy.opened.set()
    assert job.end() == protocol.INTERRUPTED
    assert (run.end.state, run.stage) == ("stopped", "cache")
    assert job.events(protocol.Progress)[-1].done == 1


def test_a_signal_ends_a_paused_run_saved(alone, submit, live, in_step, tmp_path):
    run, middle = submit(tmp_path / "job", LIGHT), in_step(1)
    job = live(run)
    job.catch(middle)
    job.say(command("pause"))
    middle.opened.set()
    job.seen(protocol.Paused)
    job.stop.set()
    assert job.end() == protocol.INTERRUPTED
    assert (run.end.state, run.states) == ("stopped", [1])


@pytest.mark.parametrize("stage", ["train", "draw"])
def test_a_released_run_gives_its_device_back_and_goes_on_to_the_same_bits(
    stage, alone, submit, live, in_step, gate, tmp_path
):
    run = submit(tmp_path / "job", LIGHT)
    middle = (
        in_step(3) if stage == "train" else gate(sampler, "first_noise", lambda *_: bool(run.events(protocol.Step)))
    )
    job = live(run)
    job.catch(middle)
    assert job.say(command("pause", release=True))[0].taken
    middle.opened.set()
    assert job.end() == protocol.INTERRUPTED
    step = 3 if stage == "train" else 2
    assert (run.end.state, run.end.step, run.end.code) == ("released", step, protocol.INTERRUPTED)
    assert protocol.read_status(run.directory).state == "released"
    assert run.states[-1] == step
    assert live(run).end() == protocol.DONE
    assert run.resumed == [step]
    assert same_end(run, alone)


def changing(live, gate_at, run, kill: bool):
    """A run whose rates are changed in step 1 and in step 3; killed in step 4, where that is wanted."""
    first, second = gate_at(1), gate_at(3)
    job = live(run)
    job.catch(first)
    (answer,) = job.say(command("set", field="optimizer.lr_text", value=1e-3))
    assert answer.text == "optimizer.lr_text = 0.001 from the next step on"
    first.opened.set()
    job.catch(second)
    job.say(command("set", field="optimizer.lr_unet", value=5e-3))
    second.opened.set()
    assert job.end() == (-9 if kill else protocol.DONE)
    assert [(event.step, event.field, event.value) for event in job.events(protocol.Changed)] == [
        (1, "optimizer.lr_text", 1e-3),
        (3, "optimizer.lr_unet", 5e-3),
    ]


def test_a_changed_rate_is_part_of_the_run_and_a_kill_does_not_lose_it(
    alone, submit, live, in_step, tmp_path, monkeypatch
):
    """One change lies in the state that the run goes on from, the other behind it, in the journal alone."""
    constant = {"schedule": {"kind": "constant"}}
    whole, killed = (submit(tmp_path / name, LIGHT, constant) for name in ("whole", "killed"))
    changing(live, in_step, whole, kill=False)
    rates = [(event.lr["unet"], event.lr["text_encoder"]) for event in whole.events(protocol.Step)]
    assert rates == [(2e-3, 5e-4), (2e-3, 1e-3), (2e-3, 1e-3), (5e-3, 1e-3)]
    micro_step = Trainer.micro_step

    def dying(trainer: Trainer, step: int, micro: int) -> torch.Tensor:
        if step == 4:
            raise Killed
        return micro_step(trainer, step, micro)

    with monkeypatch.context() as dies:
        dies.setattr(Trainer, "micro_step", dying)
        changing(live, in_step, killed, kill=True)
    assert killed.states == [2]
    facts, _ = state.load(killed.checkpoints / "oct-step000002.state")
    assert facts.changes == {"optimizer.lr_text": 1e-3}
    again = live(killed)
    assert again.end() == protocol.DONE
    assert [event.text for event in again.events(protocol.Notice) if "live" in event.text] == [
        "optimizer.lr_text = 0.001, as it was set in the live run",
        "optimizer.lr_unet = 0.005 from step 4 on, as it was set in the live run",
    ]
    assert killed.equals(whole)
    assert not same_end(whole, alone)


def test_a_state_without_changes_is_one_of_an_older_version(alone, tmp_path):
    path = shutil.copytree(alone.checkpoints / "oct-step000004.state", tmp_path / "oct-step000004.state")
    facts = json.loads((path / "facts.json").read_bytes())
    assert facts.pop("changes") == {}
    (path / "facts.json").write_text(json.dumps(facts))
    assert state.load(path)[0].changes == {}


def test_neither_a_picture_nor_a_checkpoint_that_was_asked_for_ends_a_run_when_it_fails(
    alone, submit, live, in_step, tmp_path, monkeypatch
):
    run, middle = submit(tmp_path / "job", LIGHT), in_step(1)
    save_picture, sync = milestones.save_picture, files.sync

    def refusing_pictures(path, *arguments) -> None:
        if "now" in path.name:
            raise torch.OutOfMemoryError("no memory is left")
        save_picture(path, *arguments)

    def refusing_files(path) -> None:
        if "oct-step000001" in str(path):
            raise OSError(28, "no space is left")
        sync(path)

    monkeypatch.setattr(milestones, "save_picture", refusing_pictures)
    monkeypatch.setattr(files, "sync", refusing_files)
    job = live(run)
    job.catch(middle)
    job.say(command("sample", prompt="a dog"), command("checkpoint"))
    middle.opened.set()
    assert job.end() == protocol.DONE
    told = [event.text for event in job.events(protocol.Notice)]
    assert "a picture of step 1 was not drawn: no memory is left" in told
    assert any(text.startswith("step 1 was not saved: ") and "no space is left" in text for text in told)
    assert [event.step for event in job.events(protocol.Checkpoint)] == [2, 4]
    assert same_end(run, alone)


def test_a_rate_of_a_part_without_modules_changes_nothing_and_says_so(submit, live, in_step, tmp_path):
    sets = {"adapter": {"sets": [{"targets": "text_encoder", "rank": 0, "alpha": 1.0}]}}
    run, middle = submit(tmp_path / "job", LIGHT, sets, {"training": {"steps": 1}}), in_step(1)
    job = live(run)
    job.catch(middle)
    job.say(command("set", field="optimizer.lr_text", value=1e-3))
    middle.opened.set()
    assert job.end() == protocol.DONE
    assert not job.events(protocol.Changed)
    assert "no module of that part is adapted" in job.events(protocol.Notice)[-1].text


def test_pictures_are_paused_between_two_sampler_steps_and_stopped(alone, live, gate, tmp_path):
    request = Request()
    request.lay({"kind": "generate", "model": {"base": "tiny"}, "runtime": {"threads": 1, "device": "cpu"}}, "test")
    size = {"width": 32, "height": 32, "steps": 2}
    request.lay({"picture": {"prompt": "a cat", "out": str(tmp_path / "cat.png"), "count": 2, **size}}, "test")
    run = type(alone)(tmp_path / "job")
    run.directory.mkdir()
    (run.directory / protocol.CONFIG).write_text(to_toml(request.checked()))
    busy, job = gate(sampler, "first_noise"), live(run)
    job.catch(busy)
    assert [answer.taken for answer in job.say(command("pause"), command("sample", prompt="a dog"))] == [True, False]
    busy.opened.set()
    job.seen(protocol.Paused)
    assert not job.events(protocol.Sample)
    assert job.say(command("stop"))[0].taken
    assert job.end() == protocol.INTERRUPTED
    assert run.end.state == "stopped"


def test_a_worker_obeys_what_was_said_since_it_was_started(monkeypatch, tmp_path):
    taken = []
    for name, value in worker.ALLOCATOR.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(worker, "run_job", lambda *_, **options: taken.append(options["commands_from"]) or 0)
    monkeypatch.setattr(worker.sys, "argv", ["worker", str(tmp_path)])
    for offset in ("17", "", "x"):
        monkeypatch.setenv(CONTROL_OFFSET, offset)
        assert worker.main() == protocol.DONE
    assert taken == [17, None, None]
