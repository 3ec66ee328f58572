"""A base in diffusers' layout: a folder with unet/, text_encoder/, vae/, tokenizer/ and scheduler/.

Which files of a component are read is decided here once, for folders and for what is fetched from a hub: full precision
before fp16, safetensors before pickles, whole files and shards alike. No torch until a component is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, UserError
from engine.formats.weights import open_weights
from engine.models.recognise import WANTED, foreign_pipeline, foreign_unet, inpainting, not_supported
from engine.models.source import Component, Source
from engine.models.tokenizer import VOCABULARY, WINDOW, folder_tokenizer, tokenizer_files

if TYPE_CHECKING:
    from torch import Tensor

CLASSES = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel", "vae": "AutoencoderKL"}
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")


def open_folder(path: Path, field: str, weights: bool = True) -> Source:
    """The base in `path`, every problem found at once. weights: False for a folder of configs only.

    Raises UserError: not a diffusers folder, not an SD1.x one, an inpainting one, files missing or unreadable.
    """
    check_layout(path, field)
    pipeline = read_config(path / "model_index.json").get("_class_name", "") if _has_index(path) else ""
    if name := foreign_pipeline(str(pipeline)):
        raise not_supported(path, field, name)
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    steps: dict[str, Callable[[], Any]] = {
        part: partial(open_component, path / part, part, field, weights) for part in CLASSES
    }
    steps["scheduler"] = partial(_scheduler, path / "scheduler", field)
    steps["tokenizer"] = partial(tokenizer_files, path / "tokenizer")
    for name, step in steps.items():
        try:
            found[name] = step()
        except UserError as error:
            problems += error.problems
    if "unet" in found:
        _check_unet(path, field, found["unet"].config)
    if problems:
        raise UserError(problems)
    components = {part: found[part] for part in CLASSES}
    _check_fit(path, field, components)
    text = components["text_encoder"].config
    window, vocabulary = text.get("max_position_embeddings", WINDOW), text.get("vocab_size", VOCABULARY)
    tokenizer = partial(folder_tokenizer, path / "tokenizer", window, vocabulary)
    parts = [file for part in CLASSES for file in component_files(path / part)] if weights else []
    files = (*parts, *found["tokenizer"], path / "scheduler" / "scheduler_config.json")
    return Source(path, components, found["scheduler"], tokenizer, files)


def open_component(folder: Path, part: str, field: str, weights: bool = True) -> Component:
    """One part of a base: its config, and its tensors under their files' names. Raises UserError."""
    config = read_config(folder / "config.json")
    expected = CLASSES[part]
    given = config.get("_class_name") or next(iter(config.get("architectures") or ()), expected)
    if given not in (expected, "CLIPTextModelWithProjection" if part == "text_encoder" else expected):
        raise UserError(
            Problem(
                where=str(folder / "config.json"),
                field=field,
                expected=f"a {expected}",
                found=f"a {given}",
                advice="this version trains SD1.x",
            )
        )
    if weights and not component_files(folder)[1:]:
        raise UserError(
            Problem(
                where=str(folder),
                field=field,
                expected="weights (.safetensors or .bin) beside config.json",
                found="none",
                advice="copy or download the folder again",
            )
        )
    return Component(config, folder, partial(_read, folder))


def _read(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in component_files(folder)[1:]:
        if file.suffix != ".json":
            yield from open_weights(file).load()


# ---- which files


def component_files(folder: Path) -> tuple[Path, ...]:
    """config.json and the files that hold a component's weights, an index of shards included. Raises UserError."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    chosen = choose_weights(names)
    if chosen is None:
        return (folder / "config.json",)
    if not chosen.endswith(".json"):
        return (folder / "config.json", folder / chosen)
    shards = sorted(set(read_config(folder / chosen).get("weight_map", {}).values()))
    # the index is a stranger's text: a shard is a file beside it and nothing else
    bad = [name for name in shards if not isinstance(name, str) or Path(name).name != name or name not in names]
    if bad or not shards:
        raise UserError(
            Problem(
                where=str(folder / chosen),
                expected="shards that lie beside the index",
                found=f"{bad[0]!r}, which does not" if bad else "none",
                advice="copy or download the folder again",
            )
        )
    return (folder / "config.json", folder / chosen, *(folder / name for name in shards))


def choose_weights(names: Iterable[str]) -> str | None:
    """The file of weights, or index of shards, to take among a component's file names."""
    stems = "|".join(_STEMS)
    best: tuple[tuple[int, int, str], str] | None = None
    for name in names:
        whole = re.fullmatch(rf"({stems})(?:\.([\w-]+))?\.(safetensors|bin)", name)
        index = re.fullmatch(rf"({stems})(?:\.([\w-]+))?\.(safetensors|bin)\.index(?:\.([\w-]+))?\.json", name)
        if not (whole or index):
            continue
        kind = (whole or index)[3]
        variant = (whole or index)[2] or (index[4] if index else None) or ""
        rank = (("safetensors", "bin").index(kind), 0 if not variant else 1 if variant == "fp16" else 2, name)
        if best is None or rank < best[0]:
            best = (rank, name)
    return best[1] if best else None


# ---- configs


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError where the file is missing or holds something else."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            Problem(
                where=str(path),
                expected="a readable file",
                found=error.strerror or str(error),
                advice="copy or download the folder again",
            )
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            Problem(where=str(path), expected="JSON", found=str(error), advice="copy or download the folder again")
        ) from error
    if not isinstance(content, dict):
        raise UserError(Problem(where=str(path), expected="a JSON object", found=type(content).__name__))
    return content


def _scheduler(folder: Path, field: str) -> dict[str, Any]:
    config = read_config(folder / "scheduler_config.json")
    prediction = config.setdefault("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise UserError(
            Problem(
                where=str(folder / "scheduler_config.json"),
                field="prediction_type",
                expected="epsilon or v_prediction",
                found=str(prediction),
                advice=f"choose another base for {field}",
            )
        )
    # diffusers' own default belongs to models of pixels; latents leave -1..1
    config.setdefault("clip_sample", False)
    return config


def _has_index(path: Path) -> bool:
    return (path / "model_index.json").is_file()


def check_layout(path: Path, field: str) -> None:
    """Raise UserError, saying what the folder is instead, unless it looks like a diffusers folder."""
    if _has_index(path) or (path / "unet" / "config.json").is_file():
        return
    found, advice = "a folder without model_index.json", "choose a folder that has one, or a .safetensors or .ckpt file"
    singles = files_in(path, (".safetensors", ".ckpt"))
    if (path / "config.json").is_file() and (_has_index(path.parent) or choose_weights(singles)):
        found, advice = "one part of a base model", f"choose the whole folder, perhaps {path.parent}"
    elif singles:
        advice = f"name one of its files, such as {path / singles[0]}"
    raise UserError(Problem(where=str(path), field=field, expected="a diffusers folder", found=found, advice=advice))


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Names of a folder's files with these suffixes, sorted; none of a folder that can't be read."""
    try:
        return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in suffixes)
    except OSError:
        return []


def _check_unet(path: Path, field: str, config: dict[str, Any]) -> None:
    if name := foreign_unet(config):
        raise not_supported(path, field, name)
    if config.get("in_channels") == 9:
        raise inpainting(path, field)


def _check_fit(path: Path, field: str, components: dict[str, Component]) -> None:
    """Raise UserError unless the parts of a base fit together."""
    unet, text, vae = (components[part].config for part in ("unet", "text_encoder", "vae"))
    pairs = (
        ("text_encoder", "hidden_size", text.get("hidden_size", 512), unet.get("cross_attention_dim", 1280)),
        ("vae", "latent_channels", vae.get("latent_channels", 4), unet.get("in_channels", 4)),
    )
    problems = [
        Problem(
            where=str(path / part),
            field=name,
            expected=f"{there}, which its UNet takes",
            found=str(here),
            advice=f"the parts of this folder do not belong together: choose {WANTED} for {field}",
        )
        for part, name, here, there in pairs
        if here != there
    ]
    if problems:
        raise UserError(problems)
