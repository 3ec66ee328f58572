"""`loratui adapter`: exact algebra on adapter files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Read, compose, compare, extract and convert adapters.", no_args_is_help=True, rich_markup_mode=None
)

Out = Annotated[Path, typer.Option("--out", "-o", help="File to write (.safetensors).")]
Rank = Annotated[int, typer.Option("--rank", help="Rank of every layer; 0: not fixed.", min=0)]
Energy = Annotated[
    float, typer.Option("--energy", help="Share of each layer's squared norm to keep; 0: not asked for.", min=0, max=1)
]
How = Annotated[
    str, typer.Option("--how", help="Layers without an exact low-rank form: exact (refuse them) or svd (approximate).")
]
Base = Annotated[str, typer.Option("--base", help="Base model, which DoRA layers need.")]
Precision = Annotated[str, typer.Option("--precision", help="Number format: keep, fp16, bf16 or fp32.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Layers = Annotated[bool, typer.Option("--layers", help="Show every layer.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and no progress.")]


@app.command()
def compose(
    adapters: Annotated[list[str], typer.Argument(metavar="FILE[:WEIGHT]…", help="Adapters and their weights.")],
    out: Out,
    rank: Rank = 0,
    energy: Energy = 0.0,
    how: How = "exact",
    base: Base = "",
    precision: Precision = "keep",
    force: Force = False,
    layers: Layers = False,
    as_json: Json = False,
) -> None:
    """Write Σ weight · ΔW of several adapters as one: exact, or at the rank that is asked for."""
    from loratui.cli.generate import parse_adapter

    request = {
        "adapters": [parse_adapter(text) for text in adapters],
        "out": str(out),
        "rank": rank,
        "energy": energy,
        "how": how,
        "base": base,
        "precision": precision,
        "force": force,
    }
    _make("compose", request, layers, as_json)


@app.command()
def interpolate(
    first: Annotated[Path, typer.Argument(help="Adapter at t = 0.")],
    second: Annotated[Path, typer.Argument(help="Adapter at t = 1.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")],
    steps: Annotated[int, typer.Option("--steps", help="Files to write, both ends included.", min=2)] = 5,
    rank: Rank = 0,
    energy: Energy = 0.0,
    how: How = "exact",
    base: Base = "",
    precision: Precision = "keep",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write adapters on the way from one to another: (1 − t) · ΔW₁ + t · ΔW₂."""
    request = {
        "first": str(first),
        "second": str(second),
        "out": str(out),
        "steps": steps,
        "rank": rank,
        "energy": energy,
        "how": how,
        "base": base,
        "precision": precision,
        "force": force,
    }
    answer = answer_of("interpolate", request, as_json)
    for file, t in answer.files.items() if not as_json else ():
        typer.echo(f"t = {t:.3f}  {file}")


@app.command()
def resize(
    file: Annotated[Path, typer.Argument(help="Adapter file.")],
    out: Out,
    rank: Rank = 0,
    energy: Energy = 0.0,
    base: Base = "",
    precision: Precision = "keep",
    force: Force = False,
    layers: Layers = False,
    as_json: Json = False,
) -> None:
    """Write an adapter at other ranks: the best approximation of each ΔW."""
    request = {
        "path": str(file),
        "out": str(out),
        "rank": rank,
        "energy": energy,
        "base": base,
        "precision": precision,
        "force": force,
    }
    _make("resize", request, layers, as_json)


@app.command()
def extract(
    tuned: Annotated[str, typer.Option("--tuned", help="Fine-tuned model: a diffusers folder or a file.")],
    base: Annotated[str, typer.Option("--base", help="Model that it was tuned from.")],
    out: Out,
    rank: Rank = 0,
    energy: Energy = 0.0,
    error: Annotated[
        float, typer.Option("--error", help="Relative error allowed in each layer; 0: not asked for.", min=0, max=1)
    ] = 0.0,
    clamp: Annotated[
        float, typer.Option("--clamp", help="Quantile of magnitudes beyond which factors are cut; 1: none.", max=1)
    ] = 1.0,
    precision: Annotated[str, typer.Option("--precision", help="Number format: fp16, bf16 or fp32.")] = "fp16",
    force: Force = False,
    layers: Layers = False,
    as_json: Json = False,
) -> None:
    """Write what a fine-tuned model adds to its base, ΔW = tuned − base, as an adapter."""
    if not as_json:
        typer.echo(f"ΔW = tuned − base = {tuned} − {base}", err=True)
    request = {
        "tuned": tuned,
        "base": base,
        "out": str(out),
        "rank": rank,
        "energy": energy,
        "error": error,
        "clamp": clamp,
        "precision": precision,
        "force": force,
    }
    _make("extract", request, layers, as_json)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="Adapter file.")],
    second: Annotated[Path, typer.Argument(help="Adapter file.")],
    base: Base = "",
    layers: Layers = False,
    as_json: Json = False,
) -> None:
    """Show how far two adapters are apart: norms of ΔW, their distance and cosine."""
    from loratui.cli import adapter_tables

    answer = answer_of("diff", {"first": str(first), "second": str(second), "base": base}, as_json)
    if not as_json:
        adapter_tables.show(adapter_tables.difference(answer, layers))


@app.command()
def merge(
    base: Annotated[str, typer.Argument(help="Base model: tiny, a diffusers folder, a hub id or a file.")],
    adapters: Annotated[list[str], typer.Argument(metavar="FILE[:WEIGHT]…", help="Adapters and their weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="What to write: a folder for a folder, a file for a file.")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a base with adapters in its weights, W + Σ weight · ΔW; all else in it stays as it is."""
    from loratui.cli.checkpoint import tell_written
    from loratui.cli.generate import parse_adapter

    uses = [parse_adapter(text) for text in adapters]
    answer = answer_of("merge", {"base": base, "adapters": uses, "out": str(out), "force": force}, as_json)
    if not as_json:
        tell_written(answer, "layers changed")


@app.command("fit-weights")
def fit_weights(
    adapters: Annotated[
        list[str], typer.Argument(metavar="FILE[:WEIGHT]…", help="Adapters, and the weights to begin with.")
    ],
    base: Annotated[str, typer.Option("--base", help="Base model: tiny, a folder, a hub id or a file.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of captioned images to learn from.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Blend file to write (.toml).")],
    per_block: Annotated[bool, typer.Option("--per-block", help="A weight for every block of the model.")] = False,
    steps: Annotated[int, typer.Option("--steps", help="Steps to learn.", min=1)] = 100,
    batch: Annotated[int, typer.Option("--batch", help="Images in a step.", min=1)] = 1,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate of the weights.")] = 0.02,
    pull: Annotated[float, typer.Option("--pull", help="How strongly weights are held where they began.")] = 0.01,
    seed: Annotated[int, typer.Option("--seed", help="Decides every draw.", min=0)] = 42,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Learn how much of each adapter makes pictures like these, and write that as a blend.

    `generate --adapter` and `adapter compose` take a blend wherever they take an adapter.
    """
    from loratui.cli import adapter_tables
    from loratui.cli.generate import parse_adapter

    request = {
        "adapters": [parse_adapter(text) for text in adapters],
        "base": base,
        "data": str(data),
        "out": str(out),
        "per_block": per_block,
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "pull": pull,
        "seed": seed,
        "device": device,
        "force": force,
    }
    answer = answer_of("fit_weights", request, as_json)
    if not as_json:
        adapter_tables.show(adapter_tables.weights(answer))
        typer.echo(f"loss {answer.loss_before:.6f} before, {answer.loss_after:.6f} after", err=True)
        typer.echo(answer.out)


def _make(name: str, request: dict[str, Any], layers: bool, as_json: bool) -> None:
    """Do an operation that makes an adapter, and tell of it."""
    from loratui import figures
    from loratui.cli import adapter_tables
    from loratui.cli.file_tables import printable

    answer = answer_of(name, request, as_json)
    if as_json:
        return
    adapter_tables.show(adapter_tables.made(answer, layers))
    for token, new in answer.renamed.items():
        typer.echo(f"token {printable(token)} is now {printable(new)}", err=True)
    for token, path in answer.tokens.items():
        typer.echo(f"token {printable(token)}: {path}")
    typer.echo(f"{figures.size(answer.bytes)}, {len(answer.layers)} layers", err=True)
    typer.echo(answer.out)


def answer_of(name: str, request: dict[str, Any], as_json: bool) -> Any:
    """The answer of an operation; the command ends here where there is none. As JSON it is printed at once."""
    from loratui import operations

    outcome = operations.run(name, request, "notices" if as_json else "auto")
    if outcome.answer is None:
        raise typer.Exit(outcome.code)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(outcome.answer))
    return outcome.answer
