"""`loratui checkpoint convert` and `loratui adapter merge`: what they print, their exit codes, and that they don't
overwrite."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from loratui.cli import app

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "engine" / "tiny" / "base"
ADAPTER = ROOT / "docs" / "recording" / "octopus.safetensors"


def call(*arguments: object):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_folder_is_converted_and_its_losses_are_told(tmp_path):
    out = tmp_path / "[best quality].ckpt"
    done = call("checkpoint", "convert", TINY, "-o", out, "--precision", "bf16")
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    assert "vae config: norm_num_groups = 8, where readers of single files take 32" in done.stderr
    assert out.is_file()
    again = call("checkpoint", "convert", TINY, "-o", out)
    assert (again.exit_code, again.stdout) == (2, "")
    assert "--force overwrites it" in " ".join(again.stderr.split())


def test_a_merge_answers_scripts_in_json(tmp_path):
    done = call("adapter", "merge", "tiny", f"{ADAPTER}:0.5", "-o", tmp_path / "out", "--json")
    answer = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (0, "")
    assert answer["out"] == str(tmp_path / "out") and answer["family"] == "sd1"
    assert answer["tensors"] == {"unet": 56} and answer["notes"] == []


def test_an_unknown_precision_is_refused(tmp_path):
    done = call("checkpoint", "convert", TINY, "-o", tmp_path / "x.ckpt", "--precision", "fp8")
    assert done.exit_code == 2 and "precision" in done.stderr
    assert list(tmp_path.iterdir()) == []
