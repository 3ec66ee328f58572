"""`loratui train` and `loratui resume`: run a job, follow it, exit with its code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set one field, such as training.steps=500.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Queue it, print its id, and leave it to itself.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and no progress.")]


def train(
    config: Annotated[Path | None, typer.Argument(help="Config file: TOML, YAML or JSON.")] = None,
    preset: Annotated[str, typer.Option(help="Starting point when there is no config file: dreambooth or style.")] = "",
    base: Annotated[str, typer.Option(help="Base model: tiny, a folder, a hub id or a file.")] = "",
    data: Annotated[Path | None, typer.Option(help="Folder of images.")] = None,
    class_data: Annotated[Path | None, typer.Option(help="Folder of class images, for prior preservation.")] = None,
    instance_prompt: Annotated[str, typer.Option(help="Caption of images that have none, such as 'ohwx cat'.")] = "",
    class_prompt: Annotated[str, typer.Option(help="What class images show, such as 'a cat'; they are drawn.")] = "",
    name: Annotated[str, typer.Option(help="Name of the run and of its file.")] = "",
    project: Annotated[str, typer.Option(help="Project that the run belongs to.")] = "",
    assignments: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and show the arithmetic, then stop.")
    ] = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Train an adapter: `train CONFIG`, or `train --preset dreambooth --base B --data DIR`."""
    import sys

    from engine.config import Problem, Request, Train, UserError
    from loratui import requests, runs
    from loratui.follow import follow

    if (config is None) == (not preset and data is None and not base):
        raise UserError(
            Problem(
                where="loratui train",
                expected="either a config file, or --preset with --base and --data",
                found="both" if config else "neither",
                advice="`loratui config init` writes a config file to start from",
            )
        )
    request: Request
    if config is not None:
        request = requests.from_file(config)
    else:
        missing = [option for option, value in (("--base", base), ("--data", data)) if not value]
        if missing:
            raise UserError(
                Problem(where="loratui train", expected="--base and --data beside --preset", found=f"no {missing[0]}")
            )
        tokens = instance_prompt or (f"ohwx {class_prompt}" if class_prompt else "")
        subsets = [{"path": str(data), "class_tokens": tokens}]
        if class_data:
            subsets.append({"path": str(class_data), "is_reg": True, "class_tokens": class_prompt})
        drawn = "" if class_data else class_prompt
        request, told = requests.from_preset(preset or "dreambooth", base, subsets, drawn)
        for line in told:
            print(line, file=sys.stderr)
    for field, value in (("name", name), ("project", project)):
        if value:
            request.lay({field: value}, f"--{field}")
    for assignment in assignments or []:
        request.set(assignment)
    checked = request.checked(Train)
    if dry_run:
        raise typer.Exit(_rehearse(checked))
    directory = runs.submit(checked)
    print(f"run: {directory}", file=sys.stderr)
    if detach:
        typer.echo(directory.name)
        return
    _finish(follow(directory, 0, how="quiet" if as_json else "auto"), as_json)


def resume(
    run: Annotated[str, typer.Argument(help="Id of the run, the end of it, or the run's folder.")],
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped, killed or failed, from its last saved state."""
    import sys
    from pathlib import Path

    from loratui import runs
    from loratui.follow import Outcome, follow, journal_size

    details = runs.show(run)
    directory = Path(details.summary.path)
    if details.summary.state == "done":
        print(f"{directory.name} is done: nothing is left to do", file=sys.stderr)
        outcome = Outcome(directory, state="done")
        for event in _events(directory):
            outcome.note(event)
        _finish(outcome, as_json)
    offset = journal_size(directory)
    runs.retry(details.summary.path)
    if detach:
        typer.echo(directory.name)
        return
    _finish(follow(directory, offset, how="quiet" if as_json else "auto"), as_json)


def _events(directory: Path):
    from engine import protocol

    return protocol.JournalReader(directory / protocol.JOURNAL).read()


def _rehearse(config) -> int:
    """Tell what a run would be. Returns the exit code."""
    import sys

    from engine import protocol
    from loratui import runs
    from loratui.telling import describe

    events, log = runs.rehearse(config)
    end = next((event for event in events if isinstance(event, protocol.End)), None)
    for event in events:
        if isinstance(event, protocol.Notice | protocol.PlanMade | protocol.Refused):
            print(describe(event), file=sys.stderr)
    if end is None or end.state == "failed":
        print(end.cause if end else log, file=sys.stderr)
    return end.code if end else protocol.FAILED


def _finish(outcome, as_json: bool) -> None:
    """Print the result (data, so on stdout) and exit with the worker's code."""
    import json

    end = outcome.end
    files = [str(outcome.directory / name) for name in (end.outputs if end else [])]
    if as_json:
        result = {
            "id": outcome.directory.name,
            "path": str(outcome.directory),
            "state": outcome.state,
            "step": end.step if end else 0,
            "steps": outcome.plan.steps if outcome.plan else 0,
            "loss": outcome.last.loss if outcome.last else None,
            "cause": end.cause if end else "",
            "outputs": files,
        }
        typer.echo(json.dumps(result))
    else:
        for file in files:
            typer.echo(file)
    raise typer.Exit(outcome.code)
