"""`loratui dataset`: captions for folders of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engine.protocol.operations import CaptionedImage, Tag

app = typer.Typer(help="Caption datasets.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def dataset() -> None:
    """Caption datasets."""


@app.command()
def caption(
    folder: Annotated[Path, typer.Argument(help="Folder of images, or of folders named like `10_ohwx cat`.")],
    scorer: Annotated[str, typer.Option("--scorer", help="What finds the words: tiny, the embedded base's own.")],
    top: Annotated[int, typer.Option("--top", help="Names to tell of each image.", min=1, max=32)] = 3,
    write: Annotated[
        bool, typer.Option("--write", help="Write captions into .txt files beside the images that have none.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --write: also in place of captions that are there.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and no progress.")
    ] = False,
) -> None:
    """Say what each image of a folder shows: the nearest names, the colour behind them, size and place.

    The scorer `tiny` knows the emoji that the embedded base has learned, and nothing else. Without --write nothing is
    written.
    """
    from loratui.cli.adapter import answer_of

    request = {"path": str(folder), "scorer": scorer, "top": top, "write": write, "force": force}
    answer = answer_of("caption", request, as_json)
    if as_json:
        return
    for image in answer.images:
        for line in _told(image):
            typer.echo(line)
    kept = sum(bool(image.before) and not image.written for image in answer.images)
    counts = f"{len(answer.images)} images, {kept} with captions that stay as they are"
    written = f", {sum(image.written for image in answer.images)} captions written" if write else "; nothing written"
    unreadable = f", {len(answer.unreadable)} can't be read" if answer.unreadable else ""
    typer.echo(counts + unreadable + written, err=True)


def _told(image: CaptionedImage) -> Iterator[str]:
    from loratui.cli.file_tables import printable

    yield f"{printable(image.path)}: {printable(image.caption)}"
    tags = [", ".join(map(_tag, image.names)), _tag(image.colour)]
    yield "  " + "; ".join([*tags, _tag(image.place)] if image.place.text else tags)
    if image.before and not image.written:
        yield f"  its caption: {printable(image.before)}"


def _tag(tag: Tag) -> str:
    from loratui.cli.file_tables import printable

    return f"{printable(tag.text)} {tag.score:.2f}"
