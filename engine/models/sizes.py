"""The sizes of bases that are known without building them: of their pictures, latents and adapters. No torch.

A host tells how much disk a run needs while its form is being filled in. Which modules a target set holds is
`stable`'s to say: a test builds the bases and holds these figures against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.models.source import Source


class Share(NamedTuple):
    """Some modules: how many, and the numbers of their factors for each unit of rank (in · kernel area + out)."""

    modules: int
    numbers: int


SHARES = {
    "attention": ("attention",),
    "transformer": ("attention", "feed_forward"),
    "locon": ("attention", "feed_forward", "convolutions"),
    "text_encoder": ("text_encoder",),
}
"""Target set → the shares that it is made of, none of which has a module of another."""


@dataclass(frozen=True)
class Base:
    """Sizes of a base, in pixels and channels, and its shares; None where they are not known."""

    resolution: int
    size_step: int
    downscale: int
    latent_channels: int
    shares: Mapping[str, Share] | None


_SD1 = {
    "attention": Share(128, 199_296),
    "feed_forward": Share(64, 224_640),
    "convolutions": Share(86, 626_880),
    "text_encoder": Share(72, 165_888),
}
_TINY = {
    "attention": Share(56, 11_648),
    "feed_forward": Share(28, 12_672),
    "convolutions": Share(44, 40_128),
    "text_encoder": Share(18, 6_912),
}
_SDXL = {
    "attention": Share(560, 1_451_520),
    "feed_forward": Share(162, 1_208_320),
    "convolutions": Share(66, 414_400),
    "text_encoder": Share(264, 903_168),
}
_TINY_XL = {
    "attention": Share(48, 13_824),
    "feed_forward": Share(26, 14_336),
    "convolutions": Share(44, 40_128),
    "text_encoder": Share(36, 13_824),
}
_KNOWN = {
    ((320, 640, 1280, 1280), 2, 768, (1,), (), ((768, 12),)): _SD1,
    ((64, 128, 128), 1, 128, (1,), (), ((128, 3),)): _TINY,
    ((320, 640, 1280), 2, 2048, (1, 2, 10), (), ((768, 12), (1280, 32))): _SDXL,
    ((64, 128, 128), 1, 256, (0, 1, 1), (1, 0, 1, 1, 0, 0), ((128, 3), (128, 3))): _TINY_XL,
}
"""UNet's widths, layers a block, width of text and transformer blocks on the way down and, where it differs, up; width
and layers of each text encoder → shares."""

SD1 = Base(resolution=512, size_step=64, downscale=8, latent_channels=4, shares=_SD1)


def base_of(source: Source) -> Base:
    """The sizes of a base as its configs tell them."""
    unet = source.components["unet"].config
    texts = [component.config for part, component in source.components.items() if part.startswith("text_encoder")]
    key = (
        tuple(unet["block_out_channels"]),
        unet.get("layers_per_block"),
        unet.get("cross_attention_dim"),
        _flat(unet.get("transformer_layers_per_block", 1)),
        _flat(unet.get("reverse_transformer_layers_per_block") or ()),
        tuple((text.get("hidden_size"), text.get("num_hidden_layers")) for text in texts),
    )
    return Base(source.resolution, source.size_step, source.downscale, source.latent_channels, _KNOWN.get(key))


def _flat(depths: Any) -> tuple[Any, ...]:
    """Numbers of transformer blocks as configs have them: one for all levels, one a level, or one an attention."""
    return tuple(one for item in depths for one in _flat(item)) if isinstance(depths, (list, tuple)) else (depths,)
