"""`loratui config`: write, show and check config files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write, show and check config files.", no_args_is_help=True, rich_markup_mode=None)

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set one field, such as training.steps=500.")
]


@app.command()
def init(
    base: Annotated[str, typer.Option(help="Base model: tiny, a folder, a hub id or a file.")],
    preset: Annotated[str, typer.Option(help="Starting point: dreambooth or style.")] = "dreambooth",
    data: Annotated[str, typer.Option(help="Folder of images.")] = "images",
    class_prompt: Annotated[str, typer.Option(help="What class images show, such as 'a cat'.")] = "",
    instance_prompt: Annotated[str, typer.Option(help="Caption of images that have none.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: stdout.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
    assignments: Set = None,
) -> None:
    """Write a config to start from, every field with its meaning, range and unit."""
    import sys

    from engine.config import Problem, Train, UserError, to_toml
    from loratui import requests

    tokens = instance_prompt or (f"ohwx {class_prompt}" if class_prompt else "")
    request, told = requests.from_preset(preset, base, [{"path": data, "class_tokens": tokens}], class_prompt)
    for line in told:
        print(line, file=sys.stderr)
    for assignment in assignments or []:
        request.set(assignment)
    text = to_toml(request.checked(Train), comments=True)
    if out is None:
        typer.echo(text, nl=False)
        return
    if out.exists() and not force:
        raise UserError(
            Problem(where=str(out), expected="no file of that name", found="one", advice="--force overwrites it")
        )
    out.write_text(text, encoding="utf-8")
    print(f"wrote {out}", file=sys.stderr)


@app.command()
def show(
    config: Annotated[Path, typer.Argument(help="Config file.")],
    assignments: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Print a config with everything filled in, as a run would be given it."""
    import msgspec

    from engine.config import to_toml
    from loratui import requests

    request = requests.from_file(config)
    for assignment in assignments or []:
        request.set(assignment)
    checked = request.checked()
    typer.echo(msgspec.json.encode(checked).decode() if as_json else to_toml(checked).rstrip())


@app.command()
def validate(
    config: Annotated[Path, typer.Argument(help="Config file.")],
    assignments: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as JSON on stdout.")] = False,
) -> None:
    """Check a config: every problem at once. Exit code 0 or 2."""
    import sys

    import msgspec

    from engine.config import UserError
    from loratui import requests

    problems = ()
    try:
        request = requests.from_file(config)
        for assignment in assignments or []:
            request.set(assignment)
        request.checked()
    except UserError as error:
        problems = error.problems
    if as_json:
        typer.echo(msgspec.json.encode({"ok": not problems, "problems": problems}).decode())
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        if not problems:
            print(f"{config}: ok", file=sys.stderr)
    raise typer.Exit(2 if problems else 0)


@app.command()
def schema(kind: Annotated[str, typer.Argument(help="train or generate.")] = "train") -> None:
    """Print the JSON schema of a kind of config, for editors."""
    import msgspec

    from engine.config import KINDS, Problem, UserError, json_schema

    if kind not in KINDS:
        raise UserError(Problem(where="loratui config schema", expected=f"one of {', '.join(KINDS)}", found=repr(kind)))
    typer.echo(msgspec.json.format(msgspec.json.encode(json_schema(KINDS[kind])), indent=2).decode())
