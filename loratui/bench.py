"""What panels may ask of the app: the host, the rows of all runs, the device figures, dialogs, words, the clipboard.

A protocol and no class, so that widgets and screens import nothing of the app, and the app stays one class that does
these things.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from textual.signal import Signal

from engine.protocol import messages
from loratui.board import Board

if TYPE_CHECKING:
    from loratui.widgets.picture import Paint

Severity = Literal["information", "warning", "error"]


class Bench(Protocol):
    """The app, as its panels see it."""

    board: Board
    """Runs, queue and projects as the host told them last."""
    board_changed: Signal[set[str]]
    """Ids of the runs whose rows changed; empty where only projects did."""
    devices: messages.DeviceFigures | None
    devices_changed: Signal[messages.DeviceFigures]
    project_changed: Signal[str]
    images_checked: Signal[messages.ImagesChecked]
    host_back: Signal[None]
    """A host was started again: what was asked of the old one has to be asked again. Watches are renewed by the app."""

    paint: Paint | None
    """How a picture is drawn in pixels, where the terminal can: for `Picture`."""

    @property
    def project(self) -> str:
        """The open project; empty for none."""

    @property
    def workspace(self) -> Path: ...

    @property
    def library(self) -> list[str]:
        """Folders of adapter files from the settings."""

    def now(self) -> float:
        """Seconds since 1970."""

    async def call(self, method: str, params: messages.Message = ...) -> Any:
        """The result of a host's method. Raises UserError, HostError or HostGone; see `tried`."""

    async def tried(self, method: str, params: messages.Message = ...) -> Any | None:
        """As `call`; a failure is said to the user and gives None."""

    def follow(self, job: str, heard: Callable[[messages.JobEvents], None]) -> None:
        """Tell `heard` everything that a job says, from its first event on, also across a new host. Others may listen
        too: one who joins makes all of it be told once more, `restarted`."""

    def unfollow(self, job: str, heard: Callable[[messages.JobEvents], None]) -> None: ...

    def open_project(self, name: str) -> None: ...

    def open_run(self, job: str) -> None:
        """Show a run in the monitor."""

    def show_panel(self, name: str) -> None: ...

    def say(self, text: str, severity: Severity = "information") -> None:
        """A toast of plain text: for what can't be seen where it happened."""

    def confirm(self, title: str, text: str, yes: str) -> Awaitable[bool]:
        """Ask before something is lost; the default is no. In a worker."""

    def ask(
        self, title: str, text: str = "", value: str = "", check: Callable[[str], str] | None = None
    ) -> Awaitable[str | None]:
        """A line of text, or None. `check` gives what is wrong with it, or an empty text. In a worker."""

    def choose(self, title: str, entries: list[Any], note: str = "") -> Awaitable[Any | None]:
        """One of `finder.Entry`s by typing some of its letters; gives its `value`, or None. In a worker."""

    def copy(self, text: str, what: str) -> None: ...

    def look_at_actions(self) -> None:
        """What can be done has changed: the footer is drawn again, if it says something else now."""
