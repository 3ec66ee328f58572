"""What can be asked of the run that is shown, why it can't be now, and what became of what was asked.

A command is sent by the host, read by the run (its journal acknowledges it) and then carried out, which may take until
the end of a step or of a pause. The line of commands says which of these it has come to.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass

from rich.text import Text

from engine import protocol
from engine.config import Optimizer, check
from loratui import figures
from loratui.outcomes import Outcome
from loratui.screens.monitor_text import GOES_ON, Seen, clock
from loratui.widgets.columns import clean

TRAINING_ONLY = ("checkpoint", "sample", "rate")
COMMANDS = ("pause", "release", "stop", *TRAINING_ONLY)
SHOWN = 2
"""Commands that are told of at once."""
RATES = {"lr_unet": "the denoiser", "lr_text": "the text encoder"}


@dataclass
class Sent:
    """A command that was given here."""

    words: str
    t: float
    job: str
    id: str = ""
    """Of the command, once the host has given it one."""
    failed: str = ""
    """Why it could not be given."""
    done: bool = False
    """It was done without the run: there is nothing to acknowledge."""


def told(sent: Sent, outcome: Outcome | None, over: bool, now: float) -> Text:
    """How far a command has come. `over`: the run has ended, so that nothing more will become of it."""
    if sent.failed:
        return _line("✗", sent, clean(sent.failed), "$state-failed")
    if sent.done:
        return _line("✓", sent, "done", "$state-done")
    if outcome is None:
        if over:
            return _line("✗", sent, "the run ended before it had read it", "$state-failed")
        return _line("…", sent, f"sent {clock(sent.t, now)}, the run has yet to read it", "$state-paused")
    text = clean(outcome.text)
    if not outcome.taken:
        return _line("✗", sent, f"not taken: {text}", "$state-failed")
    if outcome.result:
        return _line("✓", sent, f"taken: {clean(outcome.result)}", "$state-done")
    if over:
        return _line("?", sent, f"taken: {text}; then the run ended", "$state-failed")
    return _line("…", sent, f"taken: {text}" if text else "taken", "$state-paused")


def _line(sign: str, sent: Sent, words: str, style: str) -> Text:
    return Text(f" {sign} ", style=style).append(f"{sent.words}: {words}")


def in_line(lines: list[Text]) -> Text:
    """The newest command, and behind it the one before."""
    return Text("   ").join(lines)


def why_not(verb: str, seen: Seen | None, pointed: bool) -> str:
    """Why an action of the monitor can't be done; empty where it can. `pointed`: the chart has a cursor."""
    if seen is None:
        return "" if verb == "run" else "no run is shown"
    if verb in COMMANDS:
        return _why_no_command(verb, seen)
    match verb:
        case "retry" if seen.state not in GOES_ON:
            return f"it is {figures.STATES.get(seen.state, seen.state)[2:]}"
        case "log" if seen.state == "queued":
            return "it has no log before it starts"
        case "smoother" | "rougher" | "logarithmic" if not seen.history.step:
            return "there are no losses to show"
        case "newest" if not pointed:
            return "the cursor is there"
    return ""


def _why_no_command(verb: str, seen: Seen) -> str:
    match seen.state:
        case "queued":
            return "it waits in the queue"
        case "elsewhere":
            return "it runs on another machine"
        case _ if not seen.live:
            return "the run has ended"
    if verb in TRAINING_ONLY and not seen.trains:
        return "it draws pictures and does not train"
    return "there is nothing to save yet" if verb == "checkpoint" and not seen.history.step else ""


def rates(config: str, changes: list[protocol.Changed]) -> dict[str, float]:
    """The learning rates of a run by their fields, as its config.toml and what was changed since have them; those of
    parts that are not adapted are left out."""
    try:
        given = tomllib.loads(config).get("optimizer", {})
    except ValueError:
        given = {}
    found = {name: given.get(name, getattr(Optimizer(), name)) for name in RATES}
    found.update(
        (name, change.value) for change in changes if (name := change.field.removeprefix("optimizer.")) in RATES
    )
    return {name: value for name, value in found.items() if value}


def rate_check(name: str) -> Callable[[str], str]:
    """What is wrong with a learning rate that was typed."""

    def wrong(text: str) -> str:
        try:
            value = float(text)
        except ValueError:
            return "a number such as 5e-5"
        _, problems = check(Optimizer, {name: value}, lambda _: name)
        if problems:
            return f"expected {problems[0].expected}, found {problems[0].found}"
        return "" if value else "more than 0: what is adapted stays so to the end of the run"

    return wrong
