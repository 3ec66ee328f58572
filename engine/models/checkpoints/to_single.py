"""A model as a single file, in the layout that web UIs read: .safetensors, or .ckpt as a pickle of plain content.

A single file has no configs: whoever reads it takes what shapes imply and what its marks say. So what the folder's
configs say beyond that is compared with it, and every difference is told as a loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo, listed
from engine.formats.streams import LazyTensor, Wrote, write_pickle, write_safetensors
from engine.formats.weights import Weights
from engine.models.build import usual_config
from engine.models.checkpoints.casting import Casting
from engine.models.checkpoints.opening import Checkpoint, Part, complete_configs
from engine.models.checkpoints.recipe import Recipe
from engine.models.folder import read_config

SUFFIXES = (".safetensors", ".ckpt")
_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
_UNREAD = ("bos_token_id", "eos_token_id", "pad_token_id", "projection_dim")
"""Fields of a text encoder's config that change nothing here: the end is found as the highest id, by all of them."""
_DEFAULTS: Mapping[str, Any] = {"num_train_timesteps": 1000, "trained_betas": None}


class Plan(NamedTuple):
    """What a single file will hold."""

    tensors: dict[str, LazyTensor]
    metadata: dict[str, str]
    beside: dict[str, Any] | None
    """Beside the `state_dict` of a pickle; None: its tensors are its whole content."""
    losses: list[str]
    """What the file can't keep, in words."""


def plan_single(checkpoint: Checkpoint, casting: Casting) -> Plan:
    """The single file that a folder's model makes. Raises UserError for tensors that have no place in one."""
    tensors: dict[str, LazyTensor] = {}
    losses: list[str] = []
    problems: list[Problem] = []
    for part, place in checkpoint.layout.places.items():
        held = checkpoint.parts[part]
        read = held.reader()
        recipes = _recipes(checkpoint, part)
        homeless = set(held.tensors) - {source for recipe in recipes.values() for source in recipe.sources}
        if homeless:
            problems.append(_no_place(checkpoint, part, homeless))
        for key, recipe in recipes.items():
            make = lambda recipe=recipe, read=read: recipe.make(read)  # noqa: E731
            tensors[place.prefix + key] = casting.lazy(place.prefix + key, recipe.info, make)
    if problems:
        raise UserError(problems)
    marks, metadata = _marks(checkpoint)
    losses += _lost_configs(checkpoint, tensors) + _lost_schedule(checkpoint) + _lost_files(checkpoint.path, checkpoint)
    return Plan(tensors | marks, checkpoint.metadata | metadata, {}, losses)


def plan_copy(weights: Weights, casting: Casting) -> Plan:
    """The same tensors under the same keys, in another container or number format."""
    read = weights.reader()
    tensors = {key: casting.lazy(key, info, lambda key=key: read(key)) for key, info in weights.tensors.items()}
    losses = [f"not taken from {weights.path.name}: {listed(weights.dropped)}"] if weights.dropped else []
    return Plan(tensors, weights.metadata, weights.beside if weights.stored is not None else {}, losses)


def write_single(path: Path, suffix: str, plan: Plan, wrote: Wrote) -> None:
    """Write the file to `path`. suffix: one of SUFFIXES, the container."""
    if suffix == ".safetensors":
        write_safetensors(path, plan.tensors, plan.metadata, wrote)
    elif plan.beside is None:
        write_pickle(path, plan.tensors, wrote)
    else:
        metadata = {"metadata": dict(plan.metadata)} if plan.metadata else {}
        write_pickle(path, {**plan.beside, **metadata, "state_dict": plan.tensors}, wrote)


def _recipes(checkpoint: Checkpoint, part: str) -> dict[str, Recipe]:
    held = checkpoint.parts[part]
    config = usual_config(part) | held.config
    try:
        return checkpoint.layout.places[part].kind.write(held.header, config)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            Problem(
                where=str(checkpoint.path / part / "config.json"),
                expected=f"a {part} of {checkpoint.layout.title}, with as many layers in every block",
                found=f"another ({error})",
                advice="this model can't be written as a single file",
            )
        ) from error


def _no_place(checkpoint: Checkpoint, part: str, names: set[str]) -> Problem:
    return Problem(
        where=str(checkpoint.path / part),
        expected=f"a {part} of {checkpoint.layout.title}",
        found=f"{len(names)} tensors that have no place in a single file: {listed(names)}",
        advice="this model can't be written as a single file",
    )


# ---- marks, for what neither names nor shapes tell


def _marks(checkpoint: Checkpoint) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Tensors and metadata that say what the UNet predicts, and whether its noise goes to the end.

    The tensors are empty ones by which ComfyUI and Forge know SD1 and SDXL models of v. Of SD2, whose two kinds differ
    in nothing else, it is always said.
    """
    import torch

    tensors: dict[str, LazyTensor] = {}
    v = checkpoint.scheduler.get("prediction_type") == "v_prediction"
    if v and checkpoint.family != "sd2":
        tensors["v_pred"] = LazyTensor(TensorInfo("F32", (0,)), lambda: torch.empty(0))
        if checkpoint.scheduler.get("rescale_betas_zero_snr"):
            tensors["ztsnr"] = LazyTensor(TensorInfo("F32", (0,)), lambda: torch.empty(0))
    said = v or checkpoint.family == "sd2"
    return tensors, {"modelspec.prediction_type": "v" if v else "epsilon"} if said else {}


# ---- what gets lost


def _lost_configs(checkpoint: Checkpoint, tensors: Mapping[str, LazyTensor]) -> list[str]:
    """Where the folder's configs differ from those that a reader of the file makes of its shapes."""
    parts = {}
    for part, place in checkpoint.layout.places.items():
        header = {key.removeprefix(place.prefix): t.info for key, t in tensors.items() if key.startswith(place.prefix)}
        parts[part] = Part(place.kind.config(header), {}, {})
    complete_configs(checkpoint.layout, parts, checkpoint.scheduler)
    losses = []
    for part, implied in parts.items():
        readers = usual_config(part) | implied.config
        for name, value in checkpoint.parts[part].config.items():
            if name in readers and name not in _UNREAD and not _alike(value, readers[name]):
                losses.append(f"{part} config: {name} = {value}, where readers of single files take {readers[name]}")
    return losses


def _alike(one: Any, other: Any) -> bool:
    """Whether two values of a config mean the same: one number may stand for a list of equal ones."""
    one, other = (list(value) if isinstance(value, tuple) else value for value in (one, other))
    if isinstance(one, list) != isinstance(other, list):
        several, single = (one, other) if isinstance(one, list) else (other, one)
        return all(value == single for value in several)
    return one == other


def _lost_schedule(checkpoint: Checkpoint) -> list[str]:
    losses = []
    for name in _SCHEDULE:
        usual = checkpoint.layout.scheduler.get(name, _DEFAULTS.get(name))
        if (found := checkpoint.scheduler.get(name, usual)) != usual:
            losses.append(f"scheduler config: {name} = {found}, where readers of single files take {usual}")
    if checkpoint.family == "sd2" and checkpoint.scheduler.get("rescale_betas_zero_snr"):
        losses.append("scheduler config: rescale_betas_zero_snr, for which single files of SD2 have no mark")
    return losses


def _lost_files(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Components of the folder that single files don't have."""
    losses = [f"left out {text}" for text in checkpoint.left_out]
    index = read_config(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    kept = {*checkpoint.parts, *checkpoint.layout.pads, "scheduler"}
    others = [name for name, value in index.items() if isinstance(value, list) and any(value) and name not in kept]
    if others:
        losses.append(f"components that are no part of a single file: {listed(others)}")
    return losses
