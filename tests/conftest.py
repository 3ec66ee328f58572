"""No test touches the user's own workspace or locks; processes that run tests beside each other share neither."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_places(tmp_path_factory):
    """A workspace and locks of this process, for tests that name none of their own."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORATUI_WORKSPACE", str(folder / "workspace"))
        patch.setenv("LORATUI_RUNTIME_DIR", str(folder / "locks"))
        yield


@pytest.fixture
def interruptible():
    """Let processes that the test starts be ended by SIGINT.

    A shell has its background commands ignore it, and they hand that on: such a command may be this test run.
    """
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)
