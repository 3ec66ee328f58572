"""Making a family from what a user named: the one way in.

`resolve_base` answers what a base is without torch; `load_family` reads it. A new family is recognised in `recognise`
and made here; callers do not change.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Problem, UserError
from engine.models.folder import component_files, open_component
from engine.models.identity import Identity
from engine.models.resolve import BaseFacts, describe, find, look, resolve_base
from engine.models.single import open_single_vae
from engine.models.source import Component, Source

if TYPE_CHECKING:
    import torch

    from engine.models.base import Family

__all__ = ["BaseFacts", "load_family", "resolve_base"]


def load_family(
    base: str,
    *,
    vae: str | None = None,
    prediction: str = "auto",
    dtype: torch.dtype,
    device: torch.device | str,
    field: str = "model.base",
) -> Family:
    """Load a base, frozen: denoiser and text encoders in `dtype`, the VAE in float32, all on `device`.

    vae: a diffusers VAE folder, a folder that has one in vae/, or a file, to replace the base's own. prediction: `auto`
    (the base's own marks), `epsilon` or `v`. Raises UserError for whatever is wrong with the base or the VAE.
    """
    import torch

    from engine.models.build import build
    from engine.models.sd1 import SD1
    from engine.models.sdxl import SDXL

    kind, source = find(base, field, weights=True)
    identity = Identity(base if kind in ("hub", "embedded") else source.path.name, source.files, kind == "file")
    if vae:
        source, identity = _with_vae(source, identity, vae, field.rpartition(".")[0])
    if "vae" not in source.components:
        raise UserError(
            Problem(
                where=str(source.path),
                field=field,
                expected="a base with a VAE (first_stage_model.…)",
                found="none",
                advice="name one as model.vae",
            )
        )
    if prediction != "auto":
        named = {"epsilon": "epsilon", "v": "v_prediction"}[prediction]
        source = replace(source, scheduler=source.scheduler | {"prediction_type": named})
    modules = {
        part: build(part, component, field, torch.float32 if part == "vae" else dtype, device)
        for part, component in source.components.items()
    }
    kind_of = {"sd1": SD1, "sdxl": SDXL}[source.family]
    return kind_of(source, modules, identity, describe(base, kind, source.family))


def _with_vae(source: Source, identity: Identity, vae: str, section: str) -> tuple[Source, Identity]:
    """The base with another VAE in place of its own. Raises UserError where the two don't fit."""
    field = f"{section}.vae" if section else "vae"
    component, files = _open_vae(vae, field, source.family)
    changed = replace(source, components=source.components | {"vae": component})
    latents = source.latent_channels, source.downscale
    given = component.config.get("latent_channels", 4), changed.downscale
    if latents != given:
        raise UserError(
            Problem(
                where=vae,
                field=field,
                expected="latents of {} channels and {}×{} pixels, as the base has".format(*latents, latents[1]),
                found="{} channels and {}×{} pixels".format(*given, given[1]),
                advice="choose a VAE made for this base, or leave the field empty",
            )
        )
    return changed, replace(identity, vae=Path(vae).name, vae_files=files)


def _open_vae(vae: str, field: str, family: str) -> tuple[Component, tuple[Path, ...]]:
    path, kind = look(vae)
    if kind == "folder":
        folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
        return open_component(folder, "vae", field), component_files(folder)
    if kind == "file":
        return open_single_vae(path, field, family), (path,)
    raise UserError(
        Problem(
            where=vae,
            field=field,
            expected="a diffusers VAE folder, or a .safetensors, .ckpt or .pt file",
            found="nothing of that name",
            advice="check the path, or leave the field empty for the base's own VAE",
        )
    )
