"""One job to its end: `python -m engine.worker JOB_DIR`. A thin main over `run_job`, which tests call in-process.

The directory is the whole request and takes the whole result. SIGTERM and SIGINT mean: save, then stop, resumable.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from importlib import metadata
from pathlib import Path

import msgspec

from engine import journal, locks, protocol
from engine.config import Generate, Job, Operate, Request, Train, UserError
from engine.context import Context, Released, Stopped
from engine.control import Control
from engine.host.launch import CONTROL_OFFSET

ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 29),
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
}
"""glibc otherwise returns large tensors to the kernel and takes them back every step, and idle threads of two processes
spin against each other. Both libraries read these at their start, so the worker starts itself again with them."""


def run_job(
    directory: Path, stop: threading.Event | None = None, dry_run: bool = False, commands_from: int | None = None
) -> int:
    """Run the job in `directory`, or take it up again. Returns its exit code; what happened is in the journal.

    A dry run goes as far as the plan. Commands are read from that byte of control.jsonl on, by default from its end.
    Raises locks.Held when another worker has the job.
    """
    with locks.hold(directory):
        _sweep(directory)
        with journal.Journal(directory) as log, Control(log, stop or threading.Event(), commands_from) as control:
            log.status.device = os.environ.get(locks.DEVICE, "")
            return _attempt(Context(directory, log, control, dry_run))


def _attempt(context: Context) -> int:
    started = time.monotonic()
    log = context.journal
    log.emit(
        protocol.Attempt(
            number=log.status.attempt + 1,
            pid=os.getpid(),
            host=journal.host(),
            boot_id=journal.boot_id(),
            versions=_versions(),
        )
    )
    config: Job | None = None
    try:
        config = frozen(context.directory)
        context.control.start(config)
        end = _run(config, context)
    except UserError as error:
        log.emit(
            *(
                protocol.Refused(**{name: getattr(problem, name) for name in problem.__struct_fields__})
                for problem in error.problems
            )
        )
        end = protocol.End(state="refused", code=protocol.REFUSED, cause=str(error.problems[0]))
    except Released:
        end = protocol.End(state="released", code=protocol.INTERRUPTED, step=log.status.step)
    except Stopped:
        end = protocol.End(state="stopped", code=protocol.INTERRUPTED, step=log.status.step)
    except Exception as error:
        from engine.jobs.failures import explain

        with contextlib.suppress(OSError):  # The log may lie on the disk that is full.
            traceback.print_exc()
        cause, advice = explain(error, config)
        end = protocol.End(state="failed", code=protocol.FAILED, cause=cause, advice=advice, step=log.status.step)
    context.control.close()
    log.emit(msgspec.structs.replace(end, seconds=round(time.monotonic() - started, 1)))
    return end.code


def _run(config: Job, context: Context) -> protocol.End:
    match config:
        case Train():
            from engine.jobs import train as job
        case Generate():
            from engine.jobs import generate as job
        case Operate():
            from engine.jobs import operation as job
    outputs = job.run(config, context)
    return protocol.End(state="done", code=protocol.DONE, step=context.journal.status.step, outputs=outputs)


def frozen(directory: Path) -> Job:
    """The request of a job, as it was submitted."""
    request = Request()
    request.read(directory / protocol.CONFIG)
    return request.checked()


def _sweep(directory: Path) -> None:
    """Remove what a killed attempt left half-written."""
    for folder in (directory, directory / protocol.CHECKPOINTS, directory / protocol.SAMPLES):
        for path in folder.glob(".*.tmp*"):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _versions() -> dict[str, str]:
    names = ("torch", "diffusers", "transformers", "safetensors", "numpy")
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in names}}


def main() -> int:
    """The process: `python -m engine.worker JOB_DIR [--dry-run]`."""
    directory, *options = sys.argv[1:]
    if any(os.environ.get(name) is None for name in ALLOCATOR):
        environment = {**ALLOCATOR, **os.environ}
        os.execve(sys.executable, [sys.executable, "-m", "engine.worker", *sys.argv[1:]], environment)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    locks.inherit()
    device = os.environ.get(locks.DEVICE)
    try:
        # A device's lock is kept to the end of the process: only then is its memory free.
        if device and locks.take(locks.device(device), patience=2.0) is None:
            raise locks.Held(device)
        start = os.environ.get(CONTROL_OFFSET, "")
        return run_job(
            Path(directory), stop, dry_run="--dry-run" in options, commands_from=int(start) if start.isdigit() else None
        )
    except locks.Held as error:
        print(f"{error}: another worker has it", file=sys.stderr)
        return protocol.FAILED


if __name__ == "__main__":
    sys.exit(main())
