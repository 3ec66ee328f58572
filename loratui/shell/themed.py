"""The app's themes: all that there are, the one to start with, and edits of the user's own as they are saved."""

from __future__ import annotations

from pathlib import Path

from engine.config.settings import App as Settings
from loratui import themes
from loratui.session import Session
from loratui.shell.talking import Talking

LOOK = 2.0
"""Seconds between two looks at the user's themes."""


class Themed(Talking):
    """`start_theme` is called once, when the app is there."""

    workspace: Path
    settings: Settings
    session: Session

    def __init__(self) -> None:
        super().__init__()
        self.theme_names: set[str] = set()
        """Those that come with loratui, and the user's."""

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.variables(self.current_theme)

    def start_theme(self) -> None:
        """Take the theme chosen last, else that of the settings, else the one that always works on this terminal."""
        self._load()
        usual = Settings().theme
        wanted = self.session.theme or self.settings.theme
        if wanted not in self.theme_names:
            there = ", ".join(sorted(self.theme_names))
            self.say(f"theme {wanted!r} is not there; there are {there}", "warning")
            wanted = usual
        self.theme = "ansi" if wanted == usual and self.console.color_system == "standard" else wanted
        if (self.workspace / "themes").is_dir():
            self.set_interval(LOOK, self.look_at_themes)

    def look_at_themes(self) -> None:
        """Take up a theme that was edited; one that is broken for the moment stays as it was."""
        if themes.changed(self.workspace / "themes"):
            self._load()
            self.refresh_css(animate=False)

    def _load(self) -> None:
        found, problems = themes.load(self.workspace / "themes")
        for theme in found:
            self.register_theme(theme)
        self.theme_names = {theme.name for theme in found}
        for problem in problems:
            self.say(str(problem), "warning")
