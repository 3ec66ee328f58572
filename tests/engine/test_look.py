"""A check finds what training would find, and says it of the image that it is about."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from engine import look
from engine.config.structs import Dataset, Subset
from engine.data import dataset
from engine.errors import UserError
from engine.protocol.browse import CheckImages, ImagesChecked


@pytest.fixture
def folder(tmp_path):
    """Four pictures for the tiny base: good, good with a long caption, too small, broken."""
    folder = tmp_path / "10_ohwx cat"
    folder.mkdir()
    for number, size in enumerate([(64, 64), (80, 64), (8, 8)], 1):
        Image.effect_noise(size, 50).save(folder / f"{number}.png")
    (folder / "1.txt").write_text("a cat")
    (folder / "2.txt").write_text("cat " * 80)
    (folder / "3.txt").write_text("")
    (folder / "4.jpg").write_bytes(b"\xff\xd8nothing")
    return folder


def config(*folders, base="tiny", **fields):
    return {"model": {"base": base}, "dataset": {"subsets": [{"path": str(path)} for path in folders], **fields}}


def looked(table) -> list[ImagesChecked]:
    told = []
    look.look(CheckImages(config=table, id="x"), told.append)
    assert [one.finished for one in told] == [False] * (len(told) - 1) + [True]
    assert {one.id for one in told} == {"x"}
    return told


def rows(told):
    return [(Path(one.path).name, one.severity, one.text) for one in told[-1].findings]


def test_everything_is_told_in_the_order_of_the_images(folder):
    told = looked(config(folder))
    assert (told[-1].done, told[-1].total, told[-1].failed) == (4, 4, "")
    assert [(name, severity) for name, severity, _ in rows(told)] == [
        ("10_ohwx cat", "note"), ("2.png", "note"), ("3.png", "problem"), ("3.png", "note"), ("4.jpg", "problem"),
    ]  # fmt: skip
    texts = [text for _, _, text in rows(told)]
    assert "80 tokens, 75 are read" in texts[1]
    assert texts[2].startswith("expected a picture that covers")
    assert texts[3] == "3.txt: empty caption file passed over"
    assert told[-1].findings[2].advice and told[-1].findings[2].path == str(folder / "3.png")


def test_it_is_what_training_would_say(folder):
    with pytest.raises(UserError) as refused:
        dataset.build(Dataset(subsets=[Subset(path=str(folder))]), root=Path("/"), resolution=64, step=16, seed=1)
    told = [one for one in looked(config(folder))[-1].findings if one.severity == "problem"]
    assert [(one.path, one.advice) for one in told] == [(one.where, one.advice) for one in refused.value.problems]

    for name in ("3.png", "3.txt", "4.jpg"):
        (folder / name).unlink()
    built = dataset.build(Dataset(subsets=[Subset(path=str(folder))]), root=Path("/"), resolution=64, step=16, seed=1)
    notes = {(one.path, one.text) for one in looked(config(folder))[-1].findings}
    assert {(note.where, note.what + (f" ({note.detail})" if note.detail else "")) for note in built.notes} < notes


def test_images_that_a_run_would_leave_out_are_problems(folder):
    told = looked(config(folder, on_problem="skip"))
    assert [name for name, severity, _ in rows(told) if severity == "problem"] == ["3.png", "4.jpg"]


def test_what_is_wrong_with_the_config_is_told_and_the_rest_is_checked(folder, tmp_path):
    told = looked(config(folder, tmp_path / "missing", base="nothing-of-this-name"))
    problems = [(path, text) for path, severity, text in rows(told) if severity == "problem"]
    assert ("nothing-of-this-name", "model.base: expected") in [(path, text[:20]) for path, text in problems]
    assert any("dataset.subsets[1].path: " in text for _, text in problems)
    assert told[-1].total == 4


@pytest.mark.parametrize("table", [{}, {"model": 3, "dataset": []}, {"dataset": {"subsets": [{"path": 3}]}}])
def test_a_config_that_is_none_ends_the_check_at_once(table):
    (told,) = looked(table)
    assert (told.total, told.failed) == (0, "")
    assert {one.severity for one in told.findings} == {"problem"}


def test_a_base_that_is_not_here_is_taken_for_stable_diffusion_1(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.models.hub.cached", lambda *_, **__: None)
    Image.effect_noise((300, 300), 50).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("cat " * 80)
    texts = [text for _, _, text in rows(looked(config(tmp_path, base="somebody/some-base")))]
    assert texts == [
        "enlarged to cover its bucket (1.71 times)",
        "caption longer than the text encoder reads (80 tokens, 75 are read)",
    ]


def test_findings_of_one_kind_are_not_told_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(look, "MOST_ALIKE", 3)
    for number in range(10):
        Image.effect_noise((64, 64), number + 1).save(tmp_path / f"{number}.png")
    told = rows(looked(config(tmp_path)))
    assert told == [
        (look.WHOLE, "note", "no caption: 7 more of these"),
        *((f"{number}.png", "note", "no caption") for number in range(3)),
    ]


def test_progress_is_told_now_and_then(tmp_path, monkeypatch):
    for number in range(20):
        Image.effect_noise((64, 64), number + 1).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(look, "INTERVAL", 3600.0)
    assert [(one.done, one.total) for one in looked(config(tmp_path))] == [(1, 20), (20, 20)]
    monkeypatch.setattr(look, "INTERVAL", 0.0)
    assert [one.done for one in looked(config(tmp_path))] == [*range(1, 21), 20]


def test_a_process_takes_a_line_and_answers_in_lines(folder):
    request = msgspec.json.encode(CheckImages(config=config(folder), id="[/x]")) + b"\n"
    process = subprocess.Popen([sys.executable, "-m", "engine.look"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(request)
    process.stdin.flush()
    lines = [json.loads(line) for line in process.stdout]
    assert process.wait(60) == 0
    process.stdin.close()
    process.stdout.close()
    assert (lines[-1]["id"], lines[-1]["finished"], len(lines[-1]["findings"])) == ("[/x]", True, 5)


def test_a_process_ends_when_nobody_asks_any_more(folder):
    for number in range(3000):
        shutil.copy(folder / "1.png", folder / f"more-{number}.png")
    request = msgspec.json.encode(CheckImages(config=config(folder), id="x")) + b"\n"
    done = subprocess.run([sys.executable, "-m", "engine.look"], input=request, capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"finished" not in done.stdout
