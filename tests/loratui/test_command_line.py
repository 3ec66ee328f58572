"""What holds for every command: what is printed where, the exit codes, and where the workspace is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import loratui
from engine.config import Problem, UserError
from loratui import cli, workspace
from loratui.child import engine_command, engine_environment

ROOT = Path(loratui.__file__).parents[1]


def main(monkeypatch, capfd, raised: BaseException) -> tuple[int, str, str]:
    """`main()` with a command line that raises: exit code, stdout, stderr."""

    def app(prog_name):
        raise raised

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return ending.value.code, *capfd.readouterr()


def call(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loratui", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_the_version_and_the_help_go_to_stdout():
    version = call("--version")
    assert (version.returncode, version.stdout, version.stderr) == (0, f"loratui {loratui.__version__}\n", "")
    bare = call()
    assert bare.returncode == 0
    assert "doctor" in bare.stdout and bare.stderr == ""


def test_an_unknown_command_ends_with_2_on_stderr():
    found = call("docter")
    assert (found.returncode, found.stdout) == (2, "")
    assert "docter" in found.stderr


def test_a_users_mistakes_are_all_printed_and_end_with_2(monkeypatch, capfd):
    problems = [Problem(where="a.toml", field=name, expected="a number", found="“x”") for name in ("rank", "alpha")]
    code, output, errors = main(monkeypatch, capfd, UserError(problems))
    assert (code, output) == (2, "")
    assert errors.splitlines() == [str(problem) for problem in problems]


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    def app(prog_name):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_an_interrupt_ends_with_130():
    script = (
        "from loratui import cli\n"
        "@cli.app.command('wait')\n"
        "def wait():\n    raise KeyboardInterrupt\n"
        "import sys; sys.argv = ['loratui', 'wait']; cli.main()"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (130, "")
    assert "Traceback" not in found.stderr


def test_a_reader_that_has_gone_is_no_error_to_talk_about():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        command = [sys.executable, "-m", "loratui", "--help"]
        found = subprocess.run(command, cwd=ROOT, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert found.stderr == ""


def test_what_a_terminal_cannot_show_becomes_a_question_mark():
    script = (
        "from loratui import cli\n"
        "@cli.app.command('say')\n"
        "def say():\n    print('a … b')\n"
        "import sys; sys.argv = ['loratui', 'say']; cli.main()"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "a ? b\n")


def test_the_workspace_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "a" / "b"))
    assert workspace.workspace_path() == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    assert workspace.runs_folder("my-cat") == tmp_path / "a" / "b" / "projects" / "my-cat" / "runs"
    assert workspace.runs_folder("my-cat").is_dir()
    assert workspace.cache_folder() == tmp_path / "a" / "b" / "cache"


def test_the_workspace_is_absolute_with_the_home_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LORATUI_WORKSPACE", raising=False)
    assert workspace.workspace_path() == tmp_path / "loratui"
    monkeypatch.setenv("LORATUI_WORKSPACE", "~/elsewhere")
    assert workspace.workspace_path() == tmp_path / "elsewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORATUI_WORKSPACE", "here")
    assert workspace.workspace_path() == tmp_path / "here"


def test_a_workspace_that_cannot_be_made_is_a_mistake_that_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "file" / "space"))
    with pytest.raises(UserError) as refusal:
        workspace.workspace()
    assert str(tmp_path / "file" / "space") in str(refusal.value)
    assert "LORATUI_WORKSPACE" in str(refusal.value)


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "a\\b", "a\0b"])
def test_a_projects_name_never_leads_out_of_the_workspace(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path))
    with pytest.raises(UserError):
        workspace.runs_folder(name)


def test_the_engine_that_is_started_is_ours_whatever_lies_in_the_current_folder(tmp_path):
    (tmp_path / "engine.py").write_text("raise SystemExit('a stranger')")
    command = [*engine_command("doctor")[:1], "-c", "import engine; print(engine.__file__)"]
    found = subprocess.run(command, cwd=tmp_path, env=engine_environment(), capture_output=True, text=True, check=False)
    assert Path(found.stdout.strip()) == ROOT / "engine" / "__init__.py"
