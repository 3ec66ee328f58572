"""The app asks many things at a time, hears everything, and survives its host."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from engine import protocol
from engine.config import UserError
from engine.protocol import messages
from loratui import app_client
from loratui.app_client import Client
from loratui.client import HostGone


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("LORATUI_RUNTIME_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(app_client, "MOST_UNHEARD", 4)
    return tmp_path / "ws"


def job(workspace: Path, steps: int, name: str = "20260101-0000-cat") -> Path:
    directory = workspace / "projects" / "default" / "runs" / name
    directory.mkdir(parents=True)
    (directory / protocol.CONFIG).write_text('kind = "train"\nname = "cat"\n')
    (directory / protocol.STATUS).write_bytes(protocol.Status(state="done", steps=steps).to_bytes())
    lines = (protocol.encode(protocol.Step(step=step, loss=0.5)) for step in range(steps))
    (directory / protocol.JOURNAL).write_bytes(b"".join(lines))
    return directory


def test_the_app_asks_many_things_at_once(workspace):
    job(workspace, 3)

    async def ask():
        async with Client() as app:
            asked = [
                app.call("jobs.list"),
                app.call("queue.list"),
                app.call("jobs.show", messages.JobRef(job="nothing")),
            ]
            return await asyncio.gather(*asked * 1, return_exceptions=True)

    jobs, queue, refused = asyncio.run(ask())
    assert [row.id for row in jobs.jobs] == ["20260101-0000-cat"]
    assert queue == messages.Queue(jobs=[], runner=False)
    assert isinstance(refused, UserError)


def test_the_app_hears_everything_though_it_asks_between_and_dawdles(workspace):
    job(workspace, 60_000)

    async def listen():
        found = []
        async with Client() as app:
            watching = await app.call("jobs.watch", messages.Watch(job="cat"))
            # Until the client has taken as much as it will keep: it stops reading then, and still answers.
            while len(app._unheard) < app_client.MOST_UNHEARD:
                await asyncio.sleep(0)
            assert (await app.call("queue.list")).jobs == []
            async for told in app.notifications():
                found += [event.step for event in told.events]
                assert (await app.call("queue.list")).jobs == []
                if told.offset >= watching.size:
                    return found

    assert asyncio.run(listen()) == list(range(60_000))


def test_an_app_that_loses_its_host_is_told_everywhere_and_starts_another(workspace):
    async def lose():
        async with Client() as app:
            listening = asyncio.create_task(anext(app.notifications()))
            os.kill(app.hello.pid, signal.SIGSTOP)
            asking = asyncio.create_task(app.call("queue.list"))
            await asyncio.sleep(0)
            first = app.hello.pid
            os.kill(first, signal.SIGKILL)
            for waiting in (listening, asking, app.call("queue.list")):
                with pytest.raises(HostGone):
                    await waiting
            await app.start()
            assert app.hello.pid != first
            return await app.call("queue.list")

    assert asyncio.run(lose()) == messages.Queue(jobs=[], runner=False)


def test_a_call_that_is_given_up_disturbs_no_other():
    async def give_up():
        async with Client() as app:
            asking = asyncio.create_task(app.call("devices.list"))
            await asyncio.sleep(0)
            asking.cancel()
            return [await app.call("queue.list") for _ in range(3)]

    assert asyncio.run(give_up()) == [messages.Queue(jobs=[], runner=False)] * 3


def test_an_app_that_ends_with_unheard_notifications_ends_its_host(workspace):
    job(workspace, 60_000)

    async def leave():
        async with Client() as app:
            await app.call("jobs.watch", messages.Watch(job="cat"))
            while len(app._unheard) < app_client.MOST_UNHEARD:
                await asyncio.sleep(0)
            process = app._process
        return process.returncode

    assert asyncio.run(leave()) == 0
