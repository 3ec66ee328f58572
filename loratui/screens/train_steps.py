"""The steps of the train panel that ask something first: submitting, presets, finding, lists, files.

Each is one coroutine on the panel, run in a worker.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.config import PRESETS, UserError, check
from engine.config.structs import Train
from engine.protocol.messages import Submit, Submitted
from loratui.draft import Setup, differences, place, split_unknown
from loratui.draft_fields import Leaf, leaves, spelled
from loratui.screens import train_files
from loratui.screens.dialogs import Reader
from loratui.screens.finder import Entry
from loratui.screens.train_rows import TOP, counted, words
from loratui.screens.train_text import TextEdit, list_as_text, list_from_text

if TYPE_CHECKING:
    from loratui.screens.train import TrainPanel


async def submit(panel: TrainPanel, first: bool) -> None:
    """Check everything and hand the run to the queue; where something is wrong, go to the first of it."""
    bench, keeper = panel.bench, panel.keeper
    if not await keeper.settle():
        bench.say(f"not started: {keeper.trouble or 'the form was changed meanwhile'}", "warning")
        return
    if _refused(panel, "not started"):
        return
    config = keeper.setup.checked[0]
    submitted: Submitted | None = await bench.tried(
        "jobs.submit", Submit(config=msgspec.to_builtins(config), first=first)
    )
    if submitted is None:
        return
    bench.say(f"{submitted.id} is {'next in' if first else 'at the end of'} the queue")
    if first:
        bench.open_run(submitted.id)


def _refused(panel: TrainPanel, what: str) -> bool:
    """Whether there are problems; they are said then, and the cursor goes to the first."""
    problems = panel.keeper.problems()
    if not problems:
        return False
    order = list(leaves())
    places = [place(problem.field) for problem in problems]
    first = min(range(len(problems)), key=lambda index: order.index(places[index]) if places[index] in order else -1)
    panel.pane.reveal(places[first])
    field = problems[first].field or problems[first].where
    panel.bench.say(f"{what}: {counted(len(problems), 'problem')}. {field}: {words(problems[first])}", "error")
    return True


async def choose_preset(panel: TrainPanel) -> None:
    """Choose a preset by what it has different; ask what becomes of the user's changes, if there are any."""
    setup = panel.keeper.setup
    entries = [Entry(preset, preset, _told(setup, preset)) for preset in PRESETS]
    chosen = await panel.bench.choose("Preset", entries, "what the values start from")
    if chosen is None or chosen == setup.preset:
        return
    keep = True
    lost = _lost(setup, chosen)
    if lost:
        answers = [
            Entry(f"keep {'it' if len(lost) == 1 else 'them'}", True, "over the preset's values"),
            Entry("drop", False, "every field as the preset has it; u brings them back"),
        ]
        title = f"You changed {counted(len(lost), 'field')}"
        keep = await panel.bench.choose(title, answers, ", ".join(lost))
    if keep is not None:
        panel.keeper.apply(panel.keeper.setup.with_preset(chosen, keep))


def _told(setup: Setup, preset: str) -> str:
    if preset == setup.preset:
        return "as it is"
    return ", ".join(f"{leaf.path} {spelled(value) or 'empty'}" for leaf, value in differences(setup, preset))


def _lost(setup: Setup, preset: str) -> list[str]:
    """The changes that another preset would take away if they were not kept."""
    dropped = setup.with_preset(preset, keep=False)
    return [path for path in setup.changed_paths() if not dropped.changed(path)]


async def find_field(panel: TrainPanel) -> None:
    """Go to a field by letters of its dotted name or its help."""
    entries = [Entry(leaf.path, leaf.path, leaf.help) for leaf in leaves().values()]
    chosen = await panel.bench.choose("Find a field", entries)
    if chosen is not None:
        panel.pane.reveal(chosen)


async def reset_section(panel: TrainPanel, section: str) -> None:
    """Give all fields of a section the preset's values, after asking."""
    setup = panel.keeper.setup
    text = ", ".join(setup.changed_paths(section)) or "what can't be read there"
    if await panel.bench.confirm(f"Reset {section or TOP}?", f"{text}\nu brings it back.", "Reset"):
        panel.keeper.apply(panel.keeper.setup.without_section(section))


async def edit_list(panel: TrainPanel, leaf: Leaf) -> None:
    """Edit a list as text."""
    setup = panel.keeper.setup

    def wrong(text: str) -> list[str]:
        try:
            tried = setup.with_value(leaf.path, list_from_text(leaf, text))
        except ValueError as error:
            return [str(error)]
        found = [problem for problem in tried.checked[1] if place(problem.field) == leaf.path]
        return [f"{problem.field.removeprefix(leaf.path)} {words(problem)}" for problem in found]

    note = f"{leaf.help}; {'one a line' if leaf.way == 'lines' else 'as TOML'}"
    text = await panel.app.push_screen_wait(
        TextEdit(leaf.path, note, list_as_text(leaf, setup.value(leaf.path)), wrong)
    )
    if text is not None:
        panel.keeper.apply(panel.keeper.setup.with_value(leaf.path, list_from_text(leaf, text)))


async def write_file(panel: TrainPanel) -> None:
    """Write the config to a TOML file, if it is one."""
    bench, setup = panel.bench, panel.keeper.setup
    if _refused(panel, "not written"):
        return
    default = str(Path.cwd() / f"{setup.project}.toml")
    chosen = await bench.ask("Write the config to", value=default, check=train_files.wrong_target)
    if chosen is None:
        return
    path = Path(os.path.expanduser(chosen))
    if path.exists() and not await bench.confirm("Overwrite this file?", str(path), "Overwrite"):
        return
    try:
        text = await asyncio.to_thread(train_files.config_text, setup.table)
        await asyncio.to_thread(train_files.write, path, text)
    except UserError as error:
        bench.say(str(error), "error")
    except OSError as error:
        bench.say(f"{path}: {error.strerror or error}", "error")
    else:
        bench.say(f"wrote {path}")


async def open_file(panel: TrainPanel) -> None:
    """Take the values of a config file in place of the draft's, which one step of undo brings back."""
    chosen = await train_files.choose_file(panel.app)
    if chosen is None:
        return
    try:
        table = await asyncio.to_thread(train_files.read, chosen)
    except UserError as error:
        panel.bench.say(str(error), "error")
        return
    known, unknown = split_unknown(table)
    panel.keeper.apply(panel.keeper.setup.with_file(known))
    panel.bench.say(f"{chosen} is in the form; u brings back what was there")
    if unknown:
        problems = [one for one in check(Train, table, lambda _: chosen)[1] if one.field in unknown]
        lines = [f"✗ {one.field}\n  {one.advice}" for one in problems]
        text = f"{chosen} has fields that are not known. They were left out.\n\n" + "\n".join(lines)
        await panel.app.push_screen_wait(Reader(counted(len(unknown), "unknown field"), text))
