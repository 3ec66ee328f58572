"""A model on the disk as a `Checkpoint`: its parts with their configs, and its tensors under their names in diffusers.

Both layouts end in the same thing, so whatever is done with a model (writing it in the other layout, adding adapters to
it, comparing it with another) is written once. Only headers and configs are read here; a part's `reader` maps files.
Names are those of modules in diffusers and transformers 5 (`encoder.layers.0.mlp.fc1.weight`, without `text_model.`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo, listed
from engine.formats.weights import Weights, open_weights
from engine.models import ldm
from engine.models.checkpoints.layout import LAYOUTS, Layout, Place, added_dimensions
from engine.models.checkpoints.recipe import Header, Recipe, same, shaped
from engine.models.folder import INDEX, Places, check_layout, component_files, places_of, read_config
from engine.models.recognise import READABLE, family_of_file, family_of_folder
from engine.models.single import marked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """One network of a model."""

    config: dict[str, Any]
    """Of diffusers or transformers: the folder's own, or what a single file implies."""
    tensors: dict[str, Recipe]
    """Name in the module → how it is made of the tensors in the files."""
    files: Mapping[str, Weights]
    """Each name in the files → the file that has it."""

    @property
    def header(self) -> Header:
        """The tensors by their names in the module."""
        return {name: recipe.info for name, recipe in self.tensors.items()}

    def reader(self) -> Callable[[str], Tensor]:
        """A function of a module's tensor name that gives the tensor, of the mapped files, in their dtype."""
        readers: dict[Path, Callable[[str], Tensor]] = {}

        def stored(key: str) -> Tensor:
            weights = self.files[key]
            if weights.path not in readers:
                readers[weights.path] = weights.reader()
            return readers[weights.path](key)

        return lambda name: self.tensors[name].make(stored)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model of one of the families in `layout`."""

    path: Path
    family: str
    single: Weights | None
    """The one file, of a model that is one."""
    parts: dict[str, Part]
    scheduler: dict[str, Any]
    """Config of its noise schedule. A single file says only what differs from what is usual."""
    metadata: dict[str, str]
    left_out: tuple[str, ...] = field(default=())
    """What in the files belongs to no part, in words."""
    places: Places = field(default_factory=dict)
    """Of a folder: where each of its parts lies."""

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.family]


def open_checkpoint(path: Path, field: str = "", whole: bool = True, places: Places | None = None) -> Checkpoint:
    """The model in a diffusers folder or a single file.

    places: where the parts of a folder lie, if not in it. whole: whether every part of its family has to be there;
    otherwise the UNet does. Raises UserError.
    """
    checkpoint = _folder(path, places or places_of(path), field) if path.is_dir() else _file(path, field)
    missing = [part for part in checkpoint.layout.places if part not in checkpoint.parts]
    if whole and missing:
        raise UserError(
            Problem(
                where=str(path),
                field=field,
                expected=f"a whole {checkpoint.layout.title} model",
                found=f"one without {' and '.join(missing)}",
                advice="choose a model that has all of its parts",
            )
        )
    return checkpoint


# ---- single files


def _file(path: Path, field: str) -> Checkpoint:
    weights = open_weights(path)
    family = family_of_file(path, field, weights.tensors)
    parts: dict[str, Part] = {}
    taken: set[str] = set()
    for part, place in LAYOUTS[family].places.items():
        shapes = {
            key.removeprefix(place.prefix): info
            for key, info in weights.tensors.items()
            if key.startswith(place.prefix) and not ldm.is_dropped(key)
        }
        if shapes:
            parts[part], used = _part_of_file(weights, place, shapes, field)
            taken |= used
    said = marked(weights)
    if family == "sd2" and "prediction_type" not in said:
        said["prediction_type"] = _measured(weights)
    scheduler = dict(LAYOUTS[family].scheduler) | said
    complete_configs(LAYOUTS[family], parts, scheduler)
    left_out = _left_out([key for key in weights.tensors if key not in taken])
    return Checkpoint(path, family, weights, parts, scheduler, weights.metadata, left_out)


def _part_of_file(weights: Weights, place: Place, shapes: Header, field: str) -> tuple[Part, set[str]]:
    try:
        config = place.kind.config(shapes)
        named = place.kind.read(shapes, config)
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        missing = place.prefix + str(error.args[0]) if isinstance(error, KeyError) else f"parts of {place.prefix}"
        raise UserError(
            Problem(
                where=str(weights.path),
                field=field,
                expected=f"{READABLE}, whole",
                found=f"no {missing}",
                advice="the file is incomplete: download or convert it again",
            )
        ) from error
    prefixed = {name: recipe.of(place.prefix) for name, recipe in named.items()}
    used = {key for recipe in prefixed.values() for key in recipe.sources}
    return Part(config, prefixed, {key: weights for key in used}), used


_TELLING = ldm.UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"


def _measured(weights: Weights) -> str:
    """What an SD2 predicts that has no mark, by the spread of one bias, as ComfyUI tells the two published kinds."""
    if _TELLING not in weights.tensors:
        return "epsilon"
    return "v_prediction" if weights.reader()(_TELLING).double().std(correction=0) > 0.09 else "epsilon"


def complete_configs(layout: Layout, parts: dict[str, Part], scheduler: Mapping[str, Any]) -> None:
    """Add to the configs what shapes of one part don't tell."""
    for name, part in parts.items():
        part.config.update(layout.defaults(name, part.config, scheduler.get("prediction_type", "epsilon")))
    if projecting := parts.get("text_encoder_2"):
        parts["unet"].config.update(added_dimensions(parts["unet"].config, projecting.config))


def _left_out(keys: Iterable[str]) -> tuple[str, ...]:
    """What becomes of tensors that no part takes: grouped, since training leaves hundreds of one kind."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(_kind_of(key), []).append(key)
    return tuple(f"{len(names)} {kind}: {listed(names, 2)}" for kind, names in groups.items())


def _kind_of(key: str) -> str:
    if key.startswith("model_ema."):
        return "averages kept for training"
    if key.startswith("cond_stage_model.model.") and not ldm.is_dropped(key):
        return "tensors of the text encoder's last layer and projection, which SD2 does not read"
    return "buffers and marks" if ldm.is_dropped(key) else "tensors of no known use"


# ---- folders


def _folder(path: Path, places: Places, field: str) -> Checkpoint:
    check_layout(path, field)
    index = places[INDEX]
    pipeline = read_config(index).get("_class_name") if index.is_file() else ""
    family = family_of_folder(path, field, str(pipeline or ""), read_config(places["unet"] / "config.json"))
    parts: dict[str, Part] = {}
    problems: list[Problem] = []
    left_out: list[str] = []
    for part in LAYOUTS[family].places:
        if not places[part].is_dir():
            continue
        try:
            parts[part], dropped = _part_of_folder(places[part], field)
            left_out += _left_out(f"{part}.{key}" for key in dropped)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    schedule = places["scheduler"] / "scheduler_config.json"
    scheduler = read_config(schedule) if schedule.is_file() else dict(LAYOUTS[family].scheduler)
    first = next(iter(parts["unet"].files.values()))
    return Checkpoint(path, family, None, parts, scheduler, first.metadata, tuple(left_out), places)


def _part_of_folder(folder: Path, field: str) -> tuple[Part, list[str]]:
    """A part, and the keys in its files that are no part of it."""
    config = read_config(folder / "config.json")
    files: dict[str, Weights] = {}
    for file in component_files(folder)[1:]:
        if file.suffix != ".json":
            weights = open_weights(file)
            files |= dict.fromkeys(weights.tensors, weights)
    if not files:
        raise UserError(
            Problem(
                where=str(folder),
                field=field,
                expected="weights (.safetensors or .bin) beside config.json",
                found="none",
                advice="copy or download the folder again",
            )
        )
    dropped = [key for key in files if key.endswith("position_ids")]
    tensors = {
        ldm.modern_name(key): _of_folder(key, weights.tensors[key])
        for key, weights in files.items()
        if key not in dropped
    }
    return Part(config, tensors, files), dropped


def _of_folder(key: str, info: TensorInfo) -> Recipe:
    attends = re.match(r"(en|de)coder\.mid_block\.attentions\.", key) and info.shape[2:] == (1, 1)
    return shaped(key, info, info.shape[:2]) if attends else same(key, info)
