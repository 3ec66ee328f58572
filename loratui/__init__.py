"""The terminal program: the command line and the app. It never imports torch."""

from engine import __version__

__all__ = ["__version__"]
