"""Which base is meant by a name, and its facts, before anything heavy is loaded.

A name is, in this order: an embedded base's (`tiny` …), a path that exists, a hub id; the order matters, since
`owner/name` may be a folder here. Reads configs and headers only; no torch.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from engine.config.structs import EMBEDDED
from engine.errors import Problem, UserError
from engine.formats.weights import SUFFIXES
from engine.models import embedded, hub
from engine.models.folder import files_in, open_folder, open_places
from engine.models.single import open_single
from engine.models.source import Source


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base without loading it."""

    base: str
    """As the user named it."""
    kind: str
    """`embedded`, `folder`, `hub` or `file`."""
    path: Path
    """The folder or file that it was resolved to."""
    family: str
    """`sd1` or `sdxl`."""
    title: str
    default_resolution: int
    """Side of the square pictures that it was made for, in pixels."""
    size_step: int
    """Picture sides are multiples of it, in pixels."""
    prediction: str
    """`epsilon` or `v`, by its own marks."""


def resolve_base(base: str, field: str = "model.base") -> BaseFacts:
    """The facts of a base: an embedded one, a diffusers folder, a hub id, or a .safetensors or .ckpt file.

    Of a hub id not in the local cache the configs are fetched. Raises UserError for anything that can't be trained.
    """
    kind, source = find(base, field, weights=False)
    title = describe(base, kind, source.family)
    return BaseFacts(
        base, kind, source.path, source.family, title, source.resolution, source.size_step, source.prediction
    )


def describe(base: str, kind: str, family: str) -> str:
    """A base in words, for people."""
    if kind == "embedded":
        return f"the embedded {base} base"
    return f"{'Stable Diffusion XL' if family == 'sdxl' else 'Stable Diffusion 1.x'} ({Path(base).name})"


def find(base: str, field: str, weights: bool) -> tuple[str, Source]:
    """The kind of a base and where its parts lie. weights: whether a hub's weights are needed too. Raises UserError."""
    if base in EMBEDDED:
        places = embedded.places(base, field)
        return "embedded", open_places(embedded.home(base), places, field, weights)
    path, kind = look(base)
    if kind == "folder":
        return kind, open_folder(path, field)
    if kind == "file":
        return kind, open_single(path, field)
    if on_hub(base):
        return "hub", open_folder(hub.fetch(base, field, weights), field, weights)
    near = get_close_matches(path.name, files_in(path.parent, SUFFIXES[:2]), 1, 0)
    raise UserError(
        Problem(
            where=base,
            field=field,
            expected=f"{', '.join(embedded.here())}, a diffusers folder, a hub id (owner/name), "
            "or a .safetensors or .ckpt file",
            found="nothing of that name",
            advice="check the path" + (f"; beside it there is {near[0]}" if near else ""),
        )
    )


def find_here(base: str, field: str) -> Source | None:
    """The base as far as this machine has it: None for a hub id that is not in the local cache, and no network asked.

    Raises UserError as `find`.
    """
    if not on_hub(base):
        return find(base, field, weights=False)[1]
    cached = hub.cached(base, weights=False)
    return open_folder(cached, field, weights=False) if cached else None


def on_hub(base: str) -> bool:
    """Whether a name can only be a hub id: nothing of that name lies here."""
    path, kind = look(base)
    named = base not in EMBEDDED and not kind and hub.is_hub_id(base)
    return named and path.suffix.lower() not in SUFFIXES


def look(base: str) -> tuple[Path, str]:
    """A name as a path, and what lies there: `folder`, `file` or nothing."""
    path = Path(base)
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no such home, too long, not a path at all
        path = path.expanduser()
        return path, "folder" if path.is_dir() else "file" if path.exists() else ""
    return path, ""
