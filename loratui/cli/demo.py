"""`loratui demo`: the whole way in a few minutes, on the embedded base: images of a subject that it has never seen, a
trained adapter, and pictures from before and after side by side."""

from __future__ import annotations

from typing import Annotated

import typer

SUBJECT = "octopus"
CLASS_PROMPT = "a squid on a white background"
"""The nearest thing that the base does know, which prior preservation keeps as it is."""
PROMPTS = ["a ohwx octopus on a red background", "a ohwx octopus on a pink background", "a cat on a blue background"]
"""Two of the subject on colours that are not in its images, and one of something else, which should stay as it was."""


def demo(
    steps: Annotated[int, typer.Option(help="Length of the run; 0: the preset's.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the run.", min=0)] = 42,
) -> None:
    """Train an unseen subject on the embedded base and show what changed."""
    import sys
    from importlib.resources import files

    from rich.console import Console

    from engine.config import Train
    from loratui import requests, runs
    from loratui.follow import follow

    images = files("engine") / "tiny" / "subjects" / SUBJECT
    request, told = requests.from_preset("dreambooth", "tiny", [{"path": str(images)}], CLASS_PROMPT)
    request.lay(
        {
            "name": f"{SUBJECT}-demo",
            "project": "demo",
            "training": {"seed": seed} | ({"steps": steps} if steps else {}),
            "sampling": {"prompts": PROMPTS, "every": 0},
        },
        "loratui demo",
    )
    console = Console(stderr=True, highlight=False)
    for line in told:
        console.print(line, markup=False)
    console.print(f"images: {images}", markup=False, soft_wrap=True)
    directory = runs.submit(request.checked(Train))
    outcome = follow(directory, 0, console=console)
    if outcome.code == 0:
        _show(console, outcome)
        file = outcome.directory / outcome.end.outputs[0]
        _what_next(console, file)
        print(file)
    sys.stdout.flush()
    raise typer.Exit(outcome.code)


def _show(console, outcome) -> None:
    """The first and the last pictures of each prompt, base beside adapter."""
    from PIL import Image

    from loratui.pictures import side_by_side

    last = max(sample.step for sample in outcome.samples)
    width = min(console.width, 66)
    for index, prompt in enumerate(PROMPTS):
        chosen = {sample.step: sample for sample in outcome.samples if sample.index == index}
        pictures = [
            (title, Image.open(outcome.directory / chosen[step].path))
            for title, step in (("base", 0), ("with the adapter", last))
        ]
        console.print(prompt, markup=False, style="bold")
        console.print(side_by_side(pictures, width))


def _what_next(console, file) -> None:
    for line in (
        f"adapter: {file}",
        "it loads in diffusers, ComfyUI and AUTOMATIC1111; the pictures are in samples/ beside it. Try next:",
        f"  loratui generate --base tiny --prompt '{PROMPTS[0]}' --cfg 4 --adapter {file}:0.6 -o octopus.png --show",
        "  loratui config init --base tiny --data YOUR_IMAGES -o run.toml && loratui train run.toml",
        "  loratui train --preset dreambooth --base SD15_FOLDER_OR_FILE --data YOUR_IMAGES --class-prompt 'a cat'",
    ):
        console.print(line, markup=False, soft_wrap=True)
