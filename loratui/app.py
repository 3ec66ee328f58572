"""The app: one screen with five panels, of which one is in front, and what they all share.

Panels are imported and mounted when they are first shown, so that the first screen is there at once. What a panel may
ask of the app is in `bench`. Everything that is kept lies with the host or in the session file: the app can end at any
moment.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.drivers.linux_driver import LinuxDriver
from textual.screen import Screen
from textual.signal import Signal
from textual.worker import WorkerFailed

from engine.config.settings import App as AppSettings
from loratui import actions, crash, session
from loratui.shell.hosted import Hosted
from loratui.shell.themed import Themed
from loratui.widgets.key_line import KeyLine
from loratui.widgets.painting import PaintsSpans
from loratui.widgets.panel import Panel
from loratui.widgets.status_line import StatusLine, parts

if TYPE_CHECKING:
    from loratui.widgets.picture import Paint


class Front(Screen, inherit_bindings=False):
    """The screen of the panels. Textual's own Tab would come before ours."""

    BINDINGS = [Binding("ctrl+c,super+c", "screen.copy_text", show=False)]


class Workbench(PaintsSpans, Hosted, Themed):
    """The whole app. `now`: the clock, for tests."""

    TITLE = "loratui"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = actions.bindings("app", "app.do('{id}')")
    CSS = """
    Front { background: $background; }
    #panels { height: 1fr; }
    Toast { max-width: 80; }
    """

    def __init__(
        self,
        workspace: Path,
        settings: AppSettings,
        complaints: Sequence[str] = (),
        paint: Paint | None = None,
        now: Callable[[], float] = time.time,
    ):
        """`complaints`: what was wrong with the settings, to be said at the start. `paint`: from pixels.choose."""
        super().__init__()
        self.animation_level = "none"
        self.workspace, self.settings, self.paint, self.now = workspace, settings, paint, now
        self.session = session.load(workspace)
        self.project_changed: Signal[str] = Signal(self, "project")
        self.mouse_taken = settings.mouse
        self._panels: dict[str, Panel] = {}
        """By name, those that have their widgets and their memory: none else may be asked anything."""
        self._bringing = asyncio.Lock()
        self._keys, problems = actions.keymap(settings.keys, str(workspace / "settings.toml"))
        self._complaints = [*complaints, *map(str, problems)]
        self.set_keymap(self._keys)

    # --- life ---------------------------------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen:
        return Front()

    def compose(self) -> ComposeResult:
        yield Container(id="panels")
        yield KeyLine(self.keys_of)
        yield StatusLine()

    async def on_mount(self) -> None:
        self.start_theme()
        await self.bring(self.session.panel if self.session.panel in actions.PANELS else "projects")
        self.news()
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))  # the shell has drawn over it
        self._heed_signals()
        self.start_host()
        gc.freeze()  # what is there by now stays: a full collection in the middle of a page down takes longer than it
        for complaint in self._complaints:
            self.say(complaint, "warning")

    def _heed_signals(self) -> None:
        """Remember where one was when the terminal goes or somebody ends the app."""

        def hung_up() -> None:
            self.remember()
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGHUP)  # nobody is there to draw for

        def terminated() -> None:
            self.remember()
            self.exit(return_code=128 + signal.SIGTERM)

        if not self.is_headless:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, hung_up)
            loop.add_signal_handler(signal.SIGTERM, terminated)

    async def on_unmount(self) -> None:
        await self.end_host()

    def news(self) -> None:
        """Bring status line and footer up to date."""
        if self._running and self.screen_stack:
            line = self.screen_stack[0].query_one(StatusLine)
            line.tell(parts(self.project, self.board, self.devices, self.trouble))
            self.look_at_actions()

    def _handle_exception(self, error: Exception) -> None:
        """Textual's way out of a defect: ours says where the details are, and shows no traceback."""
        cause = error.error if isinstance(error, WorkerFailed) else error
        self._exit_renderables.append(crash.report(cause, self.workspace))
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        self._close_messages_no_wait()

    # --- panels -------------------------------------------------------------------------------------------------------

    @property
    def panel(self) -> Panel | None:
        """The panel in front."""
        return next((panel for panel in self._panels.values() if panel.display), None)

    async def bring(self, name: str) -> None:
        """Put a panel in front, and make it first if it has never been there."""
        async with self._bringing:
            before = self.panel
            if before is not None and before.name_ == name:
                return
            if name not in self._panels:
                self._panels[name] = await self._made(name)
            if before is not None:
                before.display = False
                before.hidden()
            panel = self._panels[name]
            panel.display = True
            panel.shown()
            if self.screen is self.screen_stack[0]:
                self._focus_into(panel)
            self.session.panel = name
            self.remember()
            self.look_at_actions()

    async def _made(self, name: str) -> Panel:
        panel = _panel_class(name)()
        panel.display = False
        self._fold(panel)
        await self.screen_stack[0].query_one("#panels").mount(panel)
        panel.recall(self.session.panels.get(name, {}))
        return panel

    def _focus_into(self, panel: Panel) -> None:
        focused = next((widget for widget in panel.query(".start") if widget.focusable), None)
        (focused or panel).focus()

    def show_panel(self, name: str) -> None:
        self.run_worker(self.bring(name), group="panel")

    def on_resize(self) -> None:
        for panel in self.screen_stack[0].query(Panel):
            self._fold(panel)
        self.news()

    def _fold(self, panel: Panel) -> None:
        panel.set_class(self.size.width < panel.narrow_below, "-narrow")

    # --- what panels ask (see bench.Bench) ----------------------------------------------------------------------------

    @property
    def project(self) -> str:
        return self.session.project

    @property
    def library(self) -> list[str]:
        folders = (Path(folder).expanduser() for folder in self.settings.adapters)
        return [str(self.workspace / folder) for folder in folders]

    def open_project(self, name: str) -> None:
        if name != self.session.project:
            self.session.project = name
            self.remember()
            self.project_changed.publish(name)
            self.news()

    def open_run(self, job: str) -> None:
        self.run_worker(self.open_run_now(job), group="panel")

    async def open_run_now(self, job: str) -> None:
        await self.bring("monitor")
        self.panel.open(job)

    def look_at_actions(self) -> None:
        panel = self.panel if self._running and self.screen_stack else None
        if panel is not None:
            shown = [one for one in actions.of(panel.name_) if one.footer]
            self.screen_stack[0].query_one(KeyLine).show(shown, lambda one: panel.why_not(one.verb))

    def remember(self) -> None:
        """Save the session as it is now."""
        for name, panel in self._panels.items():
            self.session.panels[name] = panel.remembered()
        session.save(self.workspace, self.session)

    # --- actions ------------------------------------------------------------------------------------------------------

    def keys_of(self, action: actions.Action) -> str:
        """The keys of an action, the user's where they changed them."""
        return self._keys.get(action.id, action.keys)

    def why_not(self, action: actions.Action) -> str:
        """Why an action of the app or of the panel in front can't be done now."""
        if action.target in ("app", *set(actions.TARGETS) - set(actions.PANELS)):
            return ""
        panel = self.panel
        if panel is None or panel.name_ != action.target:
            return f"in the panel {actions.TARGETS[action.target]}"
        return panel.why_not(action.verb)

    async def do(self, identity: str) -> None:
        """Do an action by its id: of the app, or of the panel in front."""
        action = actions.BY_ID[identity]
        if action.target == "app":
            await self.action_do(identity)
        elif self.panel is not None and self.panel.name_ == action.target:
            await self.panel.action_do(identity)

    async def action_do(self, identity: str) -> None:
        from loratui.screens import everywhere

        verb = actions.BY_ID[identity].verb
        if verb in actions.PANELS:
            await self.bring(verb)
        else:
            self.run_worker(functools.partial(getattr(everywhere, verb), self), group=identity, exclusive=True)

    def focused_targets(self) -> list[str]:
        """Targets of actions from where the focus is outwards: a list, a chart, the panel."""
        node, found = self.screen_stack[0].focused, []
        while node is not None:
            found.append(node.name_ if isinstance(node, Panel) else getattr(node, "TARGET", ""))
            node = node.parent
        front = [self.panel.name_] if self.panel else []
        return [target for target in dict.fromkeys([*reversed(found), *front]) if target in actions.TARGETS]

    def take_mouse(self, taken: bool) -> None:
        """Have the terminal report the mouse, or leave it to the terminal's own selecting of text."""
        self.mouse_taken = taken
        if isinstance(self._driver, LinuxDriver):
            self._driver._mouse = True  # it does nothing about a mouse that it was denied
            (self._driver._enable_mouse_support if taken else self._driver._disable_mouse_support)()

    async def action_quit(self) -> None:
        self.remember()
        self.exit(0)


@functools.cache
def _panel_class(name: str) -> type[Panel]:
    module = importlib.import_module(f"loratui.screens.{name}")
    return getattr(module, f"{name.title()}Panel")
