"""From the options of a command to a request: preset, config file, flags and `--set`, in this order.

Which family a base belongs to is the engine's to say, and it is asked in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from engine.config import PRESETS, Prior, Problem, Request, UserError
from loratui.child import engine_command, engine_environment
from loratui.draft import variant, with_dropout


def resolve_base(base: str) -> dict[str, Any]:
    """What a base is: family, title, default_resolution … Raises UserError with the engine's problems."""
    done = subprocess.run(
        engine_command("resolve", base), env=engine_environment(), capture_output=True, text=True, check=False
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        found = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(Problem(where=base, expected="an answer of the engine", found=found)) from None
    if "problems" in answer:
        raise UserError(Problem(**problem) for problem in answer["problems"])
    return answer["facts"]


def preset_values(preset: str, base: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables of a preset for a base, and what the base is. Raises UserError for an unknown preset."""
    if preset not in PRESETS:
        raise UserError(
            Problem(where="--preset", expected=f"one of {', '.join(PRESETS)}", found=repr(preset), advice="see --help")
        )
    facts = resolve_base(base)
    return PRESETS[preset][variant(facts["kind"], facts["family"])], facts


def from_preset(preset: str, base: str, subsets: list[dict[str, Any]], class_prompt: str) -> tuple[Request, list[str]]:
    """A request with a preset's values for these images, and what the user should know of it.

    Without a class prompt and without class images there is nothing to preserve: prior preservation is then off.
    """
    values, facts = preset_values(preset, base)
    origin = f"preset {preset}"
    request = Request()
    request.lay({"kind": "train"} | values, origin)
    request.lay({"model": {"base": base}, "dataset": {"subsets": with_dropout(preset, subsets)}}, "command line")
    told = [f"base: {facts['title']}, family {facts['family']}, {facts['default_resolution']} px"]
    weight = values.get("prior", {}).get("weight", Prior().weight)
    if class_prompt:
        request.lay({"prior": {"prompt": class_prompt}}, "--class-prompt")
    elif weight and not any(subset.get("is_reg") for subset in subsets):
        request.lay({"prior": {"weight": 0.0}}, origin)
        told.append(
            'prior preservation is off, for no class is known: --class-prompt "a cat" or --class-data turns it on'
        )
    return request, told


def from_file(path: Path) -> Request:
    """A request from a config file."""
    request = Request()
    request.read(path)
    return request
