"""What a killed process loses: nothing. Real terminals, hosts and runners; workers that tell a story instead of
training, but where the training itself is what must survive. Every wait is for something to be seen, never for a time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from e2e_tools import (
    DEADLINE,
    ROOT,
    alive,
    command,
    ended,
    events,
    kill,
    listed,
    loratui,
    only_run,
    queued,
    steps,
    train,
    until,
)

from engine import protocol

REAL = ["--set", "training.batch=2", "--set", "prior.weight=0", "--set", "sampling.every=0", "--set", "saving.every=3",
        "--set", "training.validate_every=0", "--set", "sampling.steps=2"]  # fmt: skip


def test_a_run_goes_on_when_its_whole_terminal_is_gone(box, story, images, terminal):
    story(300, 60.0)
    terminal.open(*command(*train(images)))
    run = only_run(box)
    until(lambda: len(steps(box, run)) > 5)
    terminal("kill-session", "-t", "it")
    at_death = len(steps(box, run))
    until(lambda: not {"loratui", "engine"} & {module for _, module in alive(box)})
    assert ended(box, run) == ""
    until(lambda: ended(box, run))
    assert at_death < 300 and steps(box, run) == list(range(1, 301))
    (job,) = listed().values()
    assert (job["id"], job["state"], job["step"], job["steps"]) == (run, "done", 300, 300)


def test_three_queued_runs_run_to_their_end_after_the_terminal_that_queued_them_is_gone(box, story, images, terminal):
    story(20, 40.0)
    shell = " && ".join(" ".join(command(*train(images, "--name", name), "--detach")) for name in ("a", "b", "c"))
    terminal.open(f"{shell}; sleep 1000")
    until(lambda: len(list(box.glob("projects/default/runs/2*"))) == 3)
    until(lambda: "loratui" not in {module for _, module in alive(box)})
    terminal("kill-session", "-t", "it")
    runs = sorted(path.name for path in box.glob("projects/default/runs/2*"))
    until(lambda: all(ended(box, run) for run in runs))
    starts = [events(box, run)[0]["t"] for run in runs]
    assert {run: job["state"] for run, job in listed().items()} == dict.fromkeys(runs, "done")
    assert starts == sorted(starts) and events(box, runs[0])[-1]["t"] <= starts[1], "one device: one after another"
    until(lambda: not alive(box))


def test_watch_goes_on_with_another_host_when_its_own_is_killed_and_misses_nothing(box, story, images):
    story(200, 50.0)
    run = queued(images)
    told = box.parent / "told"
    with told.open("wb") as output:
        watch = subprocess.Popen(command("runs", "watch", "--json", run), stdout=output, stderr=subprocess.PIPE)
    until(lambda: told.read_bytes().count(b"step") > 5)
    kill(box, "engine")
    _, said = watch.communicate(timeout=DEADLINE)
    assert watch.returncode == 0 and b"Traceback" not in said, said
    journal = (box / "projects" / "default" / "runs" / run / protocol.JOURNAL).read_bytes()
    assert told.read_bytes() == journal and steps(box, run) == list(range(1, 201))


def test_a_killed_runner_is_followed_by_another_at_the_next_command_and_the_queue_goes_on(box, story, images):
    story(200, 50.0)
    first, second = queued(images, "--name", "first"), queued(images, "--name", "second")
    until(lambda: steps(box, first))
    kill(box, "engine.runner")
    assert ended(box, first) == "" and events(box, second) == []
    assert set(listed()) == {first, second}
    until(lambda: ended(box, second))
    assert ended(box, first) == ended(box, second) == "done"
    assert [event["number"] for event in events(box, first) if event["event"] == "attempt"] == [1]
    until(lambda: not alive(box))


def test_ctrl_c_in_watch_leaves_the_run_going_and_says_so(box, story, images, terminal):
    story(100_000, 20.0)
    run = queued(images)
    until(lambda: steps(box, run))
    terminal.open("bash --norc -i")
    terminal("send-keys", "-t", "it", f"{' '.join(command('runs', 'watch', run))}; echo code $?", "Enter")
    until(lambda: "training" in terminal("capture-pane", "-p", "-t", "it"))
    terminal("send-keys", "-t", "it", "C-c")
    # The shell tells of the end: of a command of its own, tmux before 3.5 now and then misses it.
    until(lambda: "code 130" in terminal("capture-pane", "-p", "-t", "it"))
    shown = terminal("capture-pane", "-p", "-J", "-t", "it")
    assert f"{run} goes on" in shown and "Traceback" not in shown
    before = len(steps(box, run))
    until(lambda: len(steps(box, run)) > before)


def test_a_killed_worker_is_shown_as_crashed_with_advice_and_resume_finishes(box, images):
    run = queued(images, "--set", "training.steps=10", *REAL)
    until(lambda: len(steps(box, run)) >= 4)
    kill(box, "engine.worker")
    until(lambda: not alive(box))
    job = listed()[run]
    assert job["state"] == "crashed" and any("resume" in advice for advice in job["advice"]), job
    done = loratui("resume", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 10
    told = events(box, run)
    assert [event["number"] for event in told if event["event"] == "attempt"] == [1, 2]
    (resumed,) = (number for number, event in enumerate(told) if event["event"] == "resumed")
    saved = [event["step"] for event in told[:resumed] if event["event"] == "checkpoint"]
    assert told[resumed]["step"] >= saved[-1] > 0, "from the last saved state"
    assert sorted(set(steps(box, run))) == list(range(1, 11))


def test_a_live_run_answers_every_command(box, images):
    run = queued(images, "--set", "training.steps=100000", *REAL)
    until(lambda: steps(box, run))
    for words, event in (
        (["set", run, "optimizer.lr_unet", "0.001"], "changed"),
        (["checkpoint", run], "checkpoint"),
        (["sample", run, "a cat"], "sample"),
        (["pause", run], "paused"),
        (["resume", run], "continued"),
        (["stop", run], "end"),
    ):
        before = sum(told["event"] == event for told in events(box, run))
        done = loratui("runs", *words)
        assert done.returncode == 0 and run in done.stderr and "no answer" not in done.stderr, done.stderr
        until(lambda event=event, before=before: sum(told["event"] == event for told in events(box, run)) > before)
    taken = [told["name"] for told in events(box, run) if told["event"] == "acknowledged" and told["taken"]]
    assert taken == ["set", "checkpoint", "sample", "pause", "resume", "stop"]
    assert ended(box, run) == "stopped" and until(lambda: listed()[run]["state"] == "stopped")


def test_an_engine_py_in_the_current_folder_is_not_run(box, story, images):
    story(3, 0)
    for name in ("engine.py", "torch.py", "msgspec.py"):
        (images.parent / name).write_text(f"open({str(images.parent / 'owned')!r}, 'w')\n")
    scripts = f"import sys; sys.path.pop(0); sys.path[:0] = [{str(ROOT)!r}]; from loratui.cli import main; main()"
    words = [sys.executable, "-c", scripts, *train(images, "--json")]  # as the installed script: no folder of its own
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, cwd=images.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done" and not (images.parent / "owned").exists()


def test_a_folder_deleted_under_a_live_run_leaves_the_list_and_the_queue_whole(box, story, images):
    story(100_000, 20.0)
    gone = queued(images, "--name", "gone")
    story(5, 0)
    after = queued(images, "--name", "after")
    until(lambda: steps(box, gone))
    shutil.rmtree(box / "projects" / "default" / "runs" / gone)
    assert list(listed()) == [after]
    until(lambda: ended(box, after))
    assert {run: job["state"] for run, job in listed().items()} == {after: "done"}
    until(lambda: not alive(box))
