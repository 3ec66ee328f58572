"""A base by its name on the Hugging Face hub: from the local cache if it is there, else downloaded, else refused.

Only the files that are read are fetched, never a repository's alternatives of the same weights. A name is looked up in
the cache first, so that a cached base needs no network at all. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from engine.errors import Problem, UserError
from engine.models.folder import CLASSES, ENCODERS, INDEX, choose_weights, component_files, parts_of, read_config

FOLDERS = (*CLASSES, *ENCODERS.values(), "scheduler")


def is_hub_id(base: str) -> bool:
    """Whether a base that is no path on this machine reads as `owner/name`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", base) is not None


def fetch(repository: str, field: str, weights: bool) -> Path:
    """A folder of the repository's files, with its weights or with the configs alone. Raises UserError."""
    if found := cached(repository, weights):
        return found
    from huggingface_hub import HfApi, snapshot_download

    # HTTPError is that of whichever HTTP client the library uses, which changes between its versions
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError

    try:
        # not list_repo_files, which tries for half a minute where there is no network
        names = [file.rfilename for file in HfApi().model_info(repository).siblings or ()]
        wanted = files_to_fetch(names, weights)
        if INDEX not in names:
            raise UserError(_no_folder(repository, field, names))
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        gated = isinstance(error, GatedRepoError)
        raise UserError(
            Problem(
                where=repository,
                field=field,
                expected="a public repository of the Hugging Face hub, or one that your token opens",
                found="a gated one that does not let you in" if gated else "no such repository",
                advice="accept its terms on its page and run `hf auth login`" if gated else "check the name",
            )
        ) from error
    except (HTTPError, OSError) as error:
        raise UserError(
            Problem(
                where=repository,
                field=field,
                expected="a base in the local cache, or a network to fetch it over",
                found=f"neither ({' '.join(str(error).split())[:120]})",
                advice="download the model on another machine and give the path of its folder or .safetensors file "
                f"as {field}",
            )
        ) from error


def files_to_fetch(names: Iterable[str], weights: bool) -> list[str]:
    """The files of a repository that make a base: configs, tokenizer, and one set of weights a component."""
    wanted = []
    inside: dict[str, list[str]] = {folder: [] for folder in FOLDERS}
    for name in names:
        folder, _, file = name.rpartition("/")
        if name == INDEX:
            wanted.append(name)
        elif folder in inside:
            inside[folder].append(file)
    for folder, files in inside.items():
        # an index of shards is a config to look at and a choice to make
        chosen = choose_weights(files) if folder in CLASSES else None
        wanted += [f"{folder}/{file}" for file in files if file.endswith((".json", ".txt")) and ".index" not in file]
        if chosen and weights:
            wanted.append(f"{folder}/{chosen}")
            if chosen.endswith(".json"):
                kind = ".safetensors" if ".safetensors" in chosen else ".bin"
                wanted += [f"{folder}/{file}" for file in files if file.endswith(kind) and "-of-" in file]
    return wanted


def cached(repository: str, weights: bool) -> Path | None:
    """The folder of a repository in the local cache, if all is there that a base needs."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, INDEX)
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder and _complete(folder, weights) else None


def _complete(folder: Path, weights: bool) -> bool:
    """Whether a cached snapshot holds all that a base needs."""
    try:
        pipeline = str(read_config(folder / INDEX).get("_class_name", ""))
        parts = parts_of("sdxl" if pipeline.startswith("StableDiffusionXL") else "sd1")
        configs = [f"{part}/config.json" for part in parts] + ["scheduler/scheduler_config.json"]
        tokenizers = [folder / ENCODERS[part] for part in parts if part in ENCODERS]
        return (
            all((folder / name).is_file() for name in configs)
            and all((one / "tokenizer.json").is_file() or (one / "merges.txt").is_file() for one in tokenizers)
            and (not weights or all(len(component_files(folder / part)) > 1 for part in parts))
        )
    except UserError:  # a config that can't be read, or an index whose shards were not fetched
        return False


def _no_folder(repository: str, field: str, names: Iterable[str]) -> Problem:
    singles = [name for name in names if name.endswith((".safetensors", ".ckpt"))]
    return Problem(
        where=repository,
        field=field,
        expected="a repository in diffusers' layout, with model_index.json",
        found="single files" if singles else "one without it",
        advice=f"download {singles[0]} and give its path" if singles else "choose another base",
    )
