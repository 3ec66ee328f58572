"""A base as it lies on the disk: configs and places, before any weight is read.

`folder` and `single` each make a `Source`; `build` turns its components into modules. Parts have the names of their
folders in diffusers' layout; text encoders are all whose names begin with `text_encoder`. No torch until a component is
read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.clip.tokenization_clip import CLIPTokenizer


@dataclass(frozen=True, eq=False)
class Component:
    """One part of a base: the config of its module and how to read its tensors."""

    config: dict[str, Any]
    origin: Path
    """The folder or file it came from, for messages."""
    read: Callable[[], Iterator[tuple[str, Tensor]]]
    """Names as the module has them (older spellings may remain) and tensors in the file's precision."""


@dataclass(frozen=True, eq=False)
class Source:
    """Everything that makes a base."""

    path: Path
    components: dict[str, Component]
    """unet, text_encoder, text_encoder_2 of the families that have one and, unless the base has none, vae."""
    scheduler: dict[str, Any]
    """Config of its noise schedule, `prediction_type` included."""
    tokenizers: dict[str, Callable[[], CLIPTokenizer]]
    """Text encoder → its tokenizer."""
    files: tuple[Path, ...]
    """The files whose bytes make it what it is."""
    notices: tuple[str, ...] = field(default=())
    """What a user should know about how it was read."""
    family: str = "sd1"
    """`sd1` or `sdxl`."""
    tokenizer_folder: Path | None = None
    """Where its first tokenizer is saved; None for CLIP's own."""
    empty_is_zero: bool = False
    """Whether an empty caption is told to the denoiser as zeros, and not as what text encoders make of it."""

    @property
    def prediction(self) -> str:
        """What the denoiser predicts: `epsilon` or `v`."""
        return {"epsilon": "epsilon", "v_prediction": "v"}[self.scheduler["prediction_type"]]

    @property
    def downscale(self) -> int:
        """Pixels per latent, along a side. SD1's for a base without a VAE of its own."""
        vae = self.components.get("vae")
        return 2 ** (len(vae.config["block_out_channels"]) - 1) if vae else 8

    @property
    def latent_channels(self) -> int:
        """Channels of a latent. The UNet of an inpainting base takes more beside them."""
        return self.components["unet"].config.get("out_channels", 4)

    @property
    def inpaints(self) -> bool:
        """Whether the UNet also takes a mask and the latents of a masked picture."""
        return self.components["unet"].config.get("in_channels", 4) == 2 * self.latent_channels + 1

    @property
    def size_step(self) -> int:
        """Picture sides are multiples of it, so that every level of the UNet gets a whole number of latents."""
        return self.downscale * 2 ** (len(self.components["unet"].config["block_out_channels"]) - 1)

    @property
    def resolution(self) -> int:
        """Side of the square pictures that it was made for."""
        return (self.components["unet"].config.get("sample_size") or 64) * self.downscale
