"""Training states: what a run needs, besides its config, to go on as if it had never stopped.

A state is a folder `<name>-step000500.state`, written whole or not at all, holding tensors and a few facts. Chance
needs no saving, since every draw is a function of the step. Reading trusts nothing: a state that the disk has damaged
since must not become a run that goes on with wrong numbers.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from engine import files

_NAME = re.compile(r"-step(\d+)\.state$")
_TENSORS, _FACTS = "tensors.safetensors", "facts.json"


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the bits of a run besides its config: equality is promised while all of it stays the same."""

    versions: dict[str, str]
    threads: int
    device: str
    base: str
    """Fingerprint of its weights."""
    images: str
    """Hash over the images and captions that are trained on."""

    def changed(self, former: Conditions) -> list[str]:
        """What is not as it was."""
        return [name for name in self.__struct_fields__ if getattr(self, name) != getattr(former, name)]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What goes with the tensors; `sha256` is the hash of their file."""

    step: int
    conditions: Conditions
    sha256: str
    changes: dict[str, float] = {}
    """Fields of the config that were changed in the live run → the values in force."""


def conditions(device: str, base: str, images: str) -> Conditions:
    """Those of this process, with the libraries whose version can change bits."""
    import diffusers
    import transformers

    versions = {
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
    return Conditions(versions=versions, threads=torch.get_num_threads(), device=device, base=base, images=images)


def save(
    folder: Path,
    name: str,
    step: int,
    now: Conditions,
    tensors: dict[str, Tensor],
    keep: int,
    changes: dict[str, float] | None = None,
) -> Path:
    """Write a state and then drop all but the last `keep` up to it. Raises OSError when the disk refuses.

    States of later steps go too: they are there only where they could not be read and the run fell back behind them.
    """
    path = folder / f"{name}-step{step:06d}.state"
    with files.replace_folder(path) as temporary:
        content = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        safetensors.torch.save_file(content, temporary / _TENSORS)
        facts = Facts(step=step, conditions=now, sha256=_digest(temporary / _TENSORS), changes=changes or {})
        (temporary / _FACTS).write_bytes(msgspec.json.encode(facts))
    states = find(folder)
    end = states.index(path) + 1
    for passed in states[: max(0, end - keep)] + states[end:]:
        files.remove_folder(passed)
    return path


def find(folder: Path) -> list[Path]:
    """The states in a folder, oldest first."""
    states = [(int(match[1]), path) for path in folder.glob("*.state") if (match := _NAME.search(path.name))]
    return [path for _, path in sorted(states)]


def load(path: Path) -> tuple[Facts, dict[str, Tensor]] | None:
    """A state, or None for one that is damaged."""
    try:
        facts = msgspec.json.decode((path / _FACTS).read_bytes(), type=Facts)
        if _digest(path / _TENSORS) != facts.sha256:
            return None
        return facts, safetensors.torch.load_file(path / _TENSORS)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, SafetensorError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
