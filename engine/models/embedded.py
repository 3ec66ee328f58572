"""The bases that come with the program, each put together from folders that it shares with the others. No torch.

They are like any other diffusers folder but for lying in several places, which `engine.tiny.BASES` names.
"""

from __future__ import annotations

from pathlib import Path

from engine import tiny
from engine.config.structs import EMBEDDED
from engine.errors import Problem, UserError
from engine.models.folder import PLACES, Places


def home(name: str) -> Path:
    """The folder that holds what an embedded base shares with no other."""
    return tiny.BASES[name]["unet"].parent


def here() -> list[str]:
    """The embedded bases that this copy of the program has weights for."""
    return [name for name in EMBEDDED if not _missing(name)]


def places(name: str, field: str) -> Places:
    """Where the parts of an embedded base lie. Raises UserError where this copy of the program lacks some."""
    missing = _missing(name)
    if missing:
        raise UserError(
            Problem(
                where=name,
                field=field,
                expected=f"an embedded base that is here ({', '.join(here()) or 'none is'})",
                found=f"this copy of loratui has no weights for {name} ({', '.join(missing)})",
                advice="install loratui again, or choose another base",
            )
        )
    nowhere = home(name)
    return {place: tiny.BASES[name].get(place, nowhere / place) for place in PLACES}


def _missing(name: str) -> list[str]:
    return [part for part, place in tiny.BASES[name].items() if not (place.is_file() or any(place.glob("*")))]
