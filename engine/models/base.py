"""What a model family is to the rest of the engine: one class with few methods.

The training loop, the sampler and the data cache hold a `Family` and never ask which one. Nothing here may assume what
the denoiser predicts, that it is a UNet, or how many text encoders there are; a subclass knows, and nobody else.

Conditioning is a dict of tensors with the batch in dimension 0, made by `encode_text` and handed back to `predict`;
what lies between may cut, stack and store it, but not look into it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

Conditioning = dict[str, Tensor]
Targets = dict[str, list[str]]
"""Part → paths of its modules that get an adapter."""


class Framing(NamedTuple):
    """How a picture to learn from was cut out of its file, in pixels, width or left edge first."""

    original: tuple[int, int]
    """The size of the whole picture."""
    corner: tuple[int, int]
    """Where the cut begins once the picture is scaled, as it is seen: of a mirrored one counted from its new left."""
    size: tuple[int, int]
    """The size of what was cut out, as the model sees it."""


class Family(ABC):
    """A base model, loaded and frozen, with everything that differs between families."""

    name: ClassVar[str]
    """Short name of the family: `sd1`."""
    title: str
    """The base in words."""

    parts: dict[str, nn.Module]
    """The modules that adapters may be put into, the denoiser first."""
    prefixes: dict[str, str]
    """Part → prefix of its modules in kohya's names."""

    default_resolution: int
    """Side of the square pictures that the base was made for, in pixels."""
    latent_channels: int
    downscale: int
    """Pixels per latent, along a side."""
    size_step: int
    """Picture sides are multiples of it, in pixels."""
    max_tokens: int
    """How many of a user's tokens the text encoder reads; the rest of a longer caption is cut off."""

    objective: str
    """What the denoiser predicts: `epsilon` or `v`."""
    alphas_cumprod: Tensor
    """Share of the signal's variance at each timestep, float64 on the CPU: [timesteps]."""

    device: torch.device
    dtype: torch.dtype
    """Of the denoiser and the text encoders. The VAE computes in float32."""
    fingerprint: str
    """SHA-256 of everything that makes the base: equal for equal weights and configs, whatever their path."""
    notices: tuple[str, ...] = ()
    """What a user should know about how the base was read."""

    @property
    def denoiser(self) -> str:
        """The part that predicts; the others make its conditioning."""
        return next(iter(self.parts))

    @abstractmethod
    def targets(self, name: str) -> Targets:
        """Modules of a target set: `attention`, `transformer`, `locon` of the denoiser, or `text_encoder`.

        They are those of the bare base, and stay the same once adapters are in. KeyError for another name.
        """

    @abstractmethod
    def kohya_names(self) -> dict[str, tuple[str, str]]:
        """Every Linear and Conv2d of the bare parts: kohya's name → (part, module path). A fresh dict."""

    def kohya_name(self, part: str, path: str) -> str:
        """What files in kohya's naming call the module at `path` of a part."""
        return f"{self.prefixes[part]}_{path.replace('.', '_')}"

    @abstractmethod
    def make_scheduler(self) -> Any:
        """A fresh diffusers scheduler for sampling, with the base's own noise schedule."""

    @abstractmethod
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures in -1..1, [n, 3, h, w] → mean and standard deviation of their latents, float32, [n, c, h/d, w/d].

        In the denoiser's units, scaling included. Each picture is encoded alone, so its latents don't depend on what it
        was batched with.
        """

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents in the denoiser's units, [n, c, h, w] → pictures in -1..1, float32; each decoded alone."""

    @abstractmethod
    def release_vae(self) -> None:
        """Take the VAE off the device until it is needed again."""

    @abstractmethod
    def tokenize(self, captions: list[str]) -> Tensor:
        """Captions → ids with marks and padding, cut to the encoder's window: int64 on the CPU, [n, window].

        [n, encoders, window] of a family with several encoders.
        """

    @abstractmethod
    def count_tokens(self, caption: str) -> int:
        """Tokens of a caption without marks; more than `max_tokens` are cut off by `tokenize`."""

    @abstractmethod
    def encode_text(self, ids: Tensor, clip_skip: int = 1) -> Conditioning:
        """Ids from `tokenize` → conditioning. clip_skip: the layer to take, 1 for the one that the base was made with,
        2 for the one before it.

        Raises UserError where a text encoder has fewer layers.
        """

    def frame(self, framings: Sequence[Framing]) -> Conditioning:
        """What `predict` is told of pictures' sizes and cuts, to lie beside the conditioning of their captions.

        Nothing, unless the base was trained with it.
        """
        return {}

    @abstractmethod
    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's output for noisy latents [n, c, h, w] at timesteps [n], in the denoiser's dtype.

        Reads nothing back from the device, and gives the same bits whether or not gradients are recorded.
        """

    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """What an adapter's file says of its base: `ss_*` as kohya-ss writes them, and `modelspec.*`."""

    @abstractmethod
    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move everything to a device; denoiser and text encoders to a dtype too."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """From now on recompute activations in the backward pass, wherever gradients are recorded."""

    @abstractmethod
    def set_attention(self, backend: str) -> None:
        """Compute attention with `sdpa`, `xformers` or `plain`; see `attention.choose`."""


def freeze(module: nn.Module) -> nn.Module:
    """The module without gradients, dropout or running statistics."""
    return module.requires_grad_(False).eval()


def adaptable(module: nn.Module) -> list[str]:
    """Paths of the Linear and Conv2d layers of a module without adapters, in its own order."""
    return [path for path, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
