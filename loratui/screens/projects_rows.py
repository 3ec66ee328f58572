"""How the rows of projects and runs are drawn, and what is said about a run: pure functions of what the host told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rich.style import Style
from rich.text import Text

from engine.protocol.messages import JobDetails, JobSummary
from loratui import figures
from loratui.board import Board
from loratui.widgets.columns import Column, fit, header, row
from loratui.words import match

RUN_COLUMNS = (
    Column("run", flex=3),
    Column("state", width=11),
    Column("step", width=13, align="right"),
    Column("loss", width=7, align="right", needs=62),
    Column("val", width=7, align="right", needs=72),
    Column("best", width=7, align="right", needs=82),
    Column("age", width=10, align="right"),
    Column("device", width=6, needs=76),
)
TROUBLE = ("failed", "refused", "crashed", "elsewhere")
LOG_LINES = 6


@dataclass
class Rows:
    """What drawing needs beside the row itself."""

    now: float = 0.0
    board: Board = field(default_factory=Board)
    gpus: dict[str, int] = field(default_factory=dict)
    """UUID → index."""
    style: Callable[[str], Style] = lambda state: Style()
    """The theme's colour of a state."""

    @staticmethod
    def match(find: str, name: str) -> bool:
        return match(find, (name,))

    @staticmethod
    def match_run(find: str, run: JobSummary) -> bool:
        return match(find, (run.name, run.id, run.state, run.kind))

    def project_sign(self, name: str) -> Text:
        """The weightiest state among a project's runs, with how many are in it."""
        counts = self.board.counts(name)
        for state in ("running", "stalled", "paused", "queued", "crashed", "failed", "refused", "done"):
            if counts.get(state):
                return Text(f"{figures.STATES[state][0]} {counts[state]}", style=self.style(state))
        return Text("")


def runs_header(width: int) -> Text:
    return header(RUN_COLUMNS, fit(RUN_COLUMNS, width))


def run_row(run: JobSummary, width: int, rows: Rows) -> Text:
    """A row of the list of runs. What went wrong takes the place of the figures."""
    widths = fit(RUN_COLUMNS, width)
    state = Text(_state(run), style=rows.style(run.state))
    cells = [
        run.name,
        state,
        f"{run.step}/{run.steps}" if run.steps else run.stage if _progresses(run) else "",
        figures.number(run.loss, 3),
        figures.number(run.validation, 3),
        figures.number(run.best, 3),
        _age(run, rows.now),
        figures.device(run.device, rows.gpus),
    ]
    if run.state in TROUBLE and run.cause:
        columns = (RUN_COLUMNS[0], Column("", width=sum(widths[1:]) + 2 * (sum(map(bool, widths[1:])) - 1)))
        return row(
            columns, (widths[0], columns[1].width), [run.name, Text(f"✗ {run.cause}", style=rows.style(run.state))]
        )
    return row(RUN_COLUMNS, widths, cells)


def _state(run: JobSummary) -> str:
    return f"{figures.STATES[run.state]} {run.position}" if run.position else figures.STATES[run.state]


def _progresses(run: JobSummary) -> bool:
    """Whether its last stage says how far it came: not of an operation that has ended."""
    return run.kind != "operate" or run.state in figures.LIVE


def _age(run: JobSummary, now: float) -> str:
    """How long it has been running, or how long ago it ended."""
    live = run.state in figures.LIVE and run.started
    return figures.age(run.started if live else run.updated or run.submitted, now)


def story_of(run: JobSummary, details: JobDetails | None) -> str:
    """What became of a run, and what to do; in words, for the lines below the list. Empty where the row says it all."""
    told = details.summary if details else run
    lines = []
    if run.state in (*TROUBLE, "stalled"):
        lines.append(f"{figures.STATES[run.state]}: {told.cause or 'it did not say why'}")
        lines += [f"→ {one}" for one in told.advice]
        if run.state != "elsewhere":
            saved = "" if run.kind == "operate" else " from its last saved state"
            lines.append(f"→ r tries it again{saved}; ⏎ shows all of it")
        if details and details.log:
            lines += ["", *details.log.splitlines()[-LOG_LINES:]]
    elif run.state == "queued":
        lines.append(
            f"place {run.position} in the queue; K and J move it, X takes it out" if run.position else "held back"
        )
    elif run.state in ("stopped", "released"):
        where = f" after step {run.step}; r goes on from there" if run.kind != "operate" else "; r begins anew"
        lines.append(f"{figures.STATES[run.state]}{where}")
    return "\n".join(lines)
