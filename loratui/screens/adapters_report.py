"""What is in a file that its header does not tell: which programs load it, norms and ranks of its layers.

Reading the tensors is for the engine, in a process of its own that ends when the cursor goes on. What it said is kept
for as long as the file stays the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from engine import protocol
from engine.protocol.browse import AdapterHeader
from engine.protocol.operations import Inspected, InspectedLayer, Loading, decode_operation
from loratui import figures
from loratui.answers import decoded
from loratui.child import engine_command, engine_environment
from loratui.widgets.columns import clean

PAUSE = 0.5
"""Seconds that the cursor has to stay on a file before its tensors are read."""
KEPT = 500
"""Files whose reports are kept."""

SHORT = {"AUTOMATIC1111": "A1111"}
"""So that all programs fit on a line."""

Key = tuple[str, float, int]


@dataclass(frozen=True)
class Report:
    """What was found, or why nothing was."""

    found: Inspected | None = None
    problem: str = ""


class Reports:
    """Reports by file; `of` never waits, `read` does."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Report] = OrderedDict()

    def of(self, found: AdapterHeader) -> Report | None:
        """What is known of a file as it is now."""
        return self._kept.get(_key(found))

    async def read(self, found: AdapterHeader) -> None:
        """Have the engine read a file, unless it was. Cancelled, it ends the engine."""
        if self.of(found) is not None:
            return
        report = await inspect(found.path)
        if report is not None:
            # the spectra are long, and nothing here shows them
            self._kept[_key(found)] = report
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def _key(found: AdapterHeader) -> Key:
    return found.path, found.modified, found.bytes


async def inspect(path: str) -> Report | None:
    """What the engine says of a file; None where it could not be started or was ended from outside.

    A thread waits for it: to close pipes of the event loop takes that loop, and the app may just be ending.
    """
    request = msgspec.json.encode({"path": path, "layers": True})
    try:
        process = subprocess.Popen(
            engine_command("operate", "inspect"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=engine_environment(),
            start_new_session=True,
        )
    except OSError as error:
        return Report(problem=f"the engine can't be started: {error.strerror or error}")
    try:
        said, _ = await asyncio.to_thread(process.communicate, request)
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started, which holds its pipes too
    return heard(said)


def heard(said: bytes) -> Report | None:
    """The report in what an operation said."""
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            match decode_operation(line):
                case protocol.Answer() as answer if isinstance(told := decoded(answer), Inspected):
                    layers = [msgspec.structs.replace(layer, values=[], ranks={}) for layer in told.layers]
                    return Report(msgspec.structs.replace(told, layers=layers, metadata={}))
                case protocol.Refused() as refused:
                    return Report(problem=refused.text())
                case protocol.End(state="failed") as end:
                    return Report(problem=end.cause)
    return None


def report_lines(report: Report | None) -> list[str]:
    """A report, a line a fact. `report`: None while it is being made."""
    if report is None:
        return ["loads in …"]
    if report.found is None:
        return [f"✗ {clean(report.problem)}"]
    found = report.found
    lines = [*_loads(found.loads), *_tokens(found), *_norms(found.layers)]
    return [*lines, *(f"note: {clean(notice)}" for notice in found.notices)]


def _loads(loads: list[Loading]) -> list[str]:
    good = [SHORT.get(one.program, one.program) for one in loads if one.loads]
    lines = [f"loads in ✓ {' ✓ '.join(good)}"] if good else []
    return [*lines, *(f"✗ {one.program} {clean(one.note)}" for one in loads if not one.loads)]


def _tokens(found: Inspected) -> list[str]:
    if not found.tokens:
        return []
    names = ", ".join(clean(token) for token in found.tokens)
    if not found.parts:
        return [f"token {names}: a separate file, which all of them load as an embedding"]
    return [f"token {names}: inside; c writes it to a separate file, as most programs want it"]


def _norms(layers: list[InspectedLayer]) -> list[str]:
    known = [layer for layer in layers if layer.norm is not None]
    if not known:
        return []
    total = sum(layer.norm**2 for layer in known) ** 0.5
    if not total:
        return ["‖ΔW‖ 0: it changes nothing"]
    most = max(known, key=lambda layer: layer.norm)
    lines = [f"‖ΔW‖ {figures.number(total)}; most, {figures.number(most.norm)}, in {clean(most.path)}"]
    ranks = [layer.effective_rank for layer in known if layer.effective_rank]
    if ranks:
        low, middle, high = min(ranks), statistics.median(ranks), max(ranks)
        lines.append(f"effective rank {middle:.1f}, by layer {low:.1f} to {high:.1f}")
    return lines
