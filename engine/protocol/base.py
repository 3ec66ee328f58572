"""The root of every message, so that the modules of messages need not know each other."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of params and results."""


class Nothing(Message, frozen=True):
    """No params, or no result."""
