"""Writing pictures with the request that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
from PIL.Image import Image

from engine import __version__
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
    said = family.metadata()
    facts = PictureFacts(
        prompt=request.prompt,
        negative=request.negative,
        steps=request.steps,
        sampler="DDIM",
        guidance_scale=request.guidance_scale,
        seed=request.seed,
        width=request.width,
        height=request.height,
        model=said["ss_sd_model_name"],
        model_sha256=said.get("ss_new_sd_model_hash", ""),
        clip_skip=model.clip_skip,
        adapters=tuple(used),
        program=f"loratui {__version__}",
    )
    whole = {
        "model": msgspec.to_builtins(model),
        "adapters": msgspec.to_builtins(list(adapters)),
        "picture": asdict(request),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, image, parameters(facts), whole)
