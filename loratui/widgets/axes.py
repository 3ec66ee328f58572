"""Axes of a chart: ranges that change rarely, few round marks, and short labels.

Ranges are rounded and held on purpose. A live chart whose range moved with every point would send itself whole each
time; so a range stays as it is until the data leaves it, or has come to fill too little of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loratui.widgets.decimate import Extent

MANTISSAS = (1, 2, 5)
X_STOPS = (1, 1.5, 2, 3, 4, 5, 7)
"""Where a growing x axis ends, times a power of ten."""

SPIKES, DWARFED = 0.05, 4.0
"""Values above all but this share of the columns are cut off where they make the axis this many times as long."""

FILLED = 0.4
"""A range is held while the data fills at least this share of it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a chart shows: from `x0` to `x1` and from `low` to `high`, on a logarithmic y axis with `log`."""

    x0: float
    x1: float
    low: float
    high: float
    log: bool = False

    def column(self, x: float, columns: int) -> int:
        """The column of pixels, out of so many, that `x` lies in; one beside them where it is outside."""
        across = (x - self.x0) / (self.x1 - self.x0) * columns
        return math.floor(min(max(across, -columns), 2 * columns))

    def rows(self, lines: int) -> Callable[[float], int]:
        """The function from a value to its line of pixels, out of so many; one beyond them where it is outside."""
        height = _log if self.log else float
        top = height(self.high)
        unit = (lines - 1) / (top - height(self.low))
        return lambda y: round(min(max((top - height(y)) * unit, -lines), 2 * lines))


def x_range(low: float, high: float) -> tuple[float, float]:
    """A range for x values that are still growing: it changes seven times while they grow tenfold."""
    start = 0.0 if 0 <= low <= high / 4 or low == high == 0 else _down(low, step(max(high - low, abs(low) / 100), 4))
    return start, start + _up(max(high - start, 1e-12 if high > start else 1.0), X_STOPS)


def y_range(columns: Sequence[Extent | None], log: bool, marks: int) -> tuple[float, float]:
    """A round range for these columns of pixels, without the rare spikes that would flatten everything else."""
    seen = [extent for extent in columns if extent and extent.low <= extent.high and (extent.high > 0 or not log)]
    if not seen:
        return (0.1, 1.0) if log else (0.0, 1.0)
    if log:
        low = min(extent.low if extent.low > 0 else extent.high for extent in seen)
        high = max(extent.high for extent in seen)
        top = _up(high, MANTISSAS)
        return min(_floor(low), top / 10 if low == high else top), top
    low = min(extent.low for extent in seen)
    high = _without_spikes(low, sorted(extent.high for extent in seen))
    if low == high:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    # Finer than the labels, so that a half of the chart is not lost to roundness.
    unit = step(high - low, 2 * marks)
    return _down(low, unit), -_down(-high, unit)


def held(before: tuple[float, float] | None, now: tuple[float, float], log: bool) -> tuple[float, float]:
    """The range from before, while it holds what is shown now and is not much too large for it."""
    if before is None or not (before[0] <= now[0] and now[1] <= before[1]) or (log and before[0] <= 0):
        return now
    (low, high), (now_low, now_high) = ([math.log10(y) for y in pair] if log else pair for pair in (before, now))
    return before if now_high - now_low >= FILLED * (high - low) else now


def step(span: float, most: int) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that divides a span into at most `most` parts."""
    return _up(span / max(1, most), MANTISSAS)


def ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round values in a range, with their labels: at most `most` intervals, or else the fewest with two values."""
    while True:
        unit = step(high - low, most)
        values = [index * unit for index in range(math.ceil(low / unit - 1e-6), math.floor(high / unit + 1e-6) + 1)]
        if len(values) > 1:
            return [(value, label(value, unit)) for value in values]
        most += 1


def log_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """The same for a logarithmic axis: 1, 2 and 5 where there is room, else powers of ten."""
    powers = range(math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9) + 1)
    for mantissas in (MANTISSAS, (1,)):
        values = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
        values = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(values) <= most + 1:
            break
    every = max(1, math.ceil((len(values) - 1) / max(1, most)))
    return [(value, label(value, value)) for value in values[::every]]


def label(value: float, unit: float) -> str:
    """A multiple of `unit`, in about five characters: 0.06, 1500, 12.5k, 8e-5."""
    size = abs(value)
    if size < unit / 2:
        return "0"
    for name, thousands in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= 10 * thousands or (size >= thousands > 1e3):
            return f"{value / thousands:g}{name}"
    places = -math.floor(math.log10(unit) + 1e-9)
    if size >= 1e-3 and places <= 4:
        return f"{value:.{max(0, places)}f}"
    return _short(f"{value:.{max(0, math.floor(math.log10(size) + 1e-9) + places)}e}")


def figure(value: float) -> str:
    """A value as it was measured, to four digits."""
    return _short(f"{value:.4g}")


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf


def _short(number: str) -> str:
    mantissa, _, exponent = number.partition("e")
    if not exponent:
        return mantissa
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def _without_spikes(low: float, highs: Sequence[float]) -> float:
    """The top of the axis for these highest values, in ascending order."""
    spared = highs[-1 - int(len(highs) * SPIKES)]
    return spared if spared > low and highs[-1] - low > DWARFED * (spared - low) else highs[-1]


def _down(value: float, unit: float) -> float:
    """The largest multiple of `unit` that is not above."""
    return math.floor(value / unit + 1e-9) * unit


def _up(value: float, mantissas: Sequence[float]) -> float:
    """The smallest of these times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((m * power for m in mantissas if m * power >= value * (1 - 1e-9)), 10 * power)


def _floor(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(m * power for m in MANTISSAS if m * power <= value * (1 + 1e-9))
