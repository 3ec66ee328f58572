"""The worker that tells a recording: it is a worker to all who look, and obeys."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from engine import locks, protocol
from engine.host import jobs
from engine.protocol import messages
from engine.replay import replay


def told(directory: Path, *kinds: type) -> list:
    events = protocol.JournalReader(directory / protocol.JOURNAL).read()
    return [event for event in events if not kinds or isinstance(event, kinds)]


def test_a_recording_is_told_as_it_was_with_files_a_pid_and_a_time_of_its_own(make, tell):
    directory, story = make(), tell(4)
    assert replay(story, directory) == protocol.DONE
    recorded = list(protocol.JournalReader(story).read())
    events = told(directory)
    assert [type(event) for event in events] == [type(event) for event in recorded]
    assert events[0].pid > 1 and all(event.t > 1_700_000_000 for event in events)
    assert jobs.state_of(directory) == "done" and not locks.held(directory)
    assert all((directory / name).stat().st_size for name in ("checkpoints/a-step000004.safetensors", "a.safetensors"))


def test_a_recording_without_an_end_is_a_crash_and_the_next_attempt_goes_on_behind_it(make, tell):
    directory = make()
    assert replay(tell(3, end=""), directory) == protocol.FAILED
    assert jobs.state_of(directory) == "crashed"
    assert replay(tell(5), directory) == protocol.DONE
    assert [event.step for event in told(directory, protocol.Resumed, protocol.Step)] == [1, 2, 3, 3, 4, 5]
    assert [event.number for event in told(directory, protocol.Attempt)] == [1, 2]


def test_no_file_is_made_outside_of_the_job(make, tmp_path):
    directory, story = make(), tmp_path / "evil.jsonl"
    events = [
        protocol.Checkpoint(step=1, adapter="../../../../out.safetensors"),
        protocol.Sample(step=1, path=str(tmp_path / "out.png"), prompt="", seed=0),
        protocol.End(state="done", code=0),
    ]
    story.write_bytes(b"".join(map(protocol.encode, events)))
    assert replay(story, directory) == protocol.DONE
    assert not list(tmp_path.rglob("out.*"))


@pytest.fixture
def telling(make, tell):
    """A job that tells a long story in a thread."""
    directory, stop = make(), threading.Event()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(replay(tell(10_000), directory, 10.0, stop)))
    thread.start()
    yield directory, stop, lambda: (thread.join(), codes[0])[1]
    stop.set()
    thread.join()


def say(directory, name, **arguments):
    return jobs.control(directory, messages.Control(job="", name=name, **arguments)).id


def test_commands_are_answered_and_obeyed(telling, wait):
    directory, _, code = telling
    wait(lambda: jobs.state_of(directory) == "running" and told(directory, protocol.Attempt))
    asked = [say(directory, "pause")]
    wait(lambda: jobs.state_of(directory) == "paused")
    asked.append(say(directory, "set", field="optimizer.lr_unet", value=0.5))
    asked.append(say(directory, "sample", prompt="a cat"))
    asked.append(say(directory, "checkpoint"))
    asked.append(say(directory, "resume"))
    wait(lambda: jobs.state_of(directory) == "running")
    asked.append(say(directory, "pause", release=True))
    assert code() == protocol.INTERRUPTED and jobs.state_of(directory) == "released"
    assert [event.command for event in told(directory, protocol.Acknowledged)] == asked
    assert told(directory, protocol.Changed)[0].value == 0.5
    assert (directory / told(directory, protocol.Sample)[0].path).exists()
    assert (directory / told(directory, protocol.Checkpoint)[-1].adapter).exists()


def test_a_signal_stops_it_also_while_it_is_paused(telling, wait):
    directory, stop, code = telling
    wait(lambda: jobs.state_of(directory) == "running" and told(directory, protocol.Attempt))
    say(directory, "pause")
    wait(lambda: jobs.state_of(directory) == "paused")
    stop.set()
    assert code() == protocol.INTERRUPTED and jobs.state_of(directory) == "stopped"


def test_what_was_said_to_an_earlier_attempt_is_not_obeyed(make, tell):
    directory = make()
    (directory / protocol.CONTROL).write_text(json.dumps({"id": "old", "t": 0.0, "name": "stop"}) + "\n")
    assert replay(tell(2), directory) == protocol.DONE
    assert told(directory, protocol.Acknowledged) == []
