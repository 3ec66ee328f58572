"""Training states: what a run needs, besides its config, to go on as if it had never stopped.

A state is a folder `<name>-step000500.state`, written whole or not at all, holding tensors and a few facts. Chance
needs no saving, since every draw is a function of the step.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from engine import files

_NAME = re.compile(r"-step(\d+)\.state$")


class Facts(msgspec.Struct, kw_only=True):
    """What goes with the tensors. Equality bit for bit is promised under the same versions and threads."""

    step: int
    versions: dict[str, str]
    threads: int
    device: str


def versions() -> dict[str, str]:
    """The libraries whose version can change bits."""
    import diffusers
    import transformers

    return {
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }


def save(folder: Path, name: str, facts: Facts, tensors: dict[str, Tensor], keep: int) -> Path:
    """Write a state and then drop all but the last `keep`. Raises OSError when the disk refuses."""
    path = folder / f"{name}-step{facts.step:06d}.state"
    with files.replace_folder(path) as temporary:
        content = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        safetensors.torch.save_file(content, temporary / "tensors.safetensors")
        (temporary / "facts.json").write_bytes(msgspec.json.encode(facts))
    for old in find(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def find(folder: Path) -> list[Path]:
    """The states in a folder, oldest first."""
    states = [(int(match[1]), path) for path in folder.glob("*.state") if (match := _NAME.search(path.name))]
    return [path for _, path in sorted(states)]


def load_last(folder: Path) -> tuple[Facts, dict[str, Tensor]] | None:
    """The newest state that can be read, or None. A damaged one is passed over for the one before."""
    for path in reversed(find(folder)):
        try:
            facts = msgspec.json.decode((path / "facts.json").read_bytes(), type=Facts)
            return facts, safetensors.torch.load_file(path / "tensors.safetensors")
        except (OSError, msgspec.DecodeError, msgspec.ValidationError, SafetensorError):
            continue
    return None
