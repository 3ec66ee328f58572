"""What the app costs a terminal and a person's patience: start, bytes, CPU, memory, and how fast a list answers.

    python -m benchmarks.terminal [--json] [--record] [--only NAME …]

Everything is measured from outside, in a pseudo-terminal of 120×40 (pty_terminal), against a bar. The figures of two
other programs made with Textual stand beside ours where somebody measured them on the same kind of machine; they are
quoted, not measured here. `--record` puts the table into results.md. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil

from benchmarks import terminal_workspaces as workspaces
from benchmarks.pty_terminal import Pty

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.md"
TITLE = "## Terminal"
APP = (sys.executable, "-m", "loratui")
HEAVY = ("torch", "numpy", "diffusers", "transformers")
STARTS, IDLE, WATCHED, PAGES = 9, 20.0, 20.0, 30


@dataclass(frozen=True)
class Row:
    what: str
    figure: float | str
    unit: str
    bar: float | None
    """At most this; None: told, not judged."""
    harlequin: str = ""
    posting: str = ""

    @property
    def met(self) -> bool:
        return self.bar is None or (isinstance(self.figure, float) and self.figure <= self.bar)


def environ(workspace: Path) -> dict[str, str]:
    wanted = {
        "LORATUI_WORKSPACE": str(workspace),
        "LORATUI_RUNTIME_DIR": str(workspace / "locks"),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "PYTHONPATH": str(ROOT),
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("TMUX")} | wanted


def help_text() -> Iterator[Row]:
    """`loratui --help`, and what it imports."""
    times = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([*APP, "--help"], stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
        times.append((time.perf_counter() - began) * 1000)
    yield Row("`loratui --help`, median", median(times), "ms", 150, posting="550")
    loaded = _loaded("from loratui.start import main", ["--help"], ("textual", "PIL", *HEAVY))
    yield Row("of textual, torch, numpy, PIL … it imports", loaded or "none", "", None)


def _loaded(code: str, arguments: list[str], names: tuple[str, ...]) -> str:
    """Which of the modules are loaded when `main()` has run."""
    probe = f"import sys; sys.argv[1:] = {arguments!r}; {code}\ntry: main()\nexcept SystemExit: pass\n"
    probe += f"print(','.join(name for name in {names!r} if name in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""


def first_content(folder: Path) -> Iterator[Row]:
    """From start to the first text, and to the first rows, with 1,000 runs in the workspace."""
    newest = workspaces.runs(folder, 1000)
    workspaces.opened_at(folder, "projects", "many")
    texts, rows = [], []
    for _ in range(STARTS):
        with Pty(APP, environ(folder)) as terminal:
            texts.append(terminal.first_text() * 1000)
            rows.append(terminal.until(newest) * 1000)
    yield Row("first content, 1,000 runs, median", median(texts), "ms", 450, "900", "1,000")
    yield Row("the newest runs listed, median", median(rows), "ms", None)
    with Pty(APP, environ(folder)) as terminal:
        terminal.until(newest)
        terminal.read(3)
        loaded = [name for name in HEAVY if _maps(terminal.pid, name)]
        yield Row("of torch, numpy, diffusers … the app loads", ", ".join(loaded) or "none", "", None)
        cost = terminal.cost(IDLE)
        yield Row("idle, bytes a second", cost.bytes_per_second, "B/s", 100, "520", "524")
        yield Row("idle, app and host, of a core", cost.cpu + cost.host_cpu, "%", 0.5, "0.75", "0.7–1.0")
        app, host = terminal.memory()
        yield Row("memory of the app, idle", app, "MB", 90, "183", "80")
        yield Row("memory of its host, idle", host, "MB", None)


def _maps(pid: int, name: str) -> bool:
    """Whether a process has a shared library of that package in its memory."""
    return f"site-packages/{name}/" in Path(f"/proc/{pid}/maps").read_text()


def live_monitor(folder: Path) -> Iterator[Row]:
    """The monitor on a run that says 20 events a second."""
    with _told(folder, 0.05), Pty(APP, environ(folder)) as terminal:
        terminal.until("told-live")
        terminal.read(8)
        cost = terminal.cost(WATCHED)
        yield Row("live monitor, 20 events/s, bytes a second", cost.bytes_per_second, "B/s", 3000)
        yield Row("live monitor, the app, of a core", cost.cpu, "%", 3)
        yield Row("live monitor, its host, of a core", cost.host_cpu, "%", None)
        yield Row("memory of the app, live monitor", terminal.memory()[0], "MB", 90)


def lag(folder: Path) -> Iterator[Row]:
    """How late the event loop is while a run says 1,000 events a second."""
    lags = folder / "lags"
    command = (sys.executable, "-m", "benchmarks.terminal_lag", str(lags))
    with _told(folder, 0.001), Pty(command, environ(folder)) as terminal:
        terminal.until("told-live")
        terminal.read(2)
        start = len(lags.read_text().splitlines())
        terminal.read(WATCHED)
        found = [float(line) for line in lags.read_text().splitlines()[start:]]
    yield Row("event-loop lag at 1,000 events/s, p95", quantiles(found, n=20)[-1], "ms", 50)


@contextlib.contextmanager
def _told(folder: Path, seconds: float) -> Iterator[None]:
    """A live run that says a step each so many seconds."""
    directory, recording = workspaces.live(folder, seconds)
    workspaces.opened_at(folder, "monitor", "live")
    command = [sys.executable, "-m", "engine.replay", str(recording), str(directory)]
    with subprocess.Popen(command, env=environ(folder), cwd=ROOT) as replay:
        try:
            time.sleep(0.5)
            yield
        finally:
            replay.terminate()


def many_images(folder: Path) -> Iterator[Row]:
    """A folder of 100,000 images in the dataset panel."""
    workspaces.images(folder, 100_000)
    workspaces.opened_at(folder, "projects", "pictures")
    with Pty(APP, environ(folder)) as terminal:
        terminal.until("pictures")
        terminal.read(3)
        pressed = terminal.press(b"2")
        yield Row("100,000 images, first rows", terminal.until("IMG_000001", pressed) * 1000, "ms", 500)
        terminal.read(2)
        times = []
        for _ in range(PAGES):
            pressed = terminal.press(b"\x1b[6~")
            terminal.until("IMG_", pressed)
            times.append((terminal.written[-1][0] - pressed) * 1000)
            terminal.read(0.3)
        yield Row("100,000 images, page down, median", median(times), "ms", 20)
        yield Row("memory of the app, 100,000 images", terminal.memory()[0], "MB", 90)


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "help": lambda folder: help_text(),
    "start": first_content,
    "monitor": live_monitor,
    "lag": lag,
    "images": many_images,
}


def table(rows: list[Row]) -> str:
    lines = ["| | loratui | at most | harlequin | posting |", "|---|---|---|---|---|"]
    for row in rows:
        figure = (
            row.figure
            if isinstance(row.figure, str)
            else f"{row.figure:,.3g}"
            if row.figure < 10
            else f"{row.figure:,.0f}"
        )
        bar = "" if row.bar is None else f"{row.bar:g} {row.unit}"
        missed = "" if row.met else " ✗"
        lines.append(f"| {row.what} | {figure} {row.unit}{missed} | {bar} | {row.harlequin} | {row.posting} |")
    return "\n".join(lines)


def record(text: str) -> None:
    """Put the table in the place of the one that results.md has."""
    content = RESULTS.read_text(encoding="utf-8")
    machine = f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}"
    section = f"{TITLE}\n\n{machine}; a pseudo-terminal of 120×40.\n\n{text}\n"
    if TITLE in content:
        content = re.sub(rf"{TITLE}\n.*?(?=\n## |\Z)", lambda _: section, content, flags=re.S)
    else:
        content = f"{content.rstrip()}\n\n{section}"
    RESULTS.write_text(content, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.terminal", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--record", action="store_true", help="put the table into results.md")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help=", ".join(PARTS))
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="loratui-terminal-") as folder:
            for row in PARTS[name](Path(folder)):
                rows.append(row)
                print(f"{row.what}: {row.figure} {row.unit}", file=sys.stderr)
    print(json.dumps([asdict(row) for row in rows], indent=2) if options.json else table(rows))
    if options.record:
        record(table(rows))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
