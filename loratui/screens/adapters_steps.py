"""The steps of the panel of adapters that ask something and then start a job: blend, convert, compare, extract, merge.

Each is one coroutine on the panel, run in a worker. What is asked for is checked as far as paths and numbers go; what
lies in the files is the operation's to judge, and it says so in its job.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any

from engine.protocol.browse import AdapterHeader, Adapters, AdaptersRef, Draft, ProjectRef
from loratui.screens.adapters_blend import default_name
from loratui.screens.adapters_words import name_of
from loratui.screens.finder import Entry
from loratui.screens.paths import AskPath, absolute
from loratui.widgets.columns import clean

if TYPE_CHECKING:
    from loratui.bench import Bench
    from loratui.screens.adapters import AdaptersPanel

ADAPTERS = (".safetensors", ".pt")
MODELS = (".safetensors", ".ckpt")
OWN, MODELS_OWN = "adapters", "models"
"""Folders of a project for what no run has trained; the host lists the first with the runs."""
FORMATS = {
    "kohya": "AUTOMATIC1111, Forge, ComfyUI, diffusers",
    "peft": "diffusers and PEFT",
    "cloneofsimo": "the first programs, for SD1 and SD2",
}
LISTED = 1000


async def save_blend(panel: AdaptersPanel) -> None:
    """Write the blend as one adapter."""
    blend = panel.blend
    out = await _ask_out(panel.bench, "Save the blend", "An adapter file.", default_name(blend.parts), ".safetensors")
    if out is None:
        return
    text = f"Empty: exact, {blend.outlook()}.\nA number such as 16: that rank. Below 1, such as 0.99: the share of "
    text += "each layer's energy to keep."
    measure = await _ask_measure(panel.bench, text, "", required=False)
    if measure is not None:
        how = "svd" if measure else "exact"  # a rank asks for an approximation, of whatever has no exact form too
        await _start(panel, "compose", out, {"adapters": blend.uses(), "how": how} | measure)


async def convert(panel: AdaptersPanel, found: AdapterHeader) -> None:
    """Write a file in another format."""
    entries = [Entry(name, name, "as it is" if name == found.format else who) for name, who in FORMATS.items()]
    to = await panel.bench.choose(f"Convert {name_of(found)} to", entries)
    if to is None:
        return
    stem = f"{os.path.splitext(os.path.basename(found.path))[0]}-{to}"
    out = await _ask_out(panel.bench, f"Convert to {to}", "An adapter file.", stem, ".safetensors")
    if out is not None:
        await _start(panel, "convert", out, {"path": found.path, "to": to})


async def compare(panel: AdaptersPanel, found: AdapterHeader | None) -> None:
    """Compare the two files of the blend, or one with another that is asked for."""
    paths = [part.path for part in panel.blend.parts]
    if len(paths) != 2:
        second = await _choose_other(panel.bench, found)
        if second is None:
            return
        paths = [found.path, second]
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    request = {"first": paths[0], "second": paths[1]}
    await panel.tasks.start("diff", _job_name(f"{stems[0]} - {stems[1]}"), request)


async def _choose_other(bench: Bench, found: AdapterHeader) -> str | None:
    asked = AdaptersRef(folders=bench.library, project=bench.project, limit=LISTED)
    listed: Adapters | None = await bench.tried("adapters.list", asked)
    if listed is None:
        return None
    others = [one for one in listed.adapters if one.path != found.path and not one.problem]
    entries = [Entry(name_of(one), one.path, " ".join((one.family, one.format))) for one in others]
    return await bench.choose(f"Compare {name_of(found)} with", entries)


async def extract(panel: AdaptersPanel) -> None:
    """Make an adapter of what a tuned model adds to its base."""
    bench = panel.bench
    text = "ΔW = tuned − base. A fine-tuned model: a diffusers folder, a .safetensors or .ckpt file."
    tuned = await _ask_model(bench, "Extract from which model?", text, "")
    if not tuned:
        return
    text = "The model that it was tuned from, of the same layers."
    base = await _ask_model(bench, "Tuned from which base?", text, await _drafted_base(bench))
    if not base:
        return
    stem = os.path.splitext(os.path.basename(tuned.rstrip("/")))[0] + "-extracted"
    out = await _ask_out(bench, "Write the adapter to", "An adapter file.", stem, ".safetensors")
    if out is None:
        return
    text = "A number such as 32: the rank of every layer. Below 1, such as 0.95: the share of each layer's energy "
    text += "(squared Frobenius norm) to keep, at the ranks that it takes."
    measure = await _ask_measure(bench, text, "32", required=True)
    if measure is not None:
        await _start(panel, "extract", out, {"tuned": tuned, "base": base} | measure)


async def merge(panel: AdaptersPanel, found: AdapterHeader | None) -> None:
    """Write a base with the blend in its weights, or with the file at the cursor where there is no blend."""
    bench, blend = panel.bench, panel.blend
    uses = blend.uses() if len(blend) else [{"path": found.path, "weight": 1.0}]
    name = default_name(blend.parts) if len(blend) else os.path.splitext(name_of(found))[0]
    what = ", ".join(f"{clean(os.path.basename(use['path']))} at {use['weight']:g}" for use in uses)
    text = f"W + Σ weight · ΔW, with {what}.\nA diffusers folder, a .safetensors or .ckpt file, a hub id."
    base = await _ask_model(bench, "Merge into which base?", text, await _drafted_base(bench))
    if not base:
        return
    suffix = os.path.splitext(base)[1].lower() if await asyncio.to_thread(os.path.isfile, base) else ""
    kind = f"A {suffix} file, as the base is." if suffix else "A folder, as the base is."
    stem = f"{os.path.splitext(os.path.basename(base.rstrip('/')))[0]}-{name}"
    out = await _ask_out(bench, "Write the merged model to", kind, stem, suffix, MODELS_OWN)
    if out is not None:
        await _start(panel, "merge", out, {"base": base, "adapters": uses})


async def _start(panel: AdaptersPanel, operation: str, out: tuple[str, bool], request: dict[str, Any]) -> None:
    path, force = out
    name = _job_name(os.path.splitext(os.path.basename(path))[0])
    await panel.tasks.start(operation, name, request | {"out": path, "force": force})


def _job_name(text: str) -> str:
    """A name that a job may have: plain, of at most 80 characters."""
    plain = "".join(letter if letter.isprintable() and letter not in "/\\" else "-" for letter in text)
    return plain.lstrip(". ")[:80] or "operation"


async def _drafted_base(bench: Bench) -> str:
    """The base of the project's draft, which is likely to be the one that is meant."""
    if not bench.project:
        return ""
    draft: Draft | None = await bench.tried("drafts.read", ProjectRef(name=bench.project))
    base = draft.config.get("model", {}).get("base", "") if draft else ""
    return base if isinstance(base, str) else ""


# --- paths and numbers ------------------------------------------------------------------------------------------------


def home_of(bench: Bench, folder: str = OWN) -> str:
    """Where results go unless another place is typed: a folder of the project, else the first of the library."""
    project = next((one.path for one in bench.board.projects if one.name == bench.project), "")
    if project:
        return os.path.join(project, folder)
    return bench.library[0] if bench.library and folder == OWN else os.getcwd()


async def _ask_out(
    bench: Bench, title: str, text: str, stem: str, suffix: str, folder: str = OWN
) -> tuple[str, bool] | None:
    """Where to write, and whether over what is there: that is asked. None: nowhere."""
    home = home_of(bench, folder)
    value = os.path.join(home, f"{stem}{suffix}")

    async def check(path: str) -> str:
        return await asyncio.to_thread(wrong_out, path, suffix, home)

    path = await _ask_path(bench, AskPath(title, f"{text} ⇥ completes.", value, check, ADAPTERS if suffix else ()))
    if not path:
        return None
    there = await asyncio.to_thread(os.path.lexists, path)
    if there:
        kind = "file" if suffix else "folder"
        text = f"{clean(path)}\nWhat is there now is lost once the new {kind} is complete."
        if not await bench.confirm(f"Overwrite this {kind}?", text, "Overwrite"):
            return None
    if os.path.dirname(path) == home:
        with contextlib.suppress(OSError):  # the operation will say it
            await asyncio.to_thread(os.makedirs, home, exist_ok=True)
    return path, there


def wrong_out(path: str, suffix: str, home: str) -> str:
    """What is wrong with a path to write to; `home` need not be there yet. An empty suffix: a folder."""
    name, folder = os.path.basename(path), os.path.dirname(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        mode = 0
    if suffix and not name.lower().endswith(suffix):
        return f"the name of a {suffix} file"
    if not suffix and name.lower().endswith(MODELS):
        return "a folder, as the base is"
    if mode and bool(suffix) == stat.S_ISDIR(mode):
        return f"{clean(name)} is a {'folder' if suffix else 'file'}"
    return "" if folder == home or os.path.isdir(folder) else f"there is no folder {clean(folder)}"


async def _ask_model(bench: Bench, title: str, text: str, value: str) -> str:
    async def check(path: str) -> str:
        there = not path.startswith("/") or await asyncio.to_thread(os.path.exists, path)
        return "" if there else "there is nothing of that name"

    return await _ask_path(bench, AskPath(title, f"{text} ⇥ completes.", value, check, MODELS, meant=base_of)) or ""


def base_of(text: str) -> str:
    """What was typed for a model: a path where it looks like one or is there, else a name such as a hub id."""
    typed = text.strip()
    path = absolute(typed)
    return path if typed.startswith(("/", "~", ".")) or os.path.exists(path) else typed


async def _ask_path(bench: Bench, asked: AskPath) -> str | None:
    return await bench.push_screen_wait(asked)  # type: ignore[attr-defined]


async def _ask_measure(bench: Bench, text: str, value: str, required: bool) -> dict[str, Any] | None:
    def check(typed: str) -> str:
        return "" if measure_of(typed, required) is not None else "a rank from 1 to 4096, or a share of up to 1.0"

    typed = await bench.ask("Rank or energy", text, value, check)
    return None if typed is None else measure_of(typed, required)


def measure_of(typed: str, required: bool) -> dict[str, Any] | None:
    """A rank or an energy as requests have them; nothing where none is `required`; None for what is neither."""
    text = typed.strip()
    if not text:
        return None if required else {}
    with contextlib.suppress(ValueError):
        if text.isascii() and text.isdigit():
            return {"rank": int(text)} if 1 <= int(text) <= 4096 else None
        energy = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        return {"energy": energy} if 0 < energy <= 1 else None
    return None
