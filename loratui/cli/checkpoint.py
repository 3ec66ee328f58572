"""`loratui checkpoint`: whole models from one layout into the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Convert whole models.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def checkpoint() -> None:
    """Convert whole models."""


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A diffusers folder, or a .safetensors or .ckpt file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="What to write: a .safetensors or .ckpt file, else a diffusers folder.")
    ],
    precision: Annotated[str, typer.Option("--precision", help="Number format: keep, fp16, bf16 or fp32.")] = "keep",
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and no progress.")
    ] = False,
) -> None:
    """Write a Stable Diffusion 1, 2 or XL model as a single file or as a diffusers folder, bit for bit, offline.

    What the other layout can't keep is told.
    """
    from loratui.cli.adapter import answer_of

    request = {"path": str(source), "out": str(out), "precision": precision, "force": force}
    answer = answer_of("convert_checkpoint", request, as_json)
    if not as_json:
        tell_written(answer, "tensors")


def tell_written(answer: Any, counted: str) -> None:
    """Tell of a whole model that was written: where on stdout, what on stderr."""
    from loratui import figures

    for note in answer.notes:
        typer.echo(note, err=True)
    parts = ", ".join(f"{part} {count}" for part, count in answer.tensors.items())
    typer.echo(f"{answer.family}, {figures.size(answer.bytes)}; {counted}: {parts}", err=True)
    typer.echo(answer.out)
