"""Operations on files as jobs: the journal tells their way, answer and end; nothing half-written is left."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import protocol, worker
from engine.config import Operate, Request, UserError
from engine.host import jobs, launch, submission
from engine.jobs import operation
from engine.protocol import messages
from engine.protocol.operations import Composed, Difference
from engine.runner import Runner

BLOCK = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1"


@pytest.fixture
def adapter(tmp_path):
    """Write a small adapter: `adapter("a", seed=1, rank=2)`. Returns its path."""

    def write(name: str, seed: int, rank: int = 2) -> str:
        draw = torch.Generator().manual_seed(seed)
        tensors = {}
        for layer in ("to_q", "to_k", "to_v"):
            tensors[f"{BLOCK}_{layer}.lora_down.weight"] = torch.randn(rank, 64, generator=draw)
            tensors[f"{BLOCK}_{layer}.lora_up.weight"] = torch.randn(64, rank, generator=draw)
            tensors[f"{BLOCK}_{layer}.alpha"] = torch.tensor(float(rank))
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        return str(path)

    return write


def delta(path: str | Path, layer: str) -> torch.Tensor:
    """ΔW of a layer whose alpha is its rank, or is not told."""
    tensors = load_file(path)
    up, down = tensors[f"{BLOCK}_{layer}.lora_up.weight"], tensors[f"{BLOCK}_{layer}.lora_down.weight"]
    scale = tensors.get(f"{BLOCK}_{layer}.alpha", torch.tensor(float(len(down)))) / len(down)
    return scale * up.double() @ down.double()


def wanted(operation: str, name: str = "blend", **request) -> Operate:
    made = Request()
    made.lay({"kind": "operate", "name": name, "operation": operation, "request": request}, "test")
    return made.checked()


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    monkeypatch.setenv("LORATUI_WORKSPACE", str(folder))
    monkeypatch.setenv("LORATUI_RUNTIME_DIR", str(tmp_path / "locks"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def make(workspace):
    """Write the folder of an operation's job."""
    return lambda *args, **request: submission.create(workspace, wanted(*args, **request), held=True)


def events(directory: Path, *kinds: type) -> list:
    read = list(protocol.JournalReader(directory / protocol.JOURNAL).read())
    return [event for event in read if not kinds or isinstance(event, kinds)]


def test_a_blend_is_composed_as_a_job_and_the_journal_tells_all_of_it(make, adapter, tmp_path):
    first, second, out = adapter("a", 1), adapter("b", 2, rank=3), tmp_path / "out.safetensors"
    uses = [{"path": first, "weight": 0.7}, {"path": second, "weight": -0.3}]
    job = make("compose", adapters=uses, out=str(out))
    assert worker.run_job(job) == protocol.DONE
    stages = [event.name for event in events(job, protocol.Stage)]
    assert stages[0] == "read" and "compose" in stages and stages[-1] == "write"
    last = [event for event in events(job, protocol.Progress) if event.stage == "compose"][-1]
    assert (last.done, last.total) == (3, 3)
    (answer,) = events(job, protocol.Answer)
    told = msgspec.json.decode(answer.result, type=Composed)
    assert told.out == str(out) and [layer.rank for layer in told.layers] == [5, 5, 5]
    end = events(job)[-1]
    assert (end.state, end.outputs) == ("done", [str(out)])
    for layer in ("to_q", "to_k", "to_v"):
        expected = 0.7 * delta(first, layer) - 0.3 * delta(second, layer)
        torch.testing.assert_close(delta(out, layer), expected, rtol=1e-4, atol=1e-5)


def test_an_operation_that_makes_no_file_has_an_answer_alone(make, adapter):
    job = make("diff", first=adapter("a", 1), second=adapter("b", 2))
    assert worker.run_job(job) == protocol.DONE
    (answer,) = events(job, protocol.Answer)
    assert len(msgspec.json.decode(answer.result, type=Difference).layers) == 3
    assert events(job)[-1].outputs == []


def test_an_answer_too_long_for_a_journal_lies_beside_it(make, adapter, monkeypatch):
    monkeypatch.setattr(operation, "LONGEST_ANSWER", 100)
    job = make("diff", first=adapter("a", 1), second=adapter("b", 2))
    assert worker.run_job(job) == protocol.DONE
    assert events(job, protocol.Answer) == [] and "answer.json" in events(job, protocol.Notice)[-1].text
    assert len(msgspec.json.decode((job / "answer.json").read_bytes(), type=Difference).layers) == 3


def test_what_can_not_be_done_is_refused_in_words_and_nothing_is_written(make, adapter, tmp_path):
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    job = make("compose", adapters=[{"path": adapter("a", 1)}], out=str(out))
    assert worker.run_job(job) == protocol.REFUSED
    (refused,) = events(job, protocol.Refused)
    assert refused.found == "a file of that name" and refused.where == str(out)
    assert out.read_bytes() == b"mine" and events(job, protocol.Answer) == []


def test_a_stop_between_two_layers_ends_it_without_a_file_and_a_retry_begins_anew(make, adapter, tmp_path, monkeypatch):
    out, stop = tmp_path / "out.safetensors", threading.Event()
    job = make("compose", adapters=[{"path": adapter("a", 1)}, {"path": adapter("b", 2)}], out=str(out))
    told = operation.JournalReporter.progress

    def progress(self, done: int) -> None:
        if done == 2:
            stop.set()
        told(self, done)

    monkeypatch.setattr(operation.JournalReporter, "progress", progress)
    assert worker.run_job(job, stop=stop) == protocol.INTERRUPTED
    assert events(job)[-1].state == "stopped"
    assert not out.exists() and not list(tmp_path.rglob("*.tmp*"))
    monkeypatch.undo()
    assert worker.run_job(job) == protocol.DONE and out.exists()


def test_a_request_is_checked_as_the_operations_own(tmp_path):
    request = Request()
    table = {"adapters": [], "out": "x.safetensors", "rank": 4, "energy": 0.5, "weigth": 1}
    request.lay({"kind": "operate", "operation": "compose", "request": table}, "blend.toml")
    with pytest.raises(UserError) as caught:
        request.checked()
    assert {problem.field for problem in caught.value.problems} == {"request.adapters", "request.weigth"}
    assert {problem.where for problem in caught.value.problems} == {"blend.toml"}
    unknown = Request()
    unknown.lay({"kind": "operate", "operation": "destroy", "request": {}}, "blend.toml")
    with pytest.raises(UserError, match="compose"):
        unknown.checked()


def test_relative_paths_of_a_request_are_of_the_folder_of_its_file(tmp_path):
    file = tmp_path / "blend.toml"
    file.write_text(
        'kind = "operate"\noperation = "compose"\n[request]\nout = "c.safetensors"\n'
        '[[request.adapters]]\npath = "a.safetensors"\n'
    )
    request = Request()
    request.read(file)
    table = request.checked().request
    assert table["out"] == str(tmp_path / "c.safetensors")
    assert table["adapters"][0]["path"] == str(tmp_path / "a.safetensors")


def test_only_what_computes_with_a_model_waits_for_a_device(adapter, tmp_path):
    path, out = adapter("a", 1), str(tmp_path / "b.toml")
    fit = {"base": "tiny", "adapters": [{"path": path}], "data": str(tmp_path), "out": out}
    assert not submission.needs_device(wanted("diff", first=path, second=path))
    assert submission.needs_device(wanted("fit_weights", **fit))


def test_a_submitted_operation_is_started_at_once_beside_the_queue(workspace, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "ensure_runner", lambda workspace: None)
    table = msgspec.to_builtins(wanted("diff", first=adapter("a", 1), second=adapter("b", 2)))
    told = jobs.submit(workspace, messages.Submit(config=table))
    assert not told.queued
    runner = Runner(workspace, lambda text: None)
    runner.take_over(False)
    while runner.turn():
        pass
    assert jobs.state_of(Path(told.path)) == "done"
    assert jobs.summary(Path(told.path)).kind == "operate" and events(Path(told.path), protocol.Answer)


def test_a_signal_ends_it_as_a_command_does(make, adapter, tmp_path, monkeypatch):
    out, stop = tmp_path / "out.safetensors", threading.Event()
    job = make("compose", adapters=[{"path": adapter("a", 1)}], out=str(out))
    former = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    told = operation.JournalReporter.stage

    def stage(self, name: str, total: int = 0, unit: str = "") -> None:
        if name == "write":
            os.kill(os.getpid(), signal.SIGTERM)
        told(self, name, total, unit)

    monkeypatch.setattr(operation.JournalReporter, "stage", stage)
    try:
        assert worker.run_job(job, stop=stop) == protocol.INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, former)
    assert not out.exists()
