"""Class images for prior preservation (Ruiz et al. 2022), drawn by the base itself before anything is adapted.

They lie in the workspace's cache under a name made of everything that decides them, so that later runs find them again
and a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from engine import draws, files, paths
from engine.config import Prior
from engine.data.items import Item
from engine.models.base import Family
from engine.sampling import sampler

BATCH = 4
"""Pictures drawn together. Kernels differ by batch size, so this is part of what decides the bits."""


def folder(family: Family, prior: Prior, resolution: int, clip_skip: int, seed: int) -> Path:
    """Where the class images of these settings belong."""
    deciding = {
        "base": family.fingerprint,
        "objective": family.objective,
        "dtype": str(family.dtype),
        "prompt": prior.prompt,
        "images": prior.images,
        "steps": prior.steps,
        "guidance_scale": prior.guidance_scale,
        "resolution": resolution,
        "clip_skip": clip_skip,
        "seed": seed,
        "batch": BATCH,
    }
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
    return paths.cache("class-images", digest[:24])


def draw_missing(
    family: Family,
    prior: Prior,
    resolution: int,
    clip_skip: int,
    seed: int,
    progress: Callable[[int], None],
    tick: Callable[[], None],
) -> Path:
    """Draw the class images that are not there yet and return their folder. `progress` is told how many there are."""
    target = folder(family, prior, resolution, clip_skip, seed)
    for start in range(0, prior.images, BATCH):
        numbers = range(start, min(start + BATCH, prior.images))
        if not all((target / f"{number:05d}.png").exists() for number in numbers):
            requests = [_request(prior, resolution, seed, number) for number in numbers]
            for number, image in zip(numbers, sampler.draw(family, requests, clip_skip, tick), strict=True):
                _save(image, target / f"{number:05d}.png")
        progress(numbers.stop)
    return target


def items(folder: Path, prior: Prior, resolution: int) -> tuple[Item, ...]:
    """The drawn images as class items of a dataset, in the order of their numbers."""
    files_ = [folder / f"{number:05d}.png" for number in range(prior.images)]
    return tuple(
        Item(
            path=path,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            width=resolution,
            height=resolution,
            bucket=(resolution, resolution),
            caption=prior.prompt,
            caption_source="prior.prompt",
            is_reg=True,
            subset=-1,
        )
        for path in files_
    )


def _request(prior: Prior, resolution: int, seed: int, number: int) -> sampler.Request:
    return sampler.Request(
        prompt=prior.prompt,
        negative="",
        seed=draws.bits(seed, "class-image", number),
        width=resolution,
        height=resolution,
        steps=prior.steps,
        guidance_scale=prior.guidance_scale,
    )


def _save(image: Image.Image, path: Path) -> None:
    with files.replace_file(path) as temporary:
        image.save(temporary)
