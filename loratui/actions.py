"""The one table of what can be done in the app: bindings, footer, palette, `?` and the page of keys come from it.

An action is named `target.verb`: the target is a panel, a kind of widget or `app`; who handles it has a method
`do_<verb>` (panels and the app) or `action_<verb>` (widgets). Users remap keys by these names in `settings.toml`. To
add an action, add a row here and the method there; a test fails on either without the other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.config import Problem

if TYPE_CHECKING:
    from textual.binding import Binding

PANELS = ("projects", "dataset", "train", "monitor", "adapters")
"""In the order of their numbers."""


@dataclass(frozen=True)
class Action:
    """What can be done, how it is called and by which keys."""

    id: str
    keys: str
    """As Textual names them, separated by commas; empty: only in the palette."""
    label: str
    """A word or two, for the footer and the palette."""
    help: str
    """What it does, a clause without a full stop."""
    footer: bool = False
    """Whether the footer of its panel names it: six at most."""
    destructive: bool = False
    """It takes something away, and asks first."""

    @property
    def target(self) -> str:
        return self.id.partition(".")[0]

    @property
    def verb(self) -> str:
        return self.id.partition(".")[2]


TARGETS = {
    "app": "Everywhere",
    "projects": "Projects",
    "dataset": "Dataset",
    "train": "Train",
    "monitor": "Monitor",
    "adapters": "Adapters",
    "list": "Lists",
    "chart": "Charts",
    "grid": "Sample pictures",
    "log": "Log",
    "dialog": "Dialogs",
}
"""What a target is called, in the order of the help."""

ACTIONS = (
    Action("app.projects", "1", "projects", "what there is, what runs, what went wrong"),
    Action("app.dataset", "2", "dataset", "pictures and captions of the project"),
    Action("app.train", "3", "train", "set a run up and start it"),
    Action("app.monitor", "4", "monitor", "watch a run: losses, rates, samples, log"),
    Action("app.adapters", "5", "adapters", "adapter files of the project and the library"),
    Action("app.palette", ":,ctrl+p", "palette", "every action by name, those that can't be done now with their reason"),
    Action("app.find", "f", "find", "any project, run, image or adapter by a few letters of its name"),
    Action("app.jump", "semicolon", "jump", "put a letter on everything that can be focused, and go where you type"),
    Action("app.copy", "y", "copy", "copy the name or path of what is selected, also over SSH (OSC 52)"),
    Action("app.next", "tab", "next", "the next part of the panel; on a narrow screen the side that is folded away"),
    Action("app.previous", "shift+tab", "previous", "the part before"),
    Action("app.theme", "", "theme…", "choose colours, previewed as you move"),
    Action("app.mouse", "", "mouse", "take the mouse, or leave it to the terminal for selecting text"),
    Action("app.messages", "", "messages", "what was said in the corner of the screen, once more"),
    Action("app.help", "?", "help", "the keys of where you are, searchable"),
    Action("app.suspend", "ctrl+z", "suspend", "go back to the shell; `fg` brings the app back"),
    Action("app.quit", "q", "quit", "close the app; runs and the queue go on"),
    # Projects
    Action("projects.new", "n", "new", "make a project", footer=True),
    Action("projects.open", "enter", "open", "open the project, or the run in the monitor", footer=True),
    Action("projects.retry", "r", "retry", "put a run that has ended back into the queue", footer=True),
    Action("projects.trash", "d", "trash", "move the project or run to the trash", footer=True, destructive=True),
    Action("projects.rename", "R", "rename", "give the project another name", footer=True),
    Action("projects.search", "slash", "search", "show only what holds these words", footer=True),
    Action("projects.earlier", "K,shift+up", "earlier", "move a waiting run towards the head of the queue"),
    Action("projects.later", "J,shift+down", "later", "move a waiting run towards the end of the queue"),
    Action("projects.unqueue", "X", "unqueue", "take a waiting run out of the queue, and keep it"),
    Action("projects.stop", "s", "stop…", "save a live run and stop it", destructive=True),
    # Dataset
    Action("dataset.edit", "e,enter", "edit caption", "write the caption of this image", footer=True),
    Action("dataset.undo", "u", "undo", "take back the last change of a caption, also one of an earlier day", footer=True),
    Action("dataset.redo", "U", "redo", "do again what was undone"),
    Action("dataset.search", "slash", "filter", "show images whose name or caption has these words; -word: has not", footer=True),
    Action("dataset.check", "c", "check", "look at every image as training will, and list what is wrong", footer=True),
    Action("dataset.problem", "n", "next problem", "go to the next image with a problem; where there are none, with a note", footer=True),
    Action("dataset.problem_before", "N", "problem before", "go to the one before"),
    Action("dataset.findings", "v", "findings", "all that the check found; choosing one goes to its image"),
    Action("dataset.add", "a", "add folder", "add a folder of images to the project", footer=True),
    Action("dataset.remove", "d", "remove folder", "take a folder out of the project; its files stay", destructive=True),
    Action("dataset.settings", "o", "folder settings", "repeats, caption prefix, class images and the like of a folder"),
    Action("dataset.next_folder", "right_square_bracket", "next folder", "show the next folder of the project"),
    Action("dataset.folder_before", "left_square_bracket", "folder before", "show the folder before"),
    # Train
    Action("train.start", "S", "start", "check everything and put the run at the head of the queue", footer=True),
    Action("train.queue", "Q", "queue", "check everything and put the run at the end of the queue", footer=True),
    Action("train.preset", "p", "preset…", "choose the method that the values start from", footer=True),
    Action("train.find", "slash", "find field", "go to a field by a few letters of its name", footer=True),
    Action("train.reset", "x", "reset", "give the field, or all of the section, the preset's value", footer=True),
    Action("train.write", "W", "write TOML", "write the config to a file", footer=True),
    Action("train.edit", "e,enter", "edit", "change the field; enter keeps what was typed, escape gives it up"),
    Action("train.forward", "right,l,space", "next value", "the next value of a choice; unfold a section"),
    Action("train.back", "left,h", "value before", "the value before; fold a section"),
    Action("train.undo", "u", "undo", "take back the last change of the form"),
    Action("train.changes", "v", "changes", "show only what differs from the preset, and what is wrong"),
    Action("train.advanced", "A", "advanced", "show the fields that are folded away, or fold them"),
    Action("train.open", "O", "open TOML", "read a config from a TOML, YAML or JSON file"),
    # Monitor
    Action("monitor.pause", "P", "pause", "hold the run, or let a paused one go on; the device is kept", footer=True),
    Action("monitor.release", "G", "release…", "save the run, end it and give its device back; retry goes on", destructive=True),
    Action("monitor.checkpoint", "C", "checkpoint", "write an adapter and the training state now", footer=True),
    Action("monitor.sample", "S", "sample", "draw the run's sample pictures now", footer=True),
    Action("monitor.rate", "R", "rate…", "change a learning rate of the live run", footer=True),
    Action("monitor.stop", "X", "stop…", "save the run and end it", footer=True, destructive=True),
    Action("monitor.log", "Z", "log", "the log in place of the charts, and back", footer=True),
    Action("monitor.events", "e", "events", "all that the run said, but for its steps"),
    Action("monitor.retry", "r", "retry", "put a run that was left off back into the queue"),
    Action("monitor.run", "o", "other run…", "watch another run"),
    Action("monitor.newest", "full_stop", "newest", "let the cursor follow the newest step again"),
    Action("monitor.smoother", "right_square_bracket", "smoother", "smooth the loss more"),
    Action("monitor.rougher", "left_square_bracket", "rougher", "smooth the loss less"),
    Action("monitor.logarithmic", "Y", "log scale", "losses on a logarithmic axis, and back"),
    # Adapters
    Action("adapters.search", "slash", "filter", "show files that have these words: name, family, trigger; -word: have not", footer=True),
    Action("adapters.blend", "space", "blend", "put the file into the blend, or take it out", footer=True),
    Action("adapters.heavier", "plus", "heavier", "raise the file's weight in the blend by 0.05"),
    Action("adapters.lighter", "minus", "lighter", "lower the file's weight in the blend by 0.05"),
    Action("adapters.weight", "equals_sign,W", "weight…", "type the file's weight in the blend"),
    Action("adapters.save", "B", "save blend", "write the blend as one adapter: exact, or at a rank or energy", footer=True),
    Action("adapters.clear", "C", "clear blend", "take all files out of the blend"),
    Action("adapters.convert", "c", "convert", "write the file in the format of other programs", footer=True),
    Action("adapters.compare", "v", "compare", "cosine and norms of the blend's two files, or of this and another", footer=True),
    Action("adapters.extract", "x", "extract", "make an adapter of what a tuned model adds to its base", footer=True),
    Action("adapters.merge", "m", "merge", "write a base with the blend, or the file, in its weights"),
    Action("adapters.details", "i,enter", "details", "all of the file's metadata, and back"),
    Action("adapters.copy", "", "copy path", "copy the file's path"),
    Action("adapters.trash", "d", "trash", "move the file to the trash", destructive=True),
    Action("adapters.reload", "r", "reload", "look into the folders again"),
    Action("adapters.stop", "X", "stop job…", "end the job of the last line, with nothing written", destructive=True),
    Action("adapters.open", "o", "open job", "show the job of the last line in the monitor"),
    # Widgets
    Action("list.up", "up,k", "up", "one row up"),
    Action("list.down", "down,j", "down", "one row down"),
    Action("list.page_up", "pageup,ctrl+u", "page up", "a page up"),
    Action("list.page_down", "pagedown,ctrl+d", "page down", "a page down"),
    Action("list.first", "home,g", "first", "the first row"),
    Action("list.last", "end,G", "last", "the last row"),
    Action("list.choose", "enter", "choose", "take the row"),
    Action("chart.left", "left,h", "left", "cursor one step back"),
    Action("chart.right", "right,l", "right", "cursor one step on"),
    Action("chart.far_left", "shift+left,H", "far left", "cursor a tenth of the chart back"),
    Action("chart.far_right", "shift+right,L", "far right", "cursor a tenth of the chart on"),
    Action("chart.first", "home", "first", "cursor to the first step"),
    Action("chart.last", "end", "last", "cursor to the last step"),
    Action("grid.up", "up,k", "up", "the prompt above"),
    Action("grid.down", "down,j", "down", "the prompt below"),
    Action("grid.left", "left,h", "left", "an earlier step"),
    Action("grid.right", "right,l", "right", "a later step"),
    Action("grid.first", "home", "first", "the first step"),
    Action("grid.last", "end", "last", "the last step"),
    Action("grid.open", "enter", "open", "the picture as large as the screen allows"),
    Action("log.up", "up,k", "up", "one line up; stops following"),
    Action("log.down", "down,j", "down", "one line down"),
    Action("log.left", "left,h", "left", "the beginning of long lines"),
    Action("log.right", "right,l", "right", "the rest of long lines"),
    Action("log.page_up", "pageup,ctrl+u", "page up", "a page up"),
    Action("log.page_down", "pagedown,ctrl+d", "page down", "a page down"),
    Action("log.first", "home,g", "first", "the beginning"),
    Action("log.last", "end,G", "follow", "the end, and follow it"),
    Action("log.search", "slash", "search", "find text in the log"),
    Action("log.next", "n", "next", "the next hit"),
    Action("log.previous", "N", "previous", "the hit before"),
    Action("dialog.close", "escape", "close", "leave without doing anything"),
)  # fmt: skip

BY_ID = {action.id: action for action in ACTIONS}
NEVER = "f35"
"""A key that no keyboard sends, for actions whose keys were taken away."""


def of(target: str) -> Iterator[Action]:
    """The actions of a target, in the order of the table."""
    return (action for action in ACTIONS if action.target == target)


def bindings(target: str, does: str = "{verb}") -> list[Binding]:
    """Textual's bindings of a target. `does`: the action string, in which {id} and {verb} stand for the action's."""
    from textual.binding import Binding

    return [
        Binding(
            action.keys or NEVER, does.format(id=action.id, verb=action.verb), action.label, show=False, id=action.id
        )
        for action in of(target)
    ]


def keymap(wanted: Mapping[str, str], origin: str) -> tuple[dict[str, str], list[Problem]]:
    """The user's keys for Textual, and what is wrong with them: unknown actions are passed over and said."""
    taken, problems = {}, []
    for name, keys in wanted.items():
        if name in BY_ID:
            taken[name] = ",".join(key for key in (part.strip() for part in keys.split(",")) if key) or NEVER
            continue
        nearest = difflib.get_close_matches(name, BY_ID, n=1, cutoff=0.5)
        advice = f"did you mean `{nearest[0]}`?" if nearest else "`?` in the app lists them"
        problems.append(
            Problem(where=origin, field=f"app.keys.{name}", expected="the name of an action", found=name, advice=advice)
        )
    return taken, problems


_NAMES = {
    "slash": "/", "semicolon": ";", "full_stop": ".", "question_mark": "?", "colon": ":", "enter": "⏎", "escape": "esc",
    "right_square_bracket": "]", "left_square_bracket": "[", "up": "↑", "down": "↓", "left": "←", "right": "→",
    "pageup": "PgUp", "pagedown": "PgDn", "shift+up": "⇧↑", "shift+down": "⇧↓", "shift+left": "⇧←",
    "shift+right": "⇧→", "shift+tab": "⇧tab", "plus": "+", "minus": "-", "comma": ",", "equals_sign": "=",
}  # fmt: skip


def shown(keys: str) -> str:
    """Keys as a person reads them: `/`, `^p`, `↑ k`. Empty for none."""
    parts = [key for key in keys.split(",") if key and key != NEVER]
    return " ".join(_NAMES.get(key, "^" + key[5:] if key.startswith("ctrl+") else key) for key in parts)
