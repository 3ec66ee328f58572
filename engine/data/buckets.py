"""Aspect buckets: the few shapes that images are cut to, so that batches have one shape and little is cut away.

All shapes of a resolution have sides that are multiples of the model's step and an area of at most resolution², as
large as that allows. The rule has no state and no dependence on the other images: adding one to a dataset moves none.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

Size = tuple[int, int]
"""Width and height in pixels."""


@lru_cache(maxsize=1 << 14)
def bucket_for(width: int, height: int, resolution: int, step: int, buckets: bool = True) -> Size:
    """The shape for a picture: the one whose aspect ratio is off by the smallest factor; of equals, the largest area
    and then the least elongated.

    The rule is the same for a picture and for its transpose, so factors are compared exactly, as fractions. Without
    `buckets` it is the square. ValueError if the resolution is smaller than one step.
    """
    if not buckets:
        return square(resolution, step)

    def nearness(shape: Size) -> tuple[Fraction, int, int]:
        wide, tall = shape[0] * height, shape[1] * width
        return Fraction(max(wide, tall), min(wide, tall)), -shape[0] * shape[1], max(shape)

    return min(shapes(resolution, step), key=nearness)


def whole_steps(length: int, step: int) -> int:
    """The largest multiple of `step` that a length in pixels holds; one step at least."""
    return max(1, length // step) * step


def square(resolution: int, step: int) -> Size:
    """The largest square of multiples of `step` that `resolution` holds."""
    if step < 1 or resolution < step:
        raise ValueError(f"a resolution of {resolution} holds no multiple of {step}")
    side = resolution // step * step
    return side, side


@lru_cache(maxsize=64)
def shapes(resolution: int, step: int) -> tuple[Size, ...]:
    """All shapes of a resolution, narrowest first. The shorter side is at least half the resolution, which bounds the
    aspect ratio at about 4 : 1; what is longer still is cropped."""
    side, _ = square(resolution, step)
    shortest = -(-resolution // (2 * step)) * step
    tall = {(w, resolution * resolution // w // step * step) for w in range(shortest, side + step, step)}
    return tuple(sorted({*tall, *((h, w) for w, h in tall), (side, side)}))


def enlargement(width: int, height: int, bucket: Size) -> float:
    """How many times a picture must be enlarged to cover the bucket; below 1 it shrinks."""
    return max(bucket[0] / width, bucket[1] / height)
