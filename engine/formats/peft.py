"""PEFT's configuration inside and beside its files: the alphas, which their tensors don't tell.

diffusers packs one configuration a part into the metadata entry `lora_adapter_metadata`, each field behind the part's
name; PEFT itself writes `adapter_config.json` beside `adapter_model.safetensors`. Patterns in them are regular
expressions to PEFT. Here they are literal names or nothing: an expression out of a file could keep us busy for ever.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENTRY = "lora_adapter_metadata"
CONFIG = "adapter_config.json"
_MOST = 10_000_000
"""Bytes of a configuration that are read at most."""


class Unreadable(Exception):
    """A configuration that makes no sense, and where it stands."""


class Settings:
    """The configurations of a file, by part; that of the part "" is PEFT's own and holds for all."""

    def __init__(self, path: Path, metadata: Mapping[str, str]):
        """Raises Unreadable."""
        self._parts: dict[str, dict[str, Any]] = {}
        self._literals: dict[str, dict[str, Any]] = {}
        beside = path.parent / CONFIG
        if ENTRY in metadata:
            for key, value in _table(metadata[ENTRY], ENTRY).items():
                part, _, field = key.rpartition(".")
                self._parts.setdefault(part, {})[field] = value
        elif path.stem == "adapter_model" and beside.is_file() and beside.stat().st_size <= _MOST:
            self._parts[""] = _table(beside.read_text("utf-8", "replace"), CONFIG)

    def alpha(self, part: str, path: str, rank: int) -> float | None:
        """alpha of a module, such that its scale is alpha / rank; None where nothing is said. Raises Unreadable."""
        config = self._parts.get(part) or self._parts.get("")
        if not config:
            return None
        said = _chosen(self._patterns(part, config), path, config.get("lora_alpha"))
        if said is None:
            return None
        if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
            raise Unreadable(f"an alpha of {str(said)[:40]}")
        return said * math.sqrt(rank) if config.get("use_rslora") is True else float(said)

    def _patterns(self, part: str, config: Mapping[str, Any]) -> dict[str, Any]:
        if part not in self._literals:
            self._literals[part] = _literals(config.get("alpha_pattern") or {})
        return self._literals[part]


def _table(text: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Unreadable(f"{where} that is no JSON table")
    return content


def _literals(patterns: Any) -> dict[str, Any]:
    """Name or end of a name → value."""
    if not isinstance(patterns, dict):
        raise Unreadable("patterns that are no table")
    literals = {}
    for pattern, value in patterns.items():
        literal = pattern.removeprefix("^").removesuffix("$").replace(r"\.", ".")
        if re.search(r"[^\w.\-]", literal):
            raise Unreadable(f"the pattern {pattern[:60]}, which is more than a name")
        literals[literal.removeprefix("text_model.")] = value
    return literals


def _chosen(literals: Mapping[str, Any], path: str, default: Any) -> Any:
    """The value for a module: that of its name, or else of the longest end of it, from a dot on."""
    while path:
        if path in literals:
            return literals[path]
        path = path.partition(".")[2]
    return default


def configuration(layers: Mapping[str, Any], dora: bool) -> dict[str, Any]:
    """The configuration of one part whose modules, by path, have these ranks and alphas.

    layers: path → layer with `rank` and `alpha`. What most modules have is said once, what others have by their names.
    """
    ranks = {path: layer.rank for path, layer in layers.items()}
    alphas = {path: _number(layer.alpha) for path, layer in layers.items()}
    rank, alpha = (max(set(found), key=found.count) for found in (sorted(ranks.values()), sorted(alphas.values())))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: found for path, found in ranks.items() if found != rank},
        "alpha_pattern": {path: found for path, found in alphas.items() if found != alpha},
        "target_modules": sorted(layers),
        "use_dora": dora,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "peft_type": "LORA",
    }


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
