"""`loratui adapter inspect`, `convert` and `edit-metadata` as scripts and people call them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import loratui

ROOT = Path(loratui.__file__).parents[1]
REAL = ROOT / "tests" / "fixtures" / "cloneofsimo"


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loratui", "adapter", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_inspect_prints_json_with_the_keys_that_scripts_rely_on():
    found = call("inspect", str(REAL / "lora_disney.safetensors"), "--json")
    assert (found.returncode, found.stderr) == (0, "")
    said = json.loads(found.stdout)
    assert (said["format"], said["family"]) == ("cloneofsimo", "sd1")
    assert said["parts"]["unet"]["layers"] == 144 and said["parts"]["unet"]["ranks"] == [1]
    assert set(said["tokens"]) == {"<s1>", "<s2>"}
    assert said["metadata"]["<s1>"] == "<embed>"


def test_inspect_is_a_page_for_people():
    found = call("inspect", str(REAL / "lora_disney.safetensors"))
    assert found.returncode == 0, found.stderr
    for words in ("cloneofsimo, SD1, 1.5 MB", "token <s1>: 1×768", "144 LoRA", "ComfyUI", "finds nothing in it"):
        assert words in found.stdout
    assert "unet:0:rank" not in found.stdout


def test_convert_and_edit_what_a_file_is(tmp_path):
    out = tmp_path / "[best].safetensors"
    found = call("convert", str(REAL / "lora_disney.safetensors"), "-o", str(out), "--to", "kohya")
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[-1] == str(out) and sum("LoRA loads" in line for line in lines) == 4
    assert f"token <s1>: {tmp_path / '[best]-s1.safetensors'}" in lines
    again = call("convert", str(REAL / "lora_disney.safetensors"), "-o", str(out))
    assert (again.returncode, again.stdout) == (2, "") and "--force" in again.stderr
    edited = call("edit-metadata", str(out), "--set", "modelspec.title=[/foo]\x1b[2J", "--force")
    assert (edited.returncode, edited.stdout.strip()) == (0, str(out))
    shown = call("inspect", str(out)).stdout
    assert "modelspec.title = [/foo]" in shown and "\x1b" not in shown and "kohya, SD1" in shown


def test_mistakes_end_with_2_and_their_problems(tmp_path):
    odd = tmp_path / "odd.pt"
    odd.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    found = call("inspect", str(odd))
    assert (found.returncode, found.stdout) == (2, "")
    assert "asks for os.system" in found.stderr and "Traceback" not in found.stderr
    unknown = call(
        "convert", str(REAL / "lora_disney.safetensors"), "-o", str(tmp_path / "a.safetensors"), "--to", "zip"
    )
    assert unknown.returncode == 2 and "kohya" in unknown.stderr
    assert list(tmp_path.iterdir()) == [odd]
