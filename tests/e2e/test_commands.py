"""The commands as a user runs them: real processes, real workers, the embedded base."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image
from safetensors import safe_open

SHORT = [
    "--set", "training.steps=4", "--set", "training.batch=2", "--set", "prior.images=2", "--set", "prior.steps=2",
    "--set", "sampling.steps=2", "--set", "saving.every=2",
]  # fmt: skip


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("LORATUI_RUNTIME_DIR", str(tmp_path / "locks"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield tmp_path
    for process in psutil.process_iter(["cmdline"]):  # what a failed test has left running
        if any(str(tmp_path) in argument for argument in process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, colour in enumerate(("red", "lime", "blue")):
        picture = Image.new("RGB", (64, 64), colour)
        picture.paste("white", (16, 16, 40, 40 + number))
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a ohwx square on a {colour} background")
    return folder


def command(*arguments):
    return [sys.executable, "-m", "loratui", *map(str, arguments)]


def loratui(*arguments, cwd=None):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, cwd=cwd)


def problems(done):
    """Standard error of a command that refused: no traceback anywhere, and nothing on standard output."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    return done.stderr


def test_an_adapter_is_trained_and_then_drawn_with_and_strength_zero_is_the_base(workspace, images):
    done = loratui("train", "--preset", "dreambooth", "--base", "tiny", "--data", images, "--class-prompt", "a square",
                   "--name", "square", *SHORT, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["state"] == "done" and result["step"] == result["steps"] == 4
    adapter = Path(result["outputs"][0])
    with safe_open(adapter, framework="pt") as file:
        metadata = file.metadata()
        assert all(key.startswith("lora_unet_") for key in file.keys())  # noqa: SIM118
    assert metadata["ss_output_name"] == "square" and len(metadata["sshs_model_hash"]) == 64
    drawn = {}
    for name, use in (("base", []), ("zero", ["--adapter", f"{adapter}:0"]), ("full", ["--adapter", adapter])):
        out = workspace / f"{name}.png"
        done = loratui("generate", "--base", "tiny", "--prompt", "a cat", "--steps", 2, *use, "-o", out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(out)
        drawn[name] = Image.open(out)
    assert drawn["base"].tobytes() == drawn["zero"].tobytes() != drawn["full"].tobytes()
    assert "Lora hashes" in drawn["full"].info["parameters"]
    log = adapter.parent / "engine.log"
    assert "Traceback" not in log.read_text()
    again = loratui("resume", "square")
    assert again.returncode == 0 and again.stdout.strip() == str(adapter) and "nothing is left" in again.stderr


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_saves_and_says_how_to_go_on_and_resume_finishes(workspace, images):
    process = subprocess.Popen(
        command("train", "--preset", "dreambooth", "--base", "tiny", "--data", images, "--name", "long",
                "--set", "training.steps=2000", "--set", "sampling.every=0"),
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    told = ""
    for line in process.stderr:
        told += line
        if line.startswith("step "):
            process.send_signal(signal.SIGINT)
            break
    told += process.stderr.read()
    assert process.wait(timeout=120) == 130
    (run,) = (workspace / "ws" / "projects" / "default" / "runs").iterdir()
    assert f"loratui resume {run.name}" in told
    assert list(run.glob("checkpoints/*.state")) and list(run.glob("checkpoints/*.safetensors"))
    config = (run / "config.toml").read_text()
    step = json.loads((run / "status.json").read_text())["step"]
    (run / "config.toml").write_text(config.replace("steps = 2000", f"steps = {step + 2}"))
    done = loratui("resume", "long", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == step + 2
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["number"] for event in events if event["event"] == "attempt"] == [1, 2]
    assert [event["step"] for event in events if event["event"] == "resumed"] == [step]


def test_every_bad_image_is_named_before_the_first_step(workspace, images):
    (images / "empty.png").write_bytes(b"")
    (images / "cut.png").write_bytes((images / "0.png").read_bytes()[:60])
    (images / "text.jpg").write_text("no picture")
    Image.new("RGB", (8, 8)).save(images / "small.png")
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(images / "moving.gif", save_all=True, append_images=frames[1:])
    told = problems(loratui("train", "--preset", "dreambooth", "--base", "tiny", "--data", images, *SHORT))
    for name in ("empty.png", "cut.png", "text.jpg", "small.png", "moving.gif"):
        assert told.count(name) == 1
    assert "expected" in told and "found" in told


def test_what_was_converted_is_said_and_the_run_goes_on(workspace, images):
    Image.new("CMYK", (64, 64)).save(images / "print.jpg")
    Image.new("RGBA", (64, 64), (255, 0, 0, 90)).save(images / "glass.png")
    Image.new("I;16", (64, 64), 40000).save(images / "deep.png")
    done = loratui("train", "--preset", "dreambooth", "--base", "tiny", "--data", images, *SHORT, "--dry-run")
    assert done.returncode == 0, done.stderr
    for name in ("print.jpg", "glass.png", "deep.png"):
        assert name in done.stderr
    assert "6 images × 1 repeat" in done.stderr
    assert not list((workspace / "ws").glob("projects/*/runs/*"))
    assert not list((workspace / "ws").glob("cache/dry-run-*"))


def test_all_mistakes_of_a_config_are_told_at_once_with_file_and_field(workspace, images):
    config = workspace / "run.toml"
    config.write_text(
        '[model]\nbase = "tiny"\n[adapter]\nrank = 0\nrnak = 3\n'
        f'[[dataset.subsets]]\npath = "{images}"\nrepeats = "many"\n'
        "[training]\nsteps = 10\nepochs = 2\n[optimizer]\nlr_unet = nan\n"
    )
    told = problems(loratui("train", config, "--set", "loss.snr_gama=1"))
    for field in ("adapter.rank", "adapter.rnak", "dataset.subsets[0].repeats", "optimizer.lr_unet", "loss.snr_gama"):
        assert f": {field}: " in told
    assert "did you mean `rank`" in told and "did you mean `snr_gamma`" in told
    assert told.count(str(config)) == 4


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("no/such-model", ["no/such-model", "folder"]),
        ("missing.safetensors", ["missing.safetensors", "nothing of that name"]),
        ("evil.ckpt", ["evil.ckpt", "system"]),
    ],
)
def test_a_base_that_is_none_is_refused_by_name(workspace, images, monkeypatch, base, words):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {workspace}/owned",)

    (workspace / "evil.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    monkeypatch.setenv("HF_HOME", str(workspace / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = loratui("train", "--preset", "dreambooth", "--base", base, "--data", images, cwd=workspace)
    told = problems(done)
    assert all(word in told for word in words)
    assert not (workspace / "owned").exists()


def test_an_existing_picture_is_not_overwritten_without_force(workspace):
    out = workspace / "cat.png"
    out.write_bytes(b"mine")
    assert "--force" in problems(loratui("generate", "--base", "tiny", "--prompt", "a cat", "-o", out))
    assert out.read_bytes() == b"mine"


def test_a_file_that_is_no_adapter_is_refused_and_nothing_is_drawn(workspace):
    (workspace / "junk.safetensors").write_bytes(b"junk")
    out = workspace / "cat.png"
    done = loratui(
        "generate", "--base", "tiny", "--prompt", "a cat", "--adapter", workspace / "junk.safetensors", "-o", out
    )
    assert "junk.safetensors" in problems(done)
    assert not out.exists()


def test_config_init_prints_the_family_and_a_file_that_validates(workspace, images):
    out = workspace / "run.toml"
    done = loratui("config", "init", "--base", "tiny", "--data", images, "--class-prompt", "a square", "-o", out)
    assert done.returncode == 0 and "family sd1" in done.stderr
    assert loratui("config", "validate", out).returncode == 0
    shown = loratui("config", "show", out, "--json", "--set", "training.steps=7")
    assert json.loads(shown.stdout)["training"]["steps"] == 7
    schema = json.loads(loratui("config", "schema").stdout)
    assert "training" in json.dumps(schema)
    assert loratui("config", "init", "--base", "tiny", "-o", out).returncode == 2


def test_the_demo_trains_and_shows_base_and_adapter_side_by_side(workspace):
    done = loratui("demo", "--steps", 2)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).suffix == ".safetensors" and Path(done.stdout.strip()).exists()
    assert "base" in done.stderr and "with the adapter" in done.stderr and "loratui generate" in done.stderr
