"""What holds for the whole tree: imports go one way, the command line is light, the files speak of themselves."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "numpy", "diffusers", "transformers", "safetensors", "PIL", "textual", "rich")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_linter_finds_nothing():
    found = run(sys.executable, "-m", "ruff", "check", "--output-format=concise", ".")
    assert found.returncode == 0, found.stdout + found.stderr


def test_imports_go_the_way_the_contracts_say():
    found = run(sys.executable, "-c", "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))")
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "import loratui.start",
        "import loratui.cli",
        "from loratui.cli import app; app(['--help'], standalone_mode=False)",
    ],
    ids=["start", "import", "help"],
)
def test_the_command_line_starts_without_anything_heavy(statement):
    report = f"{statement}\nimport sys\nprint('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    found = run(sys.executable, "-c", report)
    assert found.stdout.splitlines()[-1] == "loaded:", found.stdout + found.stderr


PANELS = """
import asyncio, sys
from pathlib import Path
from engine.config.settings import App
from loratui import actions, start
from loratui.app import Workbench

async def visit():
    app = Workbench(Path(sys.argv[1]), App())
    async with app.run_test() as pilot:
        while not app.board.told:
            await pilot.pause(0.02)
        for name in actions.PANELS:
            await app.bring(name)
            await pilot.pause()

asyncio.run(visit())
"""


def test_the_app_opens_all_its_panels_without_anything_heavy(tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "ws"))
    heavy = ("torch", "numpy", "diffusers", "transformers", "safetensors")
    report = f"{PANELS}\nprint('loaded:', *(name for name in {heavy!r} if name in sys.modules))"
    found = run(sys.executable, "-c", report, str(tmp_path / "ws"))
    assert found.stdout.splitlines()[-1:] == ["loaded:"], found.stdout + found.stderr


def tracked_texts() -> dict[str, str]:
    listing = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if listing.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    texts = {}
    for name in filter(None, listing.stdout.split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content:
            texts[name] = content.decode(errors="replace")
    return texts


def test_no_file_names_a_place_on_somebodys_machine_or_a_package_index():
    places = "|".join(rf"(?<![\w.~])/{folder}/" for folder in ("root", "work"))
    hosts = "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", r"download\.py" + r"torch\.org", "npm" + r"js\."])
    pattern = re.compile(f"{places}|{hosts}")
    hits = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert hits == []


def test_constraints_pin_every_direct_requirement_exactly():
    pins = re.findall(r"^([\w.-]+)==[\w.]+$", (ROOT / "constraints.txt").read_text().replace("_", "-"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in wanted}
    assert names <= {pin.lower() for pin in pins}


def test_a_wheel_carries_the_themes_the_embedded_base_and_the_licences(tmp_path):
    pytest.importorskip("hatchling", reason="builds a wheel, which takes the build backend of the test extra")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    expected = {f"loratui/themes/{theme.name}" for theme in (ROOT / "themes").glob("*.toml")}
    expected |= {
        str(file.relative_to(ROOT))
        for file in (ROOT / "engine").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
