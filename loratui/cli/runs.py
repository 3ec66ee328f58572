"""`loratui runs`: look at runs, follow them, and command the live ones."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Look at runs, follow and command them.", no_args_is_help=True, rich_markup_mode=None)

Run = Annotated[str, typer.Argument(help="Id of the run, the end of it, or the run's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]
SIGNS = {
    "queued": "…", "running": "●", "paused": "◐", "released": "◐", "stalled": "?", "done": "✓", "stopped": "■",
    "failed": "✗", "refused": "✗", "crashed": "✗", "elsewhere": "↗",
}  # fmt: skip


@app.command("list")
def list_(
    project: Annotated[str, typer.Option(help="Only this project's.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    from engine.protocol.messages import ListJobs
    from loratui.client import connect

    with connect() as host:
        jobs = host.call("jobs.list", ListJobs(project=project, limit=limit)).jobs
    if as_json:
        _print_json([_plain(job) for job in jobs])
    elif jobs:
        table(jobs)
    else:
        typer.echo("no runs yet", err=True)


@app.command()
def show(run: Run, as_json: Json = False) -> None:
    """Show one run: its state, its files, its config, and what went wrong."""
    from engine.protocol.messages import JobRef
    from loratui.client import connect

    with connect() as host:
        details = host.call("jobs.show", JobRef(job=run))
    if as_json:
        import msgspec

        _print_json(_plain(details.summary) | {"config": details.config} | {
            name: msgspec.to_builtins(getattr(details, name))
            for name in ("outputs", "checkpoints", "samples", "bytes", "log")
        })  # fmt: skip
        return
    table([details.summary])
    summary = details.summary
    for line in (
        f"path: {summary.path} ({details.bytes / 1e6:,.1f} MB)",
        *([f"cause: {summary.cause}"] if summary.cause else []),
        *(f"  {advice}" for advice in summary.advice),
        *(f"output: {path}" for path in details.outputs),
        *(f"checkpoint: {path}" for path in details.checkpoints),
        f"samples: {len(details.samples)}",
        *(["", "the end of its log:", details.log] if details.log else []),
        "",
        details.config.rstrip(),
    ):
        typer.echo(line)


@app.command()
def watch(
    run: Run,
    plain: Annotated[bool, typer.Option("--plain", help="One line an event: for logs and screen readers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Stream the journal as JSON lines on stdout.")] = False,
) -> None:
    """Follow a run from its beginning. Ctrl-C leaves it running."""
    from loratui import follow

    raise typer.Exit(follow.watch(run, "json" if as_json else "plain" if plain else "auto"))


@app.command()
def pause(
    run: Run,
    release: Annotated[bool, typer.Option("--release", help="Save, end, and give the device back.")] = False,
) -> None:
    """Hold a live run still. It keeps its device unless --release."""
    _command(run, "pause", release=release)


@app.command()
def resume(run: Run) -> None:
    """Let a paused run go on, or put a stopped, failed or crashed one back into the queue."""
    _command(run, "resume")


@app.command()
def stop(run: Run) -> None:
    """Save and stop a live run; take a waiting one out of the queue."""
    _command(run, "stop")


@app.command()
def checkpoint(run: Run) -> None:
    """Save adapter and state of a live run now."""
    _command(run, "checkpoint")


@app.command()
def sample(
    run: Run, prompt: Annotated[str, typer.Argument(help="What to draw; nothing: the run's own prompts.")] = ""
) -> None:
    """Draw a picture with a live run as it is now."""
    _command(run, "sample", prompt=prompt)


@app.command("set")
def set_(
    run: Run,
    field: Annotated[str, typer.Argument(help="optimizer.lr_unet or optimizer.lr_text.")],
    value: Annotated[float, typer.Argument(help="Its new value.")],
) -> None:
    """Change a rate of a live run; the change becomes part of its training state."""
    _command(run, "set", field=field, value=value)


@app.command()
def retry(run: Run) -> None:
    """Put a run that ended back into the queue; it goes on from its last state."""
    from engine.protocol.messages import JobRef
    from loratui.client import connect

    with connect() as host:
        submitted = host.call("jobs.retry", JobRef(job=run))
    typer.echo(submitted.id)


@app.command()
def remove(
    run: Run,
    force: Annotated[bool, typer.Option("--force", help="Do not ask; stop the run first if it is live.")] = False,
) -> None:
    """Move a run to the workspace's trash."""
    from engine.protocol.messages import JobRef, Remove
    from loratui.client import connect

    with connect() as host:
        details = host.call("jobs.show", JobRef(job=run))
        if not force:
            files = len(details.checkpoints) + len(details.outputs) + len(details.samples)
            question = f"move {details.summary.id} ({files} files, {details.bytes / 1e6:,.1f} MB) to the trash?"
            if not typer.confirm(question, err=True):
                raise typer.Exit(1)
        removed = host.call("jobs.remove", Remove(job=details.summary.path, force=force))
    typer.echo(removed.trash)


@app.command()
def logs(
    run: Run,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines from the end; 0: all.", min=0)] = 40,
) -> None:
    """Print the end of a run's log: what its worker and its libraries printed."""
    from pathlib import Path

    from engine import protocol
    from engine.protocol.messages import JobRef
    from loratui.client import connect

    with connect() as host:
        path = Path(host.call("jobs.show", JobRef(job=run)).summary.path) / protocol.LOG
    text = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in text[-lines:] if lines else text:
        typer.echo(line)


def _command(run: str, name: str, **arguments) -> None:
    """Send a command and wait until the job has acknowledged it."""
    from engine.protocol.messages import Control
    from loratui.client import connect
    from loratui.follow import acknowledgement

    with connect() as host:
        told, taken = acknowledgement(host, Control(job=run, name=name, **arguments))
    typer.echo(told, err=True)
    raise typer.Exit(0 if taken else 1)


def table(jobs) -> None:
    """Runs as lines on stdout, in columns."""
    rows = [
        (
            job.id,
            f"{SIGNS.get(job.state, ' ')} {job.state}" + (f" #{job.position}" if job.position else ""),
            f"{job.step}/{job.steps}" if job.steps else "",
            "" if job.loss is None else f"{job.loss:.4f}",
            "" if job.validation is None else f"{job.validation:.4f}",
            job.project,
            job.cause.splitlines()[0][:60] if job.cause else "",
        )
        for job in jobs
    ]
    head = ("run", "state", "step", "loss", "fixed", "project", "")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _plain(job) -> dict:
    """A summary as scripts get it: every field, always there."""
    return {name: getattr(job, name) for name in job.__struct_fields__}


def _print_json(data) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())
