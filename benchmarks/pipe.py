"""How many events a second pass from a worker through its journal and the host to a reader, and in how much memory.

    python -m benchmarks.pipe [--events 1000000] [--live 200000] [--json] [--record]

A worker in a process of its own writes to a real journal as fast as it can while a host follows it; then a journal of a
million events, written beforehand, is summarised, shown and followed from its start. `--record` puts the table into
results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from engine import protocol
from engine.protocol import messages
from loratui.client import Host, connect

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.md"
TITLE = "## Pipe"
STARTS, IDLE_SECONDS, IDLE_JOBS = 9, 10.0, 10

WORKER = """
import sys, time
from pathlib import Path
from engine.journal import Journal
from engine.protocol import Step
count = int(sys.argv[2])
rates = {"unet": 1e-4, "text": 5e-5}
with Journal(Path(sys.argv[1])) as journal:
    sys.stdin.readline()
    began = time.perf_counter()
    for step in range(1, count + 1):
        journal.emit(Step(step=step, loss=0.1234, instance=0.1, prior=0.0234, grad_norm=0.5, lr=rates, seconds=0.25))
    print(time.perf_counter() - began)
"""


def step(number: int) -> protocol.Step:
    rates = {"unet": 1e-4, "text": 5e-5}
    moment = 1_764_000_000.0 + number / 4
    return protocol.Step(
        t=moment, step=number, loss=0.1234, instance=0.1, prior=0.0234, grad_norm=0.5, lr=rates, seconds=0.25
    )


def job(workspace: Path, name: str) -> Path:
    directory = workspace / "projects" / "bench" / "runs" / f"20260101-0000-{name}"
    directory.mkdir(parents=True)
    (directory / protocol.CONFIG).write_text(f'kind = "train"\nname = "{name}"\n')
    (directory / protocol.STATUS).write_bytes(protocol.Status(state="done").to_bytes())
    return directory


def follow(host: Host, directory: Path, count: int) -> int:
    """Read a job's notifications until `count` steps have come, each once and in order; the host's most memory."""
    process = psutil.Process(host.hello.pid)
    most = seen = 0
    while seen < count:
        for event in host.heard().events:
            if isinstance(event, protocol.Step):
                seen += 1
                if event.step != seen:
                    raise SystemExit(f"step {event.step} came in place of {seen}")
        most = max(most, process.memory_info().rss)
    host.call("jobs.unwatch", messages.JobRef(job=directory.name))
    return most


def start_seconds() -> float:
    """From nothing to the reply to hello, in the median."""
    seconds = []
    for _ in range(STARTS):
        began = time.perf_counter()
        with connect():
            seconds.append(time.perf_counter() - began)
    return median(seconds)


def live(host: Host, workspace: Path, count: int) -> dict[str, float]:
    """A worker writes as fast as it can, and the reader hears all of it."""
    directory = job(workspace, "live")
    host.call("jobs.watch", messages.Watch(job=directory.name))
    before = psutil.Process(host.hello.pid).memory_info().rss
    command = [sys.executable, "-c", WORKER, str(directory), str(count)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdin.write(b"go\n")
        worker.stdin.flush()
        began = time.perf_counter()
        most = follow(host, directory, count)
        seconds = time.perf_counter() - began
        written = float(worker.stdout.readline())
    return {
        "live_events": count,
        "live_written_per_second": count / written,
        "live_heard_per_second": count / seconds,
        "live_host_mib_before": before / 2**20,
        "live_host_mib_most": most / 2**20,
    }


def stored(host: Host, workspace: Path, count: int) -> dict[str, float]:
    """A long journal is summarised from nothing but itself, shown, and followed from its start."""
    directory = job(workspace, "stored")
    (directory / protocol.STATUS).unlink()
    with (directory / protocol.JOURNAL).open("wb") as file:
        for first in range(1, count + 1, 10_000):
            file.write(
                b"".join(protocol.encode(step(number)) for number in range(first, min(first + 10_000, count + 1)))
            )
        file.write(protocol.encode(protocol.End(t=1.9e9, state="done", code=0, step=count)))
    timed = {}
    for name in ("summarised", "shown"):
        began = time.perf_counter()
        details = host.call("jobs.show", messages.JobRef(job=directory.name))
        timed[f"stored_{name}_seconds"] = time.perf_counter() - began
        if (details.summary.step, details.summary.state) != (count, "done"):
            raise SystemExit(f"shown as {details.summary}")
    before = psutil.Process(host.hello.pid).memory_info().rss
    began = time.perf_counter()
    host.call("jobs.watch", messages.Watch(job=directory.name))
    most = follow(host, directory, count)
    return timed | {
        "stored_events": count,
        "stored_mib": (directory / protocol.JOURNAL).stat().st_size / 2**20,
        "stored_heard_per_second": count / (time.perf_counter() - began),
        "stored_host_mib_before": before / 2**20,
        "stored_host_mib_most": most / 2**20,
    }


def idle(host: Host, workspace: Path) -> dict[str, float]:
    """What a host costs that follows jobs of which nothing is heard."""
    for number in range(IDLE_JOBS):
        directory = job(workspace, f"idle-{number}")
        (directory / protocol.JOURNAL).write_bytes(protocol.encode(step(1)))
        host.call("jobs.watch", messages.Watch(job=directory.name))
    process = psutil.Process(host.hello.pid)
    spent = sum(process.cpu_times()[:2])
    began = time.perf_counter()
    while (left := IDLE_SECONDS - (time.perf_counter() - began)) > 0:
        host.heard(timeout=left)
    seconds = time.perf_counter() - began
    return {"idle_cpu_per_cent": 100 * (sum(process.cpu_times()[:2]) - spent) / seconds}


@contextmanager
def scratch() -> Iterator[Path]:
    """A workspace of its own, for this process and its children."""
    with tempfile.TemporaryDirectory(prefix="loratui-pipe-") as folder:
        os.environ |= {"LORATUI_WORKSPACE": folder, "LORATUI_RUNTIME_DIR": str(Path(folder) / "locks")}
        yield Path(folder)


def measure(events: int, live_events: int) -> dict[str, float]:
    with scratch() as workspace:
        figures = {"start_seconds": start_seconds()}
        for part in (
            lambda host: live(host, workspace, live_events),
            lambda host: stored(host, workspace, events),
            lambda host: idle(host, workspace),
        ):
            with connect() as host:
                figures |= part(host)
    return figures


def rows(figures: dict[str, float]) -> list[tuple[str, str]]:
    def memory(part: str) -> str:
        return f"{figures[f'{part}_host_mib_before']:.0f} MiB before, {figures[f'{part}_host_mib_most']:.0f} at most"

    events = f"a journal of {figures['stored_events']:,} events ({figures['stored_mib']:.0f} MiB)"
    return [
        ("host: start to reply", f"{figures['start_seconds'] * 1000:.0f} ms"),
        (f"live, {figures['live_events']:,} events: written", f"{figures['live_written_per_second']:,.0f}/s"),
        ("live: worker → journal → host → reader", f"{figures['live_heard_per_second']:,.0f}/s"),
        ("live: memory of the host", memory("live")),
        (f"{events}: opened and summarised", f"{figures['stored_summarised_seconds']:.2f} s"),
        ("… shown again", f"{figures['stored_shown_seconds'] * 1000:.0f} ms"),
        ("… followed from its start to its end", f"{figures['stored_heard_per_second']:,.0f}/s"),
        ("… memory of the host", memory("stored")),
        (f"a host that follows {IDLE_JOBS} silent jobs", f"{figures['idle_cpu_per_cent']:.2f} % of a core"),
    ]


def record(table: list[tuple[str, str]]) -> None:
    """Put the table into the section of results.md that is ours, and leave the others as they are."""
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    head = [TITLE, "", f"`python -m benchmarks.pipe`, {time.strftime('%Y-%m-%d')}, {machine}", "", "| | |", "|---|---|"]
    section = "\n".join(head + [f"| {name} | {value} |" for name, value in table]) + "\n\n"
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    ours = re.compile(rf"^{re.escape(TITLE)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    text = text.rstrip() + "\n\n" + (section if ours.search(text) is None else "")
    text = ours.sub(lambda _: section, text, count=1)
    RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="in the journal that is written beforehand")
    parser.add_argument("--live", type=int, default=200_000, help="events that a live worker writes")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument("--record", action="store_true", help="put the table into benchmarks/results.md")
    options = parser.parse_args()
    figures = measure(options.events, options.live)
    table = rows(figures)
    if options.json:
        print(json.dumps(figures))
    else:
        width = max(len(name) for name, _ in table)
        print("\n".join(f"{name:{width}}  {value}" for name, value in table))
    if options.record:
        record(table)


if __name__ == "__main__":
    main()
