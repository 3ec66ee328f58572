"""What the keys of the panel of adapters do, and why some of it can't be done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.protocol.browse import AdapterHeader, FileRef
from engine.protocol.messages import Control
from loratui import figures
from loratui.screens import adapters_steps
from loratui.screens.adapters_blend import STEP, Blend, parsed, wrong_weight
from loratui.screens.adapters_words import name_of
from loratui.widgets.filter_line import FilterLine

if TYPE_CHECKING:
    from loratui.bench import Bench
    from loratui.screens.adapters_jobs import Tasks


class Actions:
    """One method a verb of the table; the panel has the rest."""

    bench: Bench
    blend: Blend
    tasks: Tasks
    selected: AdapterHeader | None
    """The file at the cursor."""
    everything: bool
    """Whether all of the metadata is shown."""

    def why_not(self, verb: str) -> str:
        found = self.selected
        match verb:
            case "search" | "reload" | "extract":
                return ""
            case "save":
                return self.blend.why_not()
            case "clear":
                return "" if len(self.blend) else "the blend is empty"
            case "compare" if len(self.blend) == 2:
                return ""
            case "merge" if len(self.blend):
                return self.blend.why_not()
            case "stop":
                return "" if self.tasks.last and self.tasks.last.live else "no job runs here"
            case "open":
                return "" if self.tasks.last else "no job was started here"
        if found is None:
            return "no file is selected"
        if verb in ("heavier", "lighter", "weight") and found.path not in self.blend:
            return "the file is not in the blend: space puts it in"
        readable = verb in ("details", "copy", "trash") or not found.problem or found.path in self.blend
        return "" if readable else "the file can't be read"

    def do_search(self) -> None:
        self.query_one(FilterLine).open()

    def do_details(self) -> None:
        self.everything = not self.everything
        self.tell()

    def do_copy(self) -> None:
        self.bench.copy(*self.copied())

    def do_reload(self) -> None:
        self.outdated()

    async def do_trash(self) -> None:
        found = self.selected
        text = f"{found.path}\n{figures.size(found.bytes)}. It is moved to the workspace's trash."
        if not await self.bench.confirm("Trash this file?", text, "Trash"):
            return
        thrown = await self.bench.tried("adapters.remove", FileRef(path=found.path))
        if thrown:
            self.bench.say(f"{name_of(found)} is in the trash: {thrown.trash}")
            self.blend.forget(found.path)
            self.reweighed()
            self.outdated()

    # --- the blend ----------------------------------------------------------------------------------------------------

    def do_blend(self) -> None:
        self.blend.toggle(self.selected)
        self.reweighed()

    def do_heavier(self) -> None:
        self._weigh(STEP)

    def do_lighter(self) -> None:
        self._weigh(-STEP)

    def _weigh(self, more: float) -> None:
        path = self.selected.path
        self.blend.weigh(path, self.blend.weight(path) + more)
        self.reweighed()

    async def do_weight(self) -> None:
        path, name = self.selected.path, name_of(self.selected)
        text = "How much of it is in the blend: 1 is as trained, less than 0 takes it away."
        typed = await self.bench.ask(f"Weight of {name}", text, f"{self.blend.weight(path):g}", wrong_weight)
        if typed is not None and path in self.blend:
            self.blend.weigh(path, parsed(typed))
            self.reweighed()

    def do_clear(self) -> None:
        self.blend.clear()
        self.reweighed()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def do_save(self) -> None:
        await adapters_steps.save_blend(self)

    async def do_convert(self) -> None:
        await adapters_steps.convert(self, self.selected)

    async def do_compare(self) -> None:
        await adapters_steps.compare(self, self.selected)

    async def do_extract(self) -> None:
        await adapters_steps.extract(self)

    async def do_merge(self) -> None:
        await adapters_steps.merge(self, self.selected)

    async def do_stop(self) -> None:
        task = self.tasks.last
        if await self.bench.confirm(f"Stop {task.name}?", "It ends, and nothing is written.", "Stop") and task.live:
            await self.bench.tried("jobs.control", Control(job=task.id, name="stop"))

    def do_open(self) -> None:
        self.bench.open_run(self.tasks.last.id)
