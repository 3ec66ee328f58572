"""`python -m engine.runner [WORKSPACE]`: starts the waiting jobs of a workspace on free devices, and ends when none is
left. One for each workspace, by a lock.

Nothing is lost with it: workers are sessions of their own, the queue is a file, and the next runner finds in both what
this one had in hand. It looks around twice a second, and at once when a worker ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from engine import locks, protocol
from engine.config import UserError
from engine.hooks import Hooks, checkpoints, handled
from engine.host import launch, liveness, placement, queue, records, submission
from engine.host.starting import CannotStart, Live, ending, start

INTERVAL = 0.5
"""Seconds between two turns."""
BACKOFF = 10.0
"""Seconds before something is tried again that the system has refused."""
REFRESH = 6 * 3600.0
"""Seconds between two refreshings of the locks' files."""


class Runner:
    """The jobs of a workspace that are alive, and what to do about them. `turn` is one look around; it never waits."""

    def __init__(self, workspace: Path, say: Callable[[str], None]):
        self.workspace, self._say = workspace, say
        self.hooks = Hooks(workspace, say)
        self.live: dict[str, Live] = {}
        self.stopping = False
        self._machine = placement.Machine()
        self._ended: list[str] = []
        """Jobs that have ended and stay in hand until their hooks have run."""
        self._waiting: list[str] = []
        self._submissions: dict[str, protocol.Submission] = {}
        self._stamp: tuple[int, ...] | None = None
        self._something_ran = False
        self._rest_until = 0.0
        self._trouble = ""
        self._refreshed = time.monotonic()

    def take_over(self, resume: bool = False) -> None:
        """Find what is there: jobs of a runner that is gone, jobs in no queue, and with `resume` interrupted ones."""
        self.hooks.turn()
        with self._troubles():
            queue.adopt_strays(self.workspace)
            for directory in sorted(queue.runs(self.workspace), key=lambda path: path.name) if resume else ():
                if interrupted(directory):
                    self._resume(directory)
            entries = queue.read(self.workspace)
            begun = [name for name in entries.waiting if locks.held(self.workspace / name)]
            for name in (*entries.running, *begun):
                if (self.workspace / name).is_dir():
                    self._adopt(name)
            self._waiting = entries.waiting

    def turn(self) -> bool:
        """Look around once. Returns whether there is anything left to do."""
        resting = time.monotonic() < self._rest_until
        if not resting:
            self._bury()
            self._start_waiting()
        for live in self.live.values():
            self._tell_checkpoints(live)
        if self._something_ran and not (resting or self.live or self._waiting or self.stopping):
            self._something_ran = False
            self.hooks.queue_empty()
        self.hooks.turn()
        if not resting:
            self._file()
        self._refresh_locks()
        return bool(self.live) or (not self.stopping and bool(self._waiting or self.hooks.busy))

    def stop(self) -> None:
        """Let every worker save and stop, and start none; what was stopped so waits for the next runner."""
        self.stopping = True
        for live in self.live.values():
            live.terminate()

    def _resume(self, directory: Path) -> None:
        try:
            submission.requeue(self.workspace, directory)
            self._say(f"{directory.name}: was interrupted, and goes on")
        except UserError as error:
            self._say(f"{directory.name}: was interrupted, and can't go on: {error}")

    def _adopt(self, name: str) -> None:
        """Take up a job that another runner has started, or what has become of it since."""
        directory = self.workspace / name
        retries = 0
        with contextlib.suppress(OSError, UserError):
            retries = submission.read_submission(self.workspace, directory).retries
        live = Live(name, directory, retries=retries, device=liveness.status_of(directory).device)
        live.pid()
        self.live[name] = live
        live.already = handled(directory)
        self._tell_checkpoints(live)
        if live.alive():
            live.already = set()
            self._say(f"{directory.name}: taken over")

    def _bury(self) -> None:
        for live in list(self.live.values()):
            with self._troubles():
                if live.alive():
                    self._see_to_folder(live)
                elif self._settled(live):
                    del self.live[live.name]
                    self._something_ran = True

    def _see_to_folder(self, live: Live) -> None:
        """A run whose folder is deleted can save nothing and be told nothing: it is ended."""
        gone = live.directory.parent.is_dir() and not live.directory.is_dir()
        if gone and not live.told_to_go and locks.held(live.directory):
            self._say(f"{live.directory.name}: its folder is gone, so it is stopped")
            live.terminate()

    def _settled(self, live: Live) -> bool:
        """See to a job whose worker is gone. False: it is alive again, in other hands.

        It may be done again if it fails on the way.
        """
        directory = live.directory
        if not directory.is_dir():
            self._say(f"{directory.name}: ended, and its folder is gone")
            return True
        status, life = liveness.look(directory)
        if life.alive:
            live.process = None
            return False
        code = live.process.returncode if live.process is not None else None
        stopped_by_us = self.stopping and life.state in ("stopped", "crashed", "queued")
        if stopped_by_us or (life.state == "queued" and live.adopted):
            submission.requeue(self.workspace, directory, first=True, crashes=status.crashes)
            self._say(f"{directory.name}: waits for the next runner" if self.stopping else f"{directory.name}: waits")
        elif life.state == "queued":
            self._never_began(live, status, ending(code))
        elif life.state == "crashed" and status.crashes < live.retries:
            self._say(f"{directory.name}: crashed ({ending(code)}), and is started again")
            submission.requeue(self.workspace, directory, first=True, crashes=status.crashes + 1)
        elif life.state == "crashed" and code is not None:
            self._explain(live, status, ending(code))
        else:
            self._finish(live, life)
        return True

    def _never_began(self, live: Live, status: protocol.Status, how: str) -> None:
        """The worker died before its first event, of a broken interpreter, say. To try again would not help."""
        if status.attempt > live.attempt:
            return  # It did begin, and whoever queued it again was faster than this.
        words = liveness.tail(live.directory / protocol.LOG, 3)
        cause = f"its worker ended before it began ({how})" + (f": {words}" if words else "")
        submission.fail(self.workspace, live.directory, cause)
        self._finish(live, liveness.Life("failed", cause))

    def _explain(self, live: Live, status: protocol.Status, how: str) -> None:
        """Only the runner knows how a process ended; leave it where lists find it."""
        with contextlib.suppress(OSError, UserError), submission.asleep(live.directory):
            status.cause = f"its process died without a last word ({how})"
            submission.write_status(live.directory, status)
        self._finish(live, liveness.judge(live.directory, status))

    def _finish(self, live: Live, life: liveness.Life) -> None:
        """A job has come to an end that nothing follows but its hooks."""
        self._say(f"{live.directory.name}: {life.state}" + (f": {life.cause}" if life.cause else ""))
        self._tell_checkpoints(live)
        self.hooks.ended(live.directory, life.state, life.cause, live.already)
        self._ended.append(live.name)

    def _start_waiting(self) -> None:
        stamp = queue.stamp(self.workspace)
        if stamp != self._stamp:
            with self._troubles():
                self._waiting, self._stamp = queue.read(self.workspace).waiting, stamp
                self._submissions = {name: job for name, job in self._submissions.items() if name in self._waiting}
        # Also when its worker has ended just now: a job that has crashed goes on before the next one.
        busy = {live.device for live in self.live.values() if live.device}
        for name in [] if self.stopping else list(self._waiting):
            if name not in self.live:
                with self._troubles():
                    self._start(name, busy)

    def _start(self, name: str, busy: set[str]) -> None:
        try:
            live = start(self.workspace, name, self._submission(name), self._machine, busy)
        except CannotStart as error:
            submission.fail(self.workspace, self.workspace / name, str(error))
            self._finish(Live(name, self.workspace / name), liveness.Life("failed", str(error)))
            return
        if live is not None:
            self.live[name] = live
            self._waiting.remove(name)
            self._stamp, self._trouble = None, ""
            self._say(f"{live.directory.name}: started" + (f" on {live.device}" if live.device else ""))

    def _submission(self, name: str) -> protocol.Submission:
        if name not in self._submissions:
            try:
                self._submissions[name] = submission.read_submission(self.workspace, self.workspace / name)
            except UserError as error:
                raise CannotStart(str(error)) from None
        return self._submissions[name]

    def _tell_checkpoints(self, live: Live) -> None:
        found, live.read_to = checkpoints(live.directory, live.read_to)
        for event in found:
            self.hooks.checkpoint(live.directory, event, live.already)

    def _file(self) -> None:
        """Let the queue say what is in hand. A job stays there until its hooks have run, for a runner may be killed."""
        through = [name for name in self._ended if not self.hooks.concerns(self.workspace / name)]
        begun = [name for name in self._waiting if name in self.live]
        if through or begun:
            with self._troubles(), queue.changing(self.workspace) as entries:
                entries.running[:] = [name for name in entries.running if name not in through] + begun
                entries.waiting[:] = [name for name in entries.waiting if name not in begun]
                self._ended = [name for name in self._ended if name not in through]

    def _refresh_locks(self) -> None:
        if time.monotonic() - self._refreshed < REFRESH:
            return
        self._refreshed = time.monotonic()
        devices = [locks.device(live.device) for live in self.live.values() if live.device]
        for guarded in (launch.runner_lock(self.workspace), *(live.directory for live in self.live.values()), *devices):
            locks.refresh(guarded)

    @contextlib.contextmanager
    def _troubles(self) -> Iterator[None]:
        """Let nothing that the disk or the system refuses end the runner: it says so, rests, and tries again."""
        try:
            yield
        except (OSError, UserError) as error:
            if str(error) != self._trouble:
                self._say(f"{error}; trying again every {BACKOFF:g} s")
            self._trouble, self._rest_until = str(error), time.monotonic() + BACKOFF


def interrupted(directory: Path) -> bool:
    """Whether a job was ended by something else than itself or a person: a crash, a signal, the end of a machine."""
    status, (state, *_) = liveness.look(directory)
    return state == "crashed" or (state == "stopped" and status.attempt > 0 and not records.told_to_stop(directory))


def serve(workspace: Path, say: Callable[[str], None], resume: bool, foreground: bool) -> int:
    """Be the workspace's runner until nothing is left to do. Returns the exit code.

    What is queued while a runner ends is not lost: it lets go of its lock, then looks at the queue once more.
    """
    alarm = Alarm()
    while True:
        lock = locks.take(launch.runner_lock(workspace))
        if lock is None:
            if foreground:
                say("another runner is at work here")
            return protocol.FAILED if foreground else protocol.DONE
        runner = Runner(workspace, say)
        try:
            runner.take_over(resume)
            while runner.turn():
                alarm.wait(INTERVAL)
                if alarm.told_to_end and not foreground:
                    return protocol.DONE  # The workers go on, and the next runner takes them over.
                if alarm.told_to_end and not runner.stopping:
                    say("stopping: the runs are saved and wait for the next runner")
                    runner.stop()
        finally:
            lock.release()
        if runner.stopping:
            return protocol.INTERRUPTED
        waiting = []
        with contextlib.suppress(OSError, UserError):
            queue.adopt_strays(workspace)
            waiting = queue.read(workspace).waiting
        if not waiting:
            return protocol.DONE


class Alarm:
    """Sleeps until the time is over, a child has ended, or a signal says that this process is to end."""

    def __init__(self) -> None:
        self.told_to_end = False
        self._reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, lambda *_: None)  # A terminal that goes away takes no run with it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def wait(self, seconds: float) -> None:
        select.select([self._reader], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def _end(self, *_: object) -> None:
        self.told_to_end = True


def say(text: str) -> None:
    """A line of the log, which may be on a full disk or a terminal that is gone."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.runner", description="Run the queue of a workspace.")
    parser.add_argument("workspace", nargs="?", type=Path, default=protocol.workspace())
    parser.add_argument(
        "--foreground",
        action="store_true",
        help="take the runs along: at SIGTERM they are saved and stopped, and wait for the next runner",
    )
    parser.add_argument("--resume", action="store_true", help="go on with runs that crashed or were interrupted too")
    options = parser.parse_args()
    workspace = options.workspace.expanduser().absolute()
    if not workspace.is_dir():
        print(f"{workspace}: expected the folder of a workspace; found nothing of that name", file=sys.stderr)
        return protocol.REFUSED
    return serve(workspace, say, options.resume, options.foreground)


if __name__ == "__main__":
    sys.exit(main())
