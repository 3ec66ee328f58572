"""`loratui adapter`: what is printed where, and how commands end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import loratui
from engine.protocol.operations import Fitted
from loratui.cli import adapter_tables

ROOT = Path(loratui.__file__).parents[1]
DISNEY = ROOT / "tests" / "fixtures" / "cloneofsimo" / "lora_disney.safetensors"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "loratui", "adapter", *arguments]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)


def test_compose_prints_a_table_and_the_file_and_narrates_on_stderr(tmp_path):
    out = tmp_path / "[best] out.safetensors"
    found = call("compose", f"{DISNEY}:0.7", f"{DISNEY}:-0.3", "-o", str(out))
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == str(out) and "text_encoder" in found.stdout
    assert "composing layers" in found.stderr and "192 layers" in found.stderr
    again = call("compose", str(DISNEY), "-o", str(out))
    assert again.returncode == 2 and "--force" in again.stderr and again.stdout == ""


def test_tokens_are_told_with_their_files_and_notices_also_beside_json(tmp_path):
    shutil.copyfile(DISNEY.with_name("lora_illust.pt"), tmp_path / "cat.pt")
    shutil.copyfile(DISNEY.with_name("lora_kiriko.text_encoder.pt"), tmp_path / "cat.text_encoder.pt")
    found = call("diff", str(tmp_path / "cat.pt"), str(tmp_path / "cat.pt"), "--json")
    assert json.loads(found.stdout)["distance"] == 0.0
    assert "note: cat.pt: cat.text_encoder.pt is a part of it" in found.stderr
    found = call("compose", str(DISNEY), "-o", str(tmp_path / "out.safetensors"))
    assert f"token <s1>: {tmp_path / 'out-s1.safetensors'}" in found.stdout.splitlines()


def test_json_is_the_whole_answer_and_nothing_else():
    found = call("diff", str(DISNEY), str(DISNEY), "--json")
    answer = json.loads(found.stdout)
    assert (found.returncode, found.stderr) == (0, "")
    assert answer["distance"] == 0.0 and answer["cosine"] == 1.0 and len(answer["layers"]) == 192
    assert answer["layers"][0].keys() == {"part", "path", "first", "second", "distance", "cosine"}


def test_the_files_of_an_interpolation_are_told_once(tmp_path):
    arguments = ("interpolate", str(DISNEY), str(DISNEY), "--steps", "2", "-o", str(tmp_path), "--force")
    assert list(json.loads(call(*arguments, "--json").stdout)["files"].values()) == [0.0, 1.0]
    assert [line.partition("  ")[0] for line in call(*arguments).stdout.splitlines()] == ["t = 0.000", "t = 1.000"]


def test_every_layer_is_shown_on_request():
    found = call("diff", str(DISNEY), str(DISNEY), "--layers")
    rows = [line for line in found.stdout.splitlines() if line.strip().startswith(("unet.", "text_encoder."))]
    assert len(rows) == 192 and "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resize", "[/foo].safetensors", "-o", "out.safetensors", "--rank", "4", "--energy", "0.5"], "rank = 4"),
        (["resize", "[/foo].safetensors", "-o", "out.safetensors", "--rank", "4"], "[/foo].safetensors"),
        (["extract", "--tuned", "no", "--base", "where", "-o", "out.safetensors"], "rank, energy, error"),
        (["compose", str(DISNEY), "-o", "out.safetensors", "--precision", "int8"], "precision"),
    ],
)
def test_mistakes_end_with_2_and_their_problems(arguments, said):
    found = call(*arguments)
    assert (found.returncode, found.stdout) == (2, "")
    assert said in found.stderr and "Traceback" not in found.stderr


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_with_130_and_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        command("interpolate", str(DISNEY), str(DISNEY), "--steps", "1000", "-o", str(tmp_path / "line")),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any(line.startswith("composing") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert not list((tmp_path / "line").glob(".*"))


def test_learned_weights_are_a_row_a_block_and_names_are_not_markup(capsys):
    answer = Fitted(
        out="mix.toml",
        adapters=["a/[bold] cat.safetensors", "[/foo].safetensors"],
        before=[1.0, 0.5],
        weights={"unet.mid_block": [0.25, -0.125]},
        loss_before=0.2,
        loss_after=0.1,
        images=4,
    )
    adapter_tables.show(adapter_tables.weights(answer))
    header, *rows = [line for line in capsys.readouterr().out.splitlines() if line.strip(" ─")]
    assert header.split() == ["[bold]", "cat", "foo]"]  # the stem of a path
    assert [row.split() for row in rows] == [["before", "+1.000", "+0.500"], ["unet.mid_block", "+0.250", "-0.125"]]
