"""The arithmetic of a run, shown before it starts: how many images make how many steps, and how often each is seen.

A step is one update of the weights: `accumulate` micro-batches of `batch` images on each of `world` devices. Counts
come from the same rule that puts the images in order, so filled-up batches are counted as they will be run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from engine.config import Train
from engine.config.structs import Dataset
from engine.data.buckets import Size, whole_steps
from engine.data.items import Item
from engine.data.order import batches_per_epoch


@dataclass(frozen=True)
class BucketRow:
    """One line of the bucket table. `filled` are places per epoch that repeat an image to complete a batch."""

    size: Size
    images: int
    per_epoch: int
    batches: int
    filled: int

    def __str__(self) -> str:
        size = f"{self.size[0]}×{self.size[1]}"
        batches = _count(self.batches, "batch", "batches")
        filled = f", {_count(self.filled, 'place')} filled up" if self.filled else ""
        return f"{size}: {_count(self.images, 'image')}, {batches} per epoch{filled}"


@dataclass(frozen=True)
class Plan:
    images: int
    repeats: int | None
    """The repeats of every image, or None where they differ."""
    per_epoch: int
    """Images times repeats."""
    batch: int
    accumulate: int
    world: int
    batches_per_epoch: int
    """Micro-batches of all devices together."""
    steps: int
    epochs: float
    views_per_image: float
    """How often an image is seen in the whole run, averaged over the images."""
    class_images: int
    buckets: tuple[BucketRow, ...]

    @property
    def filled(self) -> int:
        return sum(row.filled for row in self.buckets)

    def describe(self) -> str:
        """One line, such as "24 images × 10 repeats = 240 per epoch ÷ batch 4 = 60 steps · 25 epochs = 1,500 steps"."""
        images = _count(self.images, "image")
        repeats = "with their repeats" if self.repeats is None else f"× {_count(self.repeats, 'repeat')}"
        batch = f"batch {self.batch:,}"
        batch += f" × {self.world:,} devices" if self.world > 1 else ""
        batch += f" × {self.accumulate:,} accumulated" if self.accumulate > 1 else ""
        filled = f" ({self.filled:,} seen again to fill batches)" if self.filled else ""
        per_epoch = _count(_rounded(self.batches_per_epoch / self.accumulate), "step")
        total = f"{_count(_rounded(self.epochs), 'epoch')} = {_count(self.steps, 'step')}"
        beside = f", beside {_count(self.class_images, 'class image')}" if self.class_images else ""
        return f"{images} {repeats} = {self.per_epoch:,} per epoch{filled} ÷ {batch} = {per_epoch} · {total}{beside}"

    def bucket_table(self) -> list[str]:
        """One line a bucket, widest last."""
        return [str(row) for row in self.buckets]


def resolution(asked: Dataset, default: int, step: int) -> int:
    """The training resolution in pixels: what is asked for, or the base's own, in whole steps of the base."""
    return whole_steps(default if asked.resolution == "auto" else asked.resolution, step)


def of_run(config: Train, items: Sequence[Item], class_images: int) -> Plan:
    """The plan of a run over these items, beside that many class images of its own or, without, those to be drawn.

    ValueError unless its length is given in either steps or epochs.
    """
    return make(
        items,
        batch=config.training.batch,
        accumulate=config.training.accumulate,
        steps=config.training.steps or None,
        epochs=config.training.epochs or None,
        class_images=class_images or to_draw(config),
    )


def to_draw(config: Train) -> int:
    """Class images that a run draws where no subset brings any."""
    return config.prior.images if config.prior.weight else 0


def make(
    items: Sequence[Item],
    *,
    batch: int,
    accumulate: int = 1,
    world: int = 1,
    steps: int | None = None,
    epochs: float | None = None,
    class_images: int = 0,
) -> Plan:
    """The plan for a length given in steps or in epochs; the other follows. ValueError unless exactly one is given."""
    if (steps is None) == (epochs is None):
        raise ValueError("give the length in steps or in epochs")
    micro_batches = batches_per_epoch(items, batch * world)
    if steps is None:
        steps = ceil(epochs * micro_batches / accumulate)
    else:
        epochs = steps * accumulate / micro_batches
    repeats = {item.repeats for item in items}
    return Plan(
        images=len(items),
        repeats=repeats.pop() if len(repeats) == 1 else None,
        per_epoch=sum(item.repeats for item in items),
        batch=batch,
        accumulate=accumulate,
        world=world,
        batches_per_epoch=micro_batches,
        steps=steps,
        epochs=epochs,
        views_per_image=steps * accumulate * batch * world / len(items),
        class_images=class_images,
        buckets=_table(items, batch * world),
    )


def _table(items: Sequence[Item], batch: int) -> tuple[BucketRow, ...]:
    members: dict[Size, list[Item]] = {}
    for item in items:
        members.setdefault(item.bucket, []).append(item)
    rows = []
    for size, held in sorted(members.items()):
        per_epoch = sum(item.repeats for item in held)
        batches = batches_per_epoch(held, batch)
        rows.append(BucketRow(size, len(held), per_epoch, batches, batches * batch - per_epoch))
    return tuple(rows)


def _rounded(number: float) -> int | float:
    return round(number) if abs(number - round(number)) < 0.005 else round(number, 2)


def _count(number: float, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
