"""`loratui generate`: pictures from a base and adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    base: Annotated[str, typer.Option(help="Base model: tiny, a folder, a hub id or a file.")],
    prompt: Annotated[str, typer.Option(help="What to draw.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file; several pictures are numbered beside it.")],
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="FILE[:STRENGTH]", help="Adapter file and strength; may be repeated.")
    ] = None,
    negative: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the first picture; each further one takes the next.")] = 42,
    count: Annotated[int, typer.Option(help="How many pictures.")] = 1,
    steps: Annotated[int, typer.Option(help="Sampler steps.")] = 25,
    guidance_scale: Annotated[float, typer.Option("--guidance-scale", "--cfg", help="Guidance; 1: none.")] = 7.0,
    width: Annotated[int, typer.Option(help="Width in pixels; 0: the base's.")] = 0,
    height: Annotated[int, typer.Option(help="Height in pixels; 0: the base's.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the pictures in the terminal too.")] = False,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set one field, such as model.clip_skip=2.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and no progress.")
    ] = False,
) -> None:
    """Draw pictures. The files say how they were made."""
    import json

    from engine.config import Generate, Problem, Request, UserError
    from loratui import runs
    from loratui.follow import follow

    request = Request()
    picture = {
        "prompt": prompt,
        "negative": negative,
        "out": str(out),
        "seed": seed,
        "count": count,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "width": width or "auto",
        "height": height or "auto",
    }
    adapters = [parse_adapter(text) for text in adapter or []]
    request.lay({"kind": "generate", "model": {"base": base}, "adapters": adapters, "picture": picture}, "command line")
    for assignment in assignments or []:
        request.set(assignment)
    config = request.checked(Generate)
    taken = [path for path in expected_files(Path(config.picture.out), config.picture.count) if path.exists()]
    if taken and not force:
        raise UserError(
            Problem(
                where="--out",
                expected="a file that is not there yet",
                found=str(taken[0]),
                advice="--force overwrites it",
            )
        )
    directory = runs.submit(config)
    outcome = follow(directory, 0, how="quiet" if as_json else "auto")
    files = list(outcome.end.outputs) if outcome.end else []
    if as_json:
        result = {"id": directory.name, "path": str(directory), "state": outcome.state, "outputs": files}
        typer.echo(json.dumps(result))
    else:
        for file in files:
            typer.echo(file)
    if show and files:
        _show(files)
    raise typer.Exit(outcome.code)


def parse_adapter(text: str) -> dict:
    """`FILE:0.8` → path and strength; a file whose very name is the text has strength 1."""
    path, colon, weight = text.rpartition(":")
    if colon and not Path(text).exists():
        try:
            return {"path": path, "weight": float(weight)}
        except ValueError:
            pass
    return {"path": text, "weight": 1.0}


def expected_files(out: Path, count: int) -> list[Path]:
    return [out] if count == 1 else [out.with_stem(f"{out.stem}-{number:04d}") for number in range(1, count + 1)]


def _show(files: list[str]) -> None:
    from PIL import Image
    from rich.console import Console

    from loratui.pictures import side_by_side

    console = Console(stderr=True)
    console.print(side_by_side([(Path(file).name, Image.open(file)) for file in files], console.width))
