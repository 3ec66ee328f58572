"""Figures by step, kept as compactly as the terminal program can: 4 bytes a figure, whatever a run's length.

Steps ascend and each is there once. A value that was not finite is NaN and never reaches a mean. Whoever starts over at
an earlier step first calls `cut`: what a later attempt says replaces what an earlier one said. An array is only ever
appended to; for any other change it is replaced by another, so that who draws it can tell.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right

LARGEST_STEP = 2**32 - 1
NAN = math.nan


class Curve:
    """A figure that is given now and then, such as the validation loss."""

    def __init__(self) -> None:
        self.steps = array("I")
        self.values = array("f")
        self.best: tuple[int, float] | None = None
        """Step and value of the least finite figure, the earliest of several."""

    def put(self, step: int, value: float | None) -> None:
        """Set the figure of a step; None stands for one that is not finite."""
        index = bisect_left(self.steps, step)
        if index == len(self.steps):
            self.steps.append(step)
            self.values.append(_finite(value))
            self._compare(index)
            return
        behind = index + (self.steps[index] == step)
        self.steps = self.steps[:index] + array("I", [step]) + self.steps[behind:]
        self.values = self.values[:index] + array("f", [_finite(value)]) + self.values[behind:]
        self._look()

    def cut(self, step: int) -> None:
        """Forget everything after this step."""
        index = bisect_right(self.steps, step)
        if index < len(self.steps):
            self.steps, self.values = self.steps[:index], self.values[:index]
            self._look()

    def at(self, step: int) -> float | None:
        """The last finite figure at or before this step."""
        for index in range(bisect_right(self.steps, step) - 1, -1, -1):
            if not math.isnan(self.values[index]):
                return self.values[index]
        return None

    def _look(self) -> None:
        self.best = None
        for index in range(len(self.values)):
            self._compare(index)

    def _compare(self, index: int) -> None:
        value = self.values[index]
        if value == value and (self.best is None or value < self.best[1]):
            self.best = self.steps[index], value


class Smoothed:
    """An exponential mean, corrected for its start as Adam's moments are (Kingma & Ba 2015, section 3)."""

    def __init__(self, decay: float):
        """`decay`: the share that the past keeps at each step, from 0 (no smoothing) to below 1."""
        self.decay = decay
        self.values = array("f")
        self._mean = self._weight = 0.0

    def extend(self, losses: array) -> Smoothed:
        """Take in what `losses` has beyond what was taken in before."""
        append, keep, mean, weight = self.values.append, self.decay, self._mean, self._weight
        new = 1.0 - keep
        for loss in losses[len(self.values) :]:
            if loss == loss:
                mean = keep * mean + new * loss
                weight = keep * weight + new
            append(mean / weight if weight else NAN)
        self._mean, self._weight = mean, weight
        return self

    def cut(self, length: int, finite: int) -> None:
        """Go back to the first `length` values, of which so many were finite."""
        self.values = self.values[:length]
        self._weight = 1.0 - self.decay**finite
        self._mean = self.values[-1] * self._weight if finite else 0.0


class Steps:
    """What every optimizer step says: loss, smoothed loss, learning rates."""

    def __init__(self, decay: float):
        self.steps = array("I")
        self.losses = array("f")
        self.smoothed = Smoothed(decay)
        self.rates: dict[str, array] = {}
        """Part (unet, text_encoder …) → learning rate of each step."""
        self.not_finite = array("I")
        """Steps whose loss was not finite."""

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> int:
        """The last step; 0 for none."""
        return self.steps[-1] if self.steps else 0

    def append(self, step: int, loss: float | None, rates: dict[str, float]) -> None:
        """Add a step, which comes behind all others."""
        value = _finite(loss)
        self.steps.append(step)
        self.losses.append(value)
        if value != value:
            self.not_finite.append(step)
        self.smoothed.extend(self.losses)
        if rates.keys() != self.rates.keys():
            self._level(rates)
        for part, course in self.rates.items():
            course.append(rates.get(part, NAN))

    def cut(self, step: int) -> None:
        """Forget everything after this step."""
        length = bisect_right(self.steps, step)
        if length == len(self.steps):
            return
        self.steps, self.losses = self.steps[:length], self.losses[:length]
        self.rates = {part: course[:length] for part, course in self.rates.items()}
        self.not_finite = self.not_finite[: bisect_right(self.not_finite, step)]
        self.smoothed.cut(length, length - len(self.not_finite))

    def index(self, step: int) -> int:
        """The index of the step nearest to this one; -1 where there are none."""
        right = bisect_left(self.steps, step)
        near = [index for index in (right - 1, right) if 0 <= index < len(self.steps)]
        return min(near, key=lambda index: abs(self.steps[index] - step), default=-1)

    def _level(self, rates: dict[str, float]) -> None:
        """Make room for parts that were not told of so far."""
        for part in (part for part in rates if part not in self.rates):
            self.rates[part] = array("f", [NAN]) * (len(self.steps) - 1)


def _finite(value: float | None) -> float:
    """As it is kept: NaN for what no chart can show, which includes what 32 bits can't hold."""
    return value if value is not None and abs(value) < 3.4e38 else NAN
