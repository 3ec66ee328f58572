"""`loratui queue`: the runs that wait for a device."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Look at the waiting runs and change their order.", no_args_is_help=True, rich_markup_mode=None)

Run = Annotated[str, typer.Argument(help="Id of the run, or the end of it.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the waiting runs, next first."""
    from engine.protocol.messages import Nothing

    _tell("queue.list", Nothing(), as_json)


@app.command()
def move(
    run: Run, position: Annotated[int, typer.Argument(help="New place, from 1.", min=1)], as_json: Json = False
) -> None:
    """Move a waiting run to another place."""
    from engine.protocol.messages import Move

    _tell("queue.move", Move(job=run, position=position), as_json)


@app.command()
def cancel(run: Run, as_json: Json = False) -> None:
    """Take a waiting run out of the queue. Its folder stays; `runs retry` puts it back."""
    from engine.protocol.messages import JobRef

    _tell("queue.cancel", JobRef(job=run), as_json)


def _tell(method: str, params, as_json: bool) -> None:
    from loratui.cli import runs
    from loratui.client import connect

    with connect() as host:
        queue = host.call(method, params)
    if as_json:
        runs._print_json([runs._plain(job) for job in queue.jobs])
    elif queue.jobs:
        runs.table(queue.jobs)
    else:
        typer.echo("nothing waits", err=True)
