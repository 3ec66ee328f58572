"""Writing pictures with the request that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import msgspec
from PIL.Image import Image

from engine.config import AdapterUse, Model
from engine.formats.pictures import PictureFacts, UsedAdapter, parameters, write_png
from engine.models.base import Family
from engine.sampling.sampler import Request


def save_picture(
    path: Path,
    image: Image,
    request: Request,
    family: Family,
    model: Model,
    adapters: Sequence[AdapterUse] = (),
    used: Sequence[UsedAdapter] = (),
) -> None:
    """Write a PNG that says how it was made: `parameters` for other programs, `loratui` for this one."""
    facts = PictureFacts(
        prompt=request.prompt,
        negative=request.negative,
        steps=request.steps,
        sampler=family.sampler_title,
        guidance_scale=request.guidance_scale,
        seed=request.seed,
        width=request.width,
        height=request.height,
        model=family.title,
        model_sha256=family.sha256,
        clip_skip=model.clip_skip,
        adapters=tuple(used),
        program=f"loratui {version('loratui')}",
    )
    whole = {
        "model": msgspec.to_builtins(model),
        "adapters": msgspec.to_builtins(list(adapters)),
        "picture": asdict(request),
    }
    write_png(path, image, parameters(facts), whole)
