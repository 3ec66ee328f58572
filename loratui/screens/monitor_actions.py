"""What the monitor's keys do: commands to the run that is shown, and how it is shown.

What becomes of a command comes back in the run's journal, and is told by `monitor_commands`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.config import UserError
from engine.protocol.messages import Control, JobDetails, JobRef
from loratui import figures
from loratui.client import HostError, HostGone
from loratui.screens.dialogs import Reader
from loratui.screens.finder import Entry
from loratui.screens.monitor_charts import other_smoothing
from loratui.screens.monitor_commands import RATES, Sent, rate_check, rates
from loratui.screens.monitor_events import everything
from loratui.screens.monitor_text import Seen

if TYPE_CHECKING:
    from textual.app import App

    from loratui.bench import Bench
    from loratui.screens.monitor_run import Followed
    from loratui.screens.monitor_view import RunView


class Actions:
    """One method a verb of the table; the panel has the rest."""

    app: App
    bench: Bench
    seen: Seen | None
    sent: list[Sent]
    run: Followed
    view: RunView
    logarithmic: bool

    # --- commands to the run ------------------------------------------------------------------------------------------

    async def do_pause(self) -> None:
        if self.seen.state == "paused":
            await self.give("continue", Control(job=self.seen.id, name="resume"))
        else:
            await self.give("pause", Control(job=self.seen.id, name="pause"))

    async def do_release(self) -> None:
        text = "It is saved and ends, and its device is free for other runs. Retry goes on from there."
        if await self.bench.confirm(f"Release {self.called}?", text, "Release"):
            await self.give("release", Control(job=self.seen.id, name="pause", release=True))

    async def do_checkpoint(self) -> None:
        await self.give("checkpoint", Control(job=self.seen.id, name="checkpoint"))

    async def do_sample(self) -> None:
        await self.give("sample", Control(job=self.seen.id, name="sample"))

    async def do_stop(self) -> None:
        text = "It is saved and ends. Retry goes on from there."
        if not self.seen.trains:
            text = "It ends; what is drawn stays." if self.seen.draws else "It ends, and nothing is written."
        if await self.bench.confirm(f"Stop {self.called}?", text, "Stop"):
            await self.give("stop", Control(job=self.seen.id, name="stop"))

    async def do_rate(self) -> None:
        """Ask which learning rate and what it is to be."""
        seen = self.seen
        details: JobDetails | None = await self.bench.tried("jobs.show", JobRef(job=seen.id))
        if details is None:
            return
        found = rates(details.config, seen.history.changes)
        entries = [Entry(f"{name}  {RATES[name]}", name, figures.number(value, 3)) for name, value in found.items()]
        name = await self.bench.choose("Which learning rate?", entries) if len(entries) > 1 else next(iter(found), None)
        if name is None:
            return
        text = f"Of {RATES[name]}, from the next step on. The schedule still scales it."
        value = await self.bench.ask(f"Learning rate {name}", text, f"{found[name]:g}", rate_check(name))
        if value is not None:
            command = Control(job=seen.id, name="set", field=f"optimizer.{name}", value=float(value))
            await self.give(f"{name} = {figures.number(float(value), 3)}", command)

    async def do_retry(self) -> None:
        if await self.bench.tried("jobs.retry", JobRef(job=self.seen.id)):
            self.bench.say(f"{self.called} waits in the queue again")

    async def give(self, words: str, command: Control) -> None:
        """Send a command, and remember it under the id that its acknowledgement will carry."""
        sent = Sent(words, self.bench.now(), command.job)
        self.sent.append(sent)
        self.tell_commands()
        try:
            given = await self.bench.call("jobs.control", command)
            sent.id, sent.done = given.id, not given.id
        except (UserError, HostError) as error:
            sent.failed = str(error)
        except HostGone:
            sent.failed = "the host ended before it answered; the run may have been told"
        self.tell_commands()

    @property
    def called(self) -> str:
        """What the run is called when something is asked about it."""
        return self.seen.row.name if self.seen.row else self.seen.id

    # --- what is shown, and how ---------------------------------------------------------------------------------------

    def do_log(self) -> None:
        self.view.show_log(not self.view.log_shown)

    def do_events(self) -> None:
        self.app.push_screen(Reader("Events, the newest first", everything(self.seen.history)))

    async def do_run(self) -> None:
        rows = sorted(self.bench.board.runs(), key=lambda row: row.project != self.bench.project)
        entries = [
            Entry(f"{row.name}  {row.id}", row.id, f"{row.project} · {figures.STATES[row.state]}") for row in rows
        ]
        job = await self.bench.choose("Watch which run?", entries)
        if job is not None:
            self.run.open(job)

    def do_newest(self) -> None:
        self.view.newest()
        self.bench.look_at_actions()

    def do_logarithmic(self) -> None:
        self.logarithmic = self.view.chart.log_y = not self.logarithmic

    async def do_smoother(self) -> None:
        await self.run.smooth(other_smoothing(self.run.smoothing, 1))

    async def do_rougher(self) -> None:
        await self.run.smooth(other_smoothing(self.run.smoothing, -1))
