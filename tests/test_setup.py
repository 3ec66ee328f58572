"""`./setup` without a network: which Python it takes, what it says when there is none, and when it installs at all.

The Pythons here are shell scripts that answer as a Python would, in a folder that is all of PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("bash", "cat", "cksum", "dirname", "grep", "mkdir", "rm", "tail")

FAKE = """#!/usr/bin/env bash
echo "$0 $*" | head -n 1 >>"$CALLS"
case "$*" in
*python_implementation*) echo "{version} {answer}"; exit {misfit} ;;
*"import ensurepip"*) exit {lacks_pip} ;;
"-m venv "*)
    [ {lacks_pip} = 0 ] || exit 1
    mkdir -p "${{@: -1}}/bin"
    cp "$0" "${{@: -1}}/bin/python"
    cp "$0" "${{@: -1}}/bin/loratui" ;;
*"import torch"*) exit 1 ;;
"-m virtualenv "* | "-m pip --python "*) exit 1 ;;
esac
"""


class Machine:
    """A copy of what `./setup` reads, on a machine whose PATH holds a few tools and the Pythons that a test adds."""

    def __init__(self, folder: Path):
        self.project = folder / "project"
        self.tools = folder / "bin"
        self.calls = folder / "calls"
        self.project.mkdir()
        self.tools.mkdir()
        for name in ("setup", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.project)
        for name in (*TOOLS, "cp", "head", "env"):
            (self.tools / name).symlink_to(shutil.which(name))

    def add_python(self, name: str, version: str, lacks_pip: bool = False, fits: bool = True) -> Path:
        path = self.tools / name
        answer = path if fits else "CPython"
        path.write_text(FAKE.format(version=version, answer=answer, misfit=int(not fits), lacks_pip=int(lacks_pip)))
        path.chmod(0o755)
        return path

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        return subprocess.run(
            [self.tools / "bash", self.project / "setup", *arguments],
            env={"PATH": str(self.tools), "HOME": "/nowhere", "CALLS": str(self.calls)} | environment,
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
        )

    def installs(self) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if " -m pip install " in line]


@pytest.fixture
def machine(tmp_path):
    # the absolute paths that ./setup also looks at would bring this machine's own Python into the test
    made = Machine(tmp_path)
    script = made.project / "setup"
    text = script.read_text()
    for path in ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/homebrew/bin/python3", "/opt/conda/bin/python3"):
        assert path in text
        text = text.replace(path, str(tmp_path / "nowhere"))
    script.write_text(text)
    return made


@pytest.mark.parametrize("script", ["setup", ".ci/run"])
def test_the_scripts_are_valid_bash_and_executable(script):
    assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0
    assert os.access(ROOT / script, os.X_OK)


def test_without_a_command_it_explains_itself_and_ends_with_2(machine):
    found = machine.setup()
    assert found.returncode == 2
    assert "demo" in found.stderr and "test" in found.stderr and "install" in found.stderr


def test_without_a_fitting_python_it_lists_what_it_looked_at_and_what_to_install(machine):
    old = machine.add_python("python3", "3.9.2", fits=False)
    found = machine.setup("demo")
    assert found.returncode == 1
    assert f"{old}: 3.9.2" in found.stderr
    assert "apt-get install python3" in found.stderr and "PYTHON=" in found.stderr


def test_without_any_python_it_says_so(machine):
    found = machine.setup("demo")
    assert found.returncode == 1
    assert "there is no python3 on PATH" in found.stderr


def test_it_passes_over_an_old_python_for_one_that_fits(machine):
    machine.add_python("python3", "3.9.2", fits=False)
    machine.add_python("python3.12", "3.12.4")
    found = machine.setup("install")
    assert found.returncode == 0, found.stderr
    assert "Python 3.12.4" in found.stderr


def test_it_prefers_a_python_that_can_make_environments_by_itself(machine):
    machine.add_python("python3", "3.11.2", lacks_pip=True)
    machine.add_python("python3.12", "3.12.4")
    assert "Python 3.12.4" in machine.setup("install").stderr


def test_a_python_named_by_the_user_is_taken(machine):
    machine.add_python("python3", "3.12.4")
    named = machine.add_python("elsewhere", "3.13.1")
    assert "Python 3.13.1" in machine.setup("install", PYTHON=str(named)).stderr


def test_a_python_named_by_the_user_that_does_not_fit_is_refused(machine):
    machine.add_python("python3", "3.12.4")
    named = machine.add_python("elsewhere", "3.8.1", fits=False)
    found = machine.setup("install", PYTHON=str(named))
    assert found.returncode == 1
    assert "3.8.1" in found.stderr


def test_where_no_environment_can_be_made_it_names_the_package_to_install(machine):
    machine.add_python("python3", "3.11.2", lacks_pip=True)
    found = machine.setup("install")
    assert found.returncode == 1
    assert "apt-get install python3.11-venv" in found.stderr


def test_a_second_run_installs_nothing(machine):
    machine.add_python("python3", "3.11.2")
    machine.setup("install")
    assert len(machine.installs()) == 1
    machine.setup("demo")
    assert machine.installs() == []


def test_a_changed_constraint_installs_again_into_the_same_environment(machine):
    machine.add_python("python3", "3.11.2")
    machine.setup("install")
    kept = machine.project / ".venv" / "kept"
    kept.touch()
    with (machine.project / "constraints.txt").open("a") as file:
        file.write("another==1.0\n")
    machine.setup("install")
    assert len(machine.installs()) == 1
    assert kept.exists()


def test_an_extra_is_installed_once_and_stays(machine):
    machine.add_python("python3", "3.11.2")
    machine.setup("install")
    machine.setup("install", "xformers")
    assert machine.installs()[0].endswith("[xformers]")
    machine.setup("test")
    assert machine.installs()[0].endswith("[xformers,test]")
    machine.setup("install")
    assert machine.installs() == []


def test_an_environment_that_it_did_not_make_is_left_alone(machine):
    machine.add_python("python3", "3.11.2")
    mine = machine.project / ".venv" / "mine"
    mine.mkdir(parents=True)
    found = machine.setup("install")
    assert found.returncode == 1
    assert "made by something else" in found.stderr
    assert mine.exists()


def test_options_reach_the_program_and_its_exit_code_comes_back(machine):
    machine.add_python("python3", "3.11.2")
    machine.setup("install")
    program = machine.project / ".venv" / "bin" / "loratui"
    program.write_text('#!/usr/bin/env bash\necho "$@"\nexit 130\n')
    found = machine.setup("demo", "--steps", "3 4")
    assert (found.stdout.strip(), found.returncode) == ("demo --steps 3 4", 130)
