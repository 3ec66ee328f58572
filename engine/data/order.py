"""Which images every micro-batch holds, with which caption, flip and crop: a pure function of the seed and its number.

Micro-batch k is the same whether the run came there from the start, from a checkpoint or never. There is no iterator
and no state. Draws are named by k and by the place in the *global* batch, so that a rank, which takes its slice with
`for_rank`, trains on what a single process would have trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import TypeVar

from engine import draws
from engine.data.buckets import Size
from engine.data.items import Item, Variant

T = TypeVar("T")


@dataclass(frozen=True)
class Pick:
    """One place of a micro-batch: the image with the caption, flip and crop that were drawn for it."""

    item: Item
    caption: str
    flip: bool
    crop_index: int
    bucket: Size
    variant: Variant


class Order:
    """The stream of instance images.

    In an epoch every item appears `repeats` times, in an order drawn for that epoch. All of a micro-batch share a
    bucket; the last of a bucket is filled up from the beginning of that bucket's order, so nothing is dropped and every
    micro-batch has exactly `batch` entries. `batch` is that of all ranks together. ValueError without items.
    """

    def __init__(self, items: Sequence[Item], batch: int, seed: int):
        if not items:
            raise ValueError("no items to put in order")
        self.items = tuple(items)
        self.batch = batch
        self.seed = seed
        self._buckets = _by_bucket(self.items)
        self.batches_per_epoch = batches_per_epoch(self.items, batch)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def __getitem__(self, k: int) -> list[Pick]:
        """Micro-batch k = 0, 1, 2 …, counted on over the epochs without end."""
        if k < 0:
            raise IndexError(k)
        epoch, place = divmod(k, self.batches_per_epoch)
        members = self._micro_batches(epoch)[place]
        return [
            _pick(self.items[i], self.items[i].bucket, self.seed, ("instance", k, j)) for j, i in enumerate(members)
        ]

    @property
    def buckets(self) -> tuple[Size, ...]:
        return tuple(self._buckets)

    def variants(self) -> list[Variant]:
        """Every picture that the stream can ever ask for, each once."""
        return _variants(((item, item.bucket) for item in self.items), self.seed)

    def _micro_batches(self, epoch: int) -> list[list[int]]:
        """The epoch's micro-batches as places in `items`. Kept for one epoch only, since steps ask in sequence."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._draw(epoch))
        return self._epoch[1]

    def _draw(self, epoch: int) -> list[list[int]]:
        filled = []
        for bucket, members in self._buckets.items():
            shuffled = [members[i] for i in draws.shuffled(len(members), self.seed, "order", epoch, *bucket)]
            for start in range(0, len(members), self.batch):
                filled.append([shuffled[i % len(members)] for i in range(start, start + self.batch)])
        return [filled[i] for i in draws.shuffled(len(filled), self.seed, "batches", epoch)]


class ClassOrder:
    """The stream of class (regularization) images that goes beside an instance stream, each image equally often.

    Class images take the shape of the instance micro-batch that they go with, so that both make one batch. Their
    sequence runs through all images (with repeats) in a drawn order, then through all in another.
    """

    def __init__(self, items: Sequence[Item], batch: int, seed: int):
        if not items:
            raise ValueError("no class items to put in order")
        self.items = tuple(items)
        self.batch = batch
        self.seed = seed
        self._members = [i for i, item in enumerate(self.items) for _ in range(item.repeats)]
        self._pass: tuple[int, list[int]] = (-1, [])

    def at(self, k: int, bucket: Size) -> list[Pick]:
        """The class images of micro-batch k, whose instance images have this bucket."""
        return [self._at(k, j, bucket) for j in range(self.batch)]

    def variants(self, buckets: Iterable[Size]) -> list[Variant]:
        """Every picture that the stream can ask for beside instance images of these buckets, each once."""
        return _variants(product(self.items, buckets), self.seed)

    def _at(self, k: int, j: int, bucket: Size) -> Pick:
        number, place = divmod(k * self.batch + j, len(self._members))
        if self._pass[0] != number:
            self._pass = (number, draws.shuffled(len(self._members), self.seed, "class order", number))
        item = self.items[self._members[self._pass[1][place]]]
        return _pick(item, bucket, self.seed, ("class", k, j))


def batches_per_epoch(items: Iterable[Item], batch: int) -> int:
    """Micro-batches of an epoch: every bucket's images times repeats, over the batch, rounded up."""
    seen: Counter[Size] = Counter()
    for item in items:
        seen[item.bucket] += item.repeats
    return sum(ceil(count / batch) for count in seen.values())


def for_rank(global_batch: Sequence[T], rank: int, world: int) -> Sequence[T]:
    """The part of a global batch that one of `world` processes takes. ValueError if it can't be parted equally."""
    share, rest = divmod(len(global_batch), world)
    if rest:
        raise ValueError(f"a global batch of {len(global_batch)} is no multiple of {world} processes")
    return global_batch[rank * share : (rank + 1) * share]


def _by_bucket(items: Iterable[Item]) -> dict[Size, list[int]]:
    """Places of the items by bucket, each as often as it repeats; buckets by size, whatever order the items have."""
    members: dict[Size, list[int]] = {}
    for i, item in enumerate(items):
        members.setdefault(item.bucket, []).extend([i] * item.repeats)
    return dict(sorted(members.items()))


def _pick(item: Item, bucket: Size, seed: int, place: tuple[str, int, int]) -> Pick:
    dropped = item.caption_dropout > 0 and draws.uniform(seed, "caption", *place) < item.caption_dropout
    flip = item.flip and draws.integer(2, seed, "flip", *place) == 1
    crop_index = draws.integer(item.crops, seed, "crop index", *place) if item.crops > 1 else 0
    variant = _variant(item, bucket, crop_index, flip, seed)
    return Pick(item, "" if dropped else item.caption, flip, crop_index, bucket, variant)


def _variant(item: Item, bucket: Size, crop_index: int, flip: bool, seed: int) -> Variant:
    return Variant(item.path, item.sha256, bucket, item.crop(crop_index, bucket, seed), flip)


def _variants(uses: Iterable[tuple[Item, Size]], seed: int) -> list[Variant]:
    return list(
        dict.fromkeys(
            _variant(item, bucket, crop_index, flip, seed)
            for item, bucket in uses
            for crop_index in range(item.crops)
            for flip in ((False, True) if item.flip else (False,))
        )
    )
