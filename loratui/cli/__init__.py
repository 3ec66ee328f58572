"""The command line: one module for each group of commands, gathered here.

`loratui --help` and shell completion import all of these modules, so none may import anything slow at its top: typer
and the standard library there, the rest inside the functions. Data goes to stdout, narration to stderr; exit codes are
0 ok, 1 failed, 2 usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from loratui import __version__
from loratui.cli import adapter, adapter_files, checkpoint, config, dataset, demo, doctor, generate, queue, runs, train

# Without Rich: help is plain text, appears at once, and a `[section.field]` in it is not taken for markup.
app = typer.Typer(name="loratui", rich_markup_mode=None, pretty_exceptions_enable=False)

app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("resume")(train.resume)
app.command("generate")(generate.generate)
adapter.app.command("inspect")(adapter_files.inspect)
adapter.app.command("convert")(adapter_files.convert)
adapter.app.command("edit-metadata")(adapter_files.edit_metadata)
app.add_typer(adapter.app, name="adapter")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(dataset.app, name="dataset")
app.add_typer(runs.app, name="runs")
app.add_typer(queue.app, name="queue")
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def loratui(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Low-rank adaptation (LoRA) of diffusion models, from the terminal."""
    if version:
        typer.echo(f"loratui {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line and exit. A mistake of the user's ends in its problems and code 2, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no “…” shows a question mark, not a traceback
    try:
        try:
            app(prog_name="loratui")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone. Python's own flush at exit would complain about it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from engine.config import UserError
        from loratui.client import HostGone

        if isinstance(error, HostGone):
            print(f"{error}\nno run is touched by that; look at it with `loratui runs list`", file=sys.stderr)
            sys.exit(1)
        if not isinstance(error, UserError):
            raise
        for problem in error.problems:
            print(problem, file=sys.stderr)
        sys.exit(2)
