"""`loratui dataset caption` as scripts and people call it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import loratui
from loratui.cli import dataset

ROOT = Path(loratui.__file__).parents[1]
OCTOPUS = ROOT / "engine" / "tiny" / "subjects" / "octopus"


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loratui", "dataset", "caption", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_mistakes_end_with_2_and_their_problems(tmp_path):
    unknown = call(str(OCTOPUS), "--scorer", "wd14")
    assert (unknown.returncode, unknown.stdout) == (2, "") and "tiny" in unknown.stderr
    nowhere = call(str(tmp_path / "nowhere"), "--scorer", "tiny")
    assert nowhere.returncode == 2 and str(tmp_path / "nowhere") in nowhere.stderr
    assert "Traceback" not in unknown.stderr + nowhere.stderr


def test_an_image_is_told_of_in_lines_without_anything_that_a_terminal_obeys():
    from engine.protocol.operations import CaptionedImage, Tag

    image = CaptionedImage(
        path="/a/[/foo]\x1b[2J.png", caption="a cat", names=[Tag("cat", 0.934), Tag("dog", 0.5)],
        colour=Tag("red", 0.93), place=Tag("", 0.9), before="mine\x1b", written=False,
    )  # fmt: skip
    lines = list(dataset._told(image))
    assert lines[0].startswith("/a/[/foo]") and lines[0].endswith(": a cat")
    assert lines[1] == "  cat 0.93, dog 0.50; red 0.93"
    assert lines[2].startswith("  its caption: mine") and "\x1b" not in "".join(lines)


def test_a_folder_is_captioned_in_the_form_of_the_base(tmp_path):
    shutil.copytree(OCTOPUS, tmp_path / "images")
    (tmp_path / "images" / "white.txt").unlink()
    found = call(str(tmp_path / "images"), "--scorer", "tiny", "--write", "--json")
    assert found.returncode == 0, found.stderr
    images = json.loads(found.stdout)["images"]
    assert [Path(image["path"]).stem for image in images if image["written"]] == ["white"]
    assert all(image["colour"]["text"] in image["path"] for image in images)
    assert (tmp_path / "images" / "white.txt").read_text().endswith("on a white background\n")
