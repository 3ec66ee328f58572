"""`python -m docs.make [keys] [pictures]`: the page of keys, and a picture of every panel, made from what they show.

The pictures are of the app itself, run without a terminal on a workspace that is built from one recorded run (in
`recording`: a training of the embedded base on four pictures of an octopus). They need resvg-py, which the extra `test`
brings, and a monospaced font with braille and block characters: DejaVu Sans Mono is looked for.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import tomli_w

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RECORDING = DOCS / "recording"
SUBJECTS = ROOT / "engine" / "tiny" / "subjects"
SIZE = (120, 36)
FONT = "DejaVu Sans Mono"
DEADLINE = 20.0


def keys() -> str:
    """The page of keys, from the table of actions."""
    from loratui import actions

    lines = [
        "# Keys",
        "",
        "Made by `python -m docs.make keys` from the table of actions. `?` in the app shows the same for where you",
        "are, with your own keys; `:` finds every action by name. Inside a text field every character types.",
        "",
        "`settings.toml` in the workspace changes keys by the action's name. Commas separate several; an empty text",
        "takes the key away.",
        "",
        "```toml",
        "[app.keys]",
        '"monitor.pause" = "P,ctrl+t"',
        '"app.mouse" = "M"',
        "```",
    ]
    for target, title in actions.TARGETS.items():
        lines += ["", f"## {title}", "", "| key | does | name |", "|---|---|---|"]
        for one in actions.of(target):
            shown = " ".join(f"`{key}`" for key in actions.shown(one.keys).split(" ") if key).replace("|", "\\|")
            lines.append(f"| {shown or 'palette'} | {one.label}: {one.help} | `{one.id}` |")
    return "\n".join(lines) + "\n"


def workspace(folder: Path) -> tuple[str, float]:
    """A workspace with the recorded run and one that waits. Gives the run's id and the moment of the pictures."""
    from engine import journal, protocol

    events = list(protocol.JournalReader(RECORDING / "events.jsonl").read())
    began, ended = events[0].t, events[-1].t
    identity = f"{time.strftime('%Y%m%d-%H%M', time.gmtime(began))}-octopus"
    project = folder / "projects" / "octopus"
    directory = project / "runs" / identity
    shutil.copytree(RECORDING, directory)
    status = protocol.Status(device="cpu")
    for event in events:
        journal.summarise(status, event)
    (directory / protocol.STATUS).write_bytes(status.to_bytes())
    _submit(directory, "octopus", began)
    for step in (100, 200):
        (directory / "checkpoints").mkdir(exist_ok=True)
        shutil.copy(RECORDING / "octopus.safetensors", directory / "checkpoints" / f"octopus-step{step:06}.safetensors")
    images = shutil.copytree(SUBJECTS / "octopus", folder.parent / "pictures" / "octopus")
    config = {
        "model": {"base": "tiny"},
        "dataset": {"subsets": [{"path": str(images)}]},
        "prior": {"prompt": "a squid on a white background", "images": 16},
        "sampling": {"prompts": ["a ohwx octopus on a blue background"]},
    }
    draft = tomli_w.dumps({"preset": "dreambooth", "config": config})
    (project / "draft.toml").write_text(draft, encoding="utf-8")
    _failed(project / "runs", began - 5400)
    (folder / "projects" / "hedgehog" / "runs").mkdir(parents=True)
    return identity, ended + 240


def _failed(runs: Path, began: float) -> None:
    from engine import protocol

    directory = runs / f"{time.strftime('%Y%m%d-%H%M', time.gmtime(began))}-rank-64"
    directory.mkdir()
    cause = "out of memory at step 31 of 1200"
    status = protocol.Status(
        state="failed", step=31, steps=1200, loss=0.09, device="cpu", attempt=1, started=began, updated=began + 60,
        cause=cause,
    )  # fmt: skip
    (directory / protocol.STATUS).write_bytes(status.to_bytes())
    advice = ["training.batch = 1 with training.accumulate = 4 needs a quarter of it"]
    end = protocol.End(t=began + 60, state="failed", code=1, cause=cause, advice=advice, step=31)
    (directory / protocol.JOURNAL).write_bytes(protocol.encode(end))
    _submit(directory, "rank 64", began)


def _submit(directory: Path, name: str, when: float) -> None:
    from engine import protocol

    submission = protocol.Submission(
        kind="train", name=name, interpreter="python", environment={}, submitted=when, host="box", needs_device=True
    )
    (directory / protocol.SUBMISSION).write_bytes(msgspec.json.encode(submission))


async def pictures(folder: Path, draw: Callable[[str, str], None]) -> None:
    """Run the app on a workspace in `folder`, and give `draw` the SVG of each panel with its name."""
    from engine.config.settings import App
    from engine.protocol.messages import DeviceFigures
    from loratui import actions
    from loratui.app import Workbench

    identity, now = workspace(folder)
    figures = DeviceFigures(t=now, cpu=12.0, memory_used=3 << 30, memory_total=16 << 30, disk_free=182 << 30)
    app = Workbench(folder, App(), now=lambda: now)
    async with app.run_test(size=SIZE) as pilot:

        async def until(so: Callable[[], object], what: str) -> None:
            deadline = time.monotonic() + DEADLINE
            while not so():
                if time.monotonic() > deadline:
                    raise TimeoutError(what)
                await pilot.pause(0.02)

        def screen() -> str:
            return "\n".join(strip.text for strip in app.screen._compositor.render_strips())

        def sees(*texts: str) -> Awaitable[None]:
            return until(lambda: all(text in screen() for text in texts), f"{texts!r} in\n{screen()}")

        await until(lambda: app.board.told and app.devices, "the host's first words")
        app.open_project("octopus")
        waits = {
            "projects": ["octopus", "out of memory", "✓ done"],
            "dataset": ["blue.png", "a ohwx octopus", "✓ no problems"],
            "train": ["this run", "4 images"],
            "monitor": ["300/300", "a squid"],
            "adapters": ["3 files", "kohya"],
        }
        for name in actions.PANELS:
            if name == "monitor":
                await app.open_run_now(identity)
            else:
                await app.bring(name)
            await sees(*waits[name])
            if name == "adapters":
                await pilot.press("space", "j", "space", "minus", "minus", "minus", "minus")
                await sees("✓ ComfyUI")
            await pilot.pause(0.5)  # pictures are decoded beside the event loop
            app.devices = figures
            app.news()
            await pilot.pause()
            draw(name, app.export_screenshot(title="loratui"))


def drawn(svg: str) -> bytes:
    """The PNG of a screen."""
    import resvg_py

    files = [str(path) for path in Path("/usr/share/fonts").rglob("DejaVuSansMono*.ttf")]
    if not files:
        print(f"{FONT} is not installed: Debian's fonts-dejavu-core has it", file=sys.stderr)
        raise SystemExit(1)
    return bytes(resvg_py.svg_to_bytes(svg_string=svg.replace("Fira Code", FONT), zoom=1, font_files=files))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.make", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["keys", "pictures", []], help="keys, pictures; all without a name")
    what = parser.parse_args().what or ["keys", "pictures"]
    if "keys" in what:
        (DOCS / "keys.md").write_text(keys(), encoding="utf-8")
    if "pictures" in what:
        os.environ.update(TZ="UTC", TERM="xterm-256color", COLORTERM="truecolor")
        time.tzset()
        (DOCS / "pictures").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="loratui-docs-") as home:
            os.environ.update(HOME=home, LORATUI_WORKSPACE=f"{home}/loratui", LORATUI_RUNTIME_DIR=f"{home}/locks")

            def draw(name: str, svg: str) -> None:
                (DOCS / "pictures" / f"{name}.png").write_bytes(drawn(svg))

            asyncio.run(pictures(Path(home) / "loratui", draw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
