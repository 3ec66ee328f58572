"""The courses of a run as a chart takes them: series that grow with the history, and what happened on the way."""

from __future__ import annotations

from loratui import figures
from loratui.history import History
from loratui.screens.monitor_text import short
from loratui.widgets.plot import Marker, Series

SMOOTHINGS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Shares that the past keeps at each step."""
COLOURS = ("series-1", "series-2", "series-3", "series-4", "series-5", "series-6")


def loss_series(history: History) -> list[Series]:
    """The loss under fixed noise, the mean of the loss, and the loss as it came: what says most lies on top.

    The mean without smoothing is the loss.
    """
    steps, validation = history.steps, history.validation
    decay = steps.smoothed.decay
    series = []
    if len(validation.steps):
        name = "validation" if history.validated_on == "held-out" else "fixed noise"
        series.append(Series(name, validation.steps, validation.values, COLOURS[1], "dots"))
    name = f"smoothed {decay:.3g}".replace("0.", ".") if decay else "train"
    series.append(Series(name, steps.steps, steps.smoothed.values, COLOURS[0]))
    if decay:
        series.append(Series("train", steps.steps, steps.losses, "chart-raw"))
    return series


def rate_series(history: History) -> list[Series]:
    """The learning rate of each part."""
    steps = history.steps
    parts = enumerate(steps.rates.items())
    return [Series(short(part), steps.steps, course, COLOURS[index % 6]) for index, (part, course) in parts]


def markers(history: History) -> list[Marker]:
    """Samples, checkpoints and changed rates, by their steps."""
    found = [Marker(step, "s", f"samples of step {step:,}") for step in history.sampled()]
    found += [Marker(step, "c", f"checkpoint {step:,}") for step in history.checkpoints]
    for change in history.changes:
        name = change.field.removeprefix("optimizer.")
        found.append(Marker(change.step, "r", f"{name} = {figures.number(change.value, 3)}"))
    return sorted(found, key=lambda marker: marker.x)


def other_smoothing(decay: float, places: int) -> float:
    """The decay so many places further in `SMOOTHINGS`."""
    nearest = min(range(len(SMOOTHINGS)), key=lambda index: abs(SMOOTHINGS[index] - decay))
    return SMOOTHINGS[max(0, min(nearest + places, len(SMOOTHINGS) - 1))]
