"""`loratui adapter inspect`, `convert` and `edit-metadata`: what adapter files are, become, and say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loratui.cli.adapter import Force, Json, Out, Precision, answer_of

File = Annotated[Path, typer.Argument(help="Adapter file.")]


def inspect(
    file: File,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show every layer: norm, effective rank and spectrum of its ΔW.")
    ] = False,
    base: Annotated[
        str, typer.Option("--base", help="Base model, on which the norms of a DoRA depend; for --layers.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show what an adapter file is: format, family, layers, tokens, metadata, and which programs load it."""
    from loratui.cli import adapter_tables, file_tables

    answer = answer_of("inspect", {"path": str(file), "layers": layers, "base": base}, as_json)
    if as_json:
        return
    for line in file_tables.summary(answer):
        typer.echo(line)
    if answer.parts:
        adapter_tables.show(file_tables.parts(answer))
    if answer.layers:
        adapter_tables.show(file_tables.layers(answer))
    if answer.loads:
        adapter_tables.show(file_tables.loads(answer.loads))
    for line in file_tables.entries(answer.metadata):
        typer.echo(line)
    for notice in answer.notices:
        typer.echo(notice, err=True)


def convert(
    file: File,
    out: Out,
    to: Annotated[str, typer.Option("--to", help="Format: kohya, peft or cloneofsimo.")] = "kohya",
    precision: Precision = "keep",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an adapter in another format, its tokens beside it, and say which programs load it.

    The file is read back and compared before it gets its name. Numbers stay as they are unless --precision says so.
    """
    from loratui.cli import adapter_tables, file_tables

    request = {"path": str(file), "out": str(out), "to": to, "precision": precision, "force": force}
    answer = answer_of("convert", request, as_json)
    if as_json:
        return
    if answer.loads:
        adapter_tables.show(file_tables.loads(answer.loads))
    for token, path in answer.tokens.items():
        if path != answer.out or not answer.parts:
            typer.echo(f"token {file_tables.printable(token)}: {path}")
    for notice in answer.notices:
        typer.echo(notice, err=True)
    typer.echo(answer.out)


def edit_metadata(
    file: File,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=TEXT", help="Set an entry; may be repeated.")
    ] = None,
    removed: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="Take an entry away; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; without it --force changes FILE.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Change the metadata of a .safetensors file; its tensors stay as they are."""
    request = {
        "path": str(file),
        "out": str(out) if out else "",
        "set": assignments or [],
        "remove": removed or [],
        "force": force,
    }
    answer = answer_of("edit_metadata", request, as_json)
    if not as_json:
        typer.echo(answer.out)
