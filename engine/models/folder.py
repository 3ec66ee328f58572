"""A base in diffusers' layout: a folder with unet/, text_encoder/, vae/, tokenizer/ and scheduler/, and for Stable
Diffusion XL text_encoder_2/ and tokenizer_2/.

The embedded bases are the same, put together from folders that they share: `Places` says where each lies. Which files
of a component are read is decided here once, for folders and for what is fetched from a hub: full precision before
fp16, safetensors before pickles, whole files and shards alike. No torch until a component is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, UserError
from engine.formats.weights import open_weights
from engine.models.recognise import TRAINED, WANTED, family_of_unet, foreign_pipeline, not_supported
from engine.models.source import Component, Source
from engine.models.tokenizer import VOCABULARY, WINDOW, folder_tokenizer, tokenizer_files

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

_TEXT, _PROJECTING = "CLIPTextModel", "CLIPTextModelWithProjection"
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "text_encoder": (_TEXT, _PROJECTING),
    "text_encoder_2": (_PROJECTING,),
    "vae": ("AutoencoderKL",),
}
"""Part → the classes that its config may name, the usual one first."""
ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Text encoder → the folder of its tokenizer."""
INDEX = "model_index.json"
PLACES = (*CLASSES, *ENCODERS.values(), "scheduler", INDEX)
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")

Places = Mapping[str, Path]
"""Each of `PLACES` → where it lies, whether or not there is anything."""


def parts_of(family: str) -> tuple[str, ...]:
    """The parts that a base of a family has."""
    return tuple(part for part in CLASSES if part != "text_encoder_2" or family == "sdxl")


def places_of(path: Path) -> Places:
    """Where all lies in one folder."""
    return {name: path / name for name in PLACES}


def open_folder(path: Path, field: str, weights: bool = True) -> Source:
    """The base in `path`. weights: False for a folder of configs only. Raises UserError as `open_places`, and where the
    folder is no base at all."""
    check_layout(path, field)
    return open_places(path, places_of(path), field, weights)


def open_places(path: Path, places: Places, field: str, weights: bool = True) -> Source:
    """The base that lies in these places, every problem found at once. path: what to call it.

    Raises UserError: of another family, files missing or unreadable, parts that don't belong together.
    """
    index = read_config(places[INDEX]) if places[INDEX].is_file() else {}
    if name := foreign_pipeline(str(index.get("_class_name", ""))):
        raise not_supported(path, field, name)
    found: dict[str, Any] = {}
    problems: list[Problem] = []

    def take(name: str, step: Callable[[], Any]) -> None:
        try:
            found[name] = step()
        except UserError as error:
            problems.extend(error.problems)

    take("unet", partial(open_component, places["unet"], "unet", field, weights))
    family = family_of_unet(path, field, found["unet"].config) if "unet" in found else "sd1"
    parts = parts_of(family)
    for part in parts[1:]:
        take(part, partial(open_component, places[part], part, field, weights))
    take("scheduler", partial(_scheduler, places["scheduler"], field))
    tokenizers = {part: folder for part, folder in ENCODERS.items() if part in parts}
    for folder in tokenizers.values():
        take(folder, partial(tokenizer_files, places[folder]))
    if problems:
        raise UserError(problems)
    components = {part: found[part] for part in parts}
    _check_fit(path, field, components)
    files = [file for part in parts for file in component_files(places[part])] if weights else []
    files += [file for folder in tokenizers.values() for file in found[folder]]
    files.append(places["scheduler"] / "scheduler_config.json")
    return Source(
        path,
        components,
        found["scheduler"],
        {part: _tokenizer(places[folder], components[part].config) for part, folder in tokenizers.items()},
        (*files, places[INDEX]) if family == "sdxl" and index else tuple(files),
        family=family,
        tokenizer_folder=places["tokenizer"],
        empty_is_zero=family == "sdxl" and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _tokenizer(folder: Path, text: dict[str, Any]) -> Callable[[], CLIPTokenizer]:
    window, vocabulary = text.get("max_position_embeddings", WINDOW), text.get("vocab_size", VOCABULARY)
    return partial(folder_tokenizer, folder, window, vocabulary)


def open_component(folder: Path, part: str, field: str, weights: bool = True) -> Component:
    """One part of a base: its config, and its tensors under their files' names. Raises UserError."""
    config = read_config(folder / "config.json")
    known = CLASSES[part]
    given = config.get("_class_name") or next(iter(config.get("architectures") or ()), known[0])
    if given not in known:
        raise UserError(
            Problem(
                where=str(folder / "config.json"),
                field=field,
                expected=f"a {known[0]}",
                found=f"a {given}",
                advice=f"this version trains {TRAINED}",
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
    if str(config.get("_class_name", "")).startswith("EDM"):
        raise not_supported(folder / "scheduler_config.json", field, "a base with its own noise levels (EDM)")
    # diffusers' own default belongs to models of pixels; latents leave -1..1
    config.setdefault("clip_sample", False)
    return config


def _has_index(path: Path) -> bool:
    return (path / INDEX).is_file()


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


def _check_fit(path: Path, field: str, components: dict[str, Component]) -> None:
    """Raise UserError unless the parts of a base fit together."""
    unet, vae = components["unet"].config, components["vae"].config
    texts = {part: components[part].config for part in ENCODERS if part in components}
    width = sum(text.get("hidden_size", 512) for text in texts.values())
    last = list(texts)[-1]
    given, made = unet.get("in_channels", 4), unet.get("out_channels", 4)
    # the UNet of an inpainting base takes a mask and a masked picture beside the noisy one
    latents = made if given == 2 * made + 1 else given
    pairs = [
        (last, "hidden_size", width, unet.get("cross_attention_dim", 1280), "its UNet takes"),
        ("vae", "latent_channels", vae.get("latent_channels", 4), latents, "its UNet takes"),
    ]
    if "text_encoder_2" in texts:
        added, sizes = unet.get("projection_class_embeddings_input_dim") or 0, unet.get("addition_time_embed_dim") or 0
        summary = texts[last].get("projection_dim", 512)
        windows = [text.get("max_position_embeddings", WINDOW) for text in texts.values()]
        pairs += [
            (last, "projection_dim", summary, added - 6 * sizes, "its UNet takes"),
            (last, "max_position_embeddings", windows[1], windows[0], "the first text encoder reads"),
        ]
    problems = [
        Problem(
            where=str(path / part),
            field=name,
            expected=f"{there}, which {reader}",
            found=str(here),
            advice=f"the parts of this folder do not belong together: choose {WANTED} for {field}",
        )
        for part, name, here, there, reader in pairs
        if here != there
    ]
    if problems:
        raise UserError(problems)
