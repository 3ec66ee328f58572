"""The terminal program: the command line and the app. It never imports torch."""

__version__ = "0.1.0"
