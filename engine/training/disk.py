"""What a run leaves on the disk, in bytes, before it begins. Light: a host tells it of a form that is being filled in.

Adapters and training states are counted; headers, pictures and the entries of caches are estimated by the figures
below. What other runs share, as they do latents of the same images, is counted as if this run were the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.config import Train, prompts
from engine.data.buckets import Size, whole_steps
from engine.data.items import Item
from engine.models.sizes import SHARES, Base, Share
from engine.training.targets import asked

WIDTHS = {"fp16": 2, "bf16": 2, "fp32": 4}
"""Bytes of a number in a saved adapter."""
MODULE, METADATA = 415, 5_000
"""Bytes of an adapter's header, for each module and for what is said of the run."""
FACTS = 2_000
"""Bytes of a training state besides its numbers."""
PIXEL = 1.75
"""Bytes of a pixel in the PNG of a photograph or painting."""
ENTRY = 250
"""Bytes of a latent's file besides its numbers."""

Shares = Mapping[str, Share]
Ranks = Mapping[str, int]


def ranks(config: Train) -> Ranks | None:
    """Share → rank, 0 for what is left alone; None where a pattern would have to be held against the modules."""
    found: dict[str, int] = {}
    for wish in asked(config):
        if wish.targets not in SHARES:
            return None
        found |= dict.fromkeys(SHARES[wish.targets], wish.rank)
    return found


def adapter(config: Train, shares: Shares, chosen: Ranks) -> int:
    """One saved adapter."""
    width = WIDTHS[config.saving.precision]
    modules = sum(shares[share].modules for share, rank in chosen.items() if rank)
    return (_numbers(shares, chosen) + modules) * width + modules * MODULE + METADATA


def state(config: Train, shares: Shares, chosen: Ranks) -> int:
    """One training state: the factors with both moments of the optimizer, and their average if there is one."""
    return _numbers(shares, chosen) * (4 if config.training.ema else 3) * WIDTHS["fp32"] + FACTS


def samples(config: Train, resolution: int, size_step: int) -> float:
    """The pictures of one moment, all prompts together."""
    total = 0.0
    for line in config.sampling.prompts:
        try:
            sides = prompts.parse(line)
        except ValueError:  # told as a problem elsewhere
            sides = prompts.SamplePrompt(prompt=line)
        width, height = sides.width or resolution, sides.height or resolution
        total += picture(whole_steps(width, size_step), whole_steps(height, size_step))
    return total


def picture(width: int, height: int) -> float:
    """A PNG."""
    return width * height * PIXEL


def latents(base: Base, items: Iterable[Item], class_items: Iterable[Item], drawn: int) -> int:
    """The latents of these items, and of class images, given and drawn ones, in each of their buckets."""
    items = list(items)
    entries = {item.bucket: _entry(base, item.bucket) for item in items}
    total = sum(_variants(item, item.bucket) * entries[item.bucket] for item in items)
    total += sum(_variants(item, bucket) * entry for item in class_items for bucket, entry in entries.items())
    return total + drawn * sum(entries.values())


def _entry(base: Base, bucket: Size) -> int:
    """Mean and standard deviation of one latent, in float32."""
    return 2 * 4 * base.latent_channels * (bucket[0] // base.downscale) * (bucket[1] // base.downscale) + ENTRY


def _variants(item: Item, bucket: Size) -> int:
    """How many pictures are made of one: its crops, where there is room for any, each mirrored too if it may be."""
    room = item.width * bucket[1] != item.height * bucket[0]
    return (item.crops if room else 1) * (2 if item.flip else 1)


def _numbers(shares: Shares, chosen: Ranks) -> int:
    return sum(shares[share].numbers * rank for share, rank in chosen.items())
