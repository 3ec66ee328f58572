"""Step metrics, kept on the device until it is time to tell them: the step itself never waits for a number."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from engine import protocol
from engine.journal import Journal


class Diverged(Exception):
    """Training has left the finite numbers at `step`."""

    def __init__(self, step: int, what: str = "the loss was not a finite number"):
        super().__init__(f"{what} at step {step}")
        self.step = step


class Metrics:
    """Collects losses and norms of steps and journals them every 50 steps or half a second."""

    STEPS, SECONDS = 50, 0.5
    GATED = 25
    """Steps in a row whose gradient may be lost before the run is: an fp16 loss scale needs up to 20 to settle."""

    def __init__(self, journal: Journal):
        self.journal = journal
        self._waiting: list[tuple[int, Tensor, dict[str, float]]] = []
        self._flushed = time.monotonic()
        self._gated = 0

    def add(self, step: int, numbers: Tensor, rates: dict[str, float]) -> None:
        """`numbers`: loss, instance loss, prior loss, gradient norm, [4] on the device."""
        self._waiting.append((step, numbers, rates))
        if len(self._waiting) >= self.STEPS or time.monotonic() - self._flushed >= self.SECONDS:
            self.flush()

    def flush(self) -> None:
        """Journal what waits. Raises Diverged at the first loss, or too many gradients, that are not finite."""
        if not self._waiting:
            return
        rows = torch.stack([numbers for _, numbers, _ in self._waiting]).tolist()
        now = time.monotonic()
        seconds = (now - self._flushed) / len(rows)
        events = []
        for (step, _, rates), (loss, instance, prior, norm) in zip(self._waiting, rows, strict=True):
            events.append(
                protocol.Step(
                    step=step,
                    loss=protocol.finite(loss),
                    instance=protocol.finite(instance),
                    prior=protocol.finite(prior),
                    grad_norm=protocol.finite(norm),
                    lr=rates,
                    seconds=round(seconds, 6),
                )
            )
        self._waiting, self._flushed = [], now
        self.journal.emit(*events)
        for event in events:
            if event.loss is None:
                raise Diverged(event.step)
            self._gated = self._gated + 1 if event.grad_norm is None else 0
            if self._gated == self.GATED:
                raise Diverged(event.step, f"the gradient was not finite {self.GATED} times in a row, the last")

    def proceed(self) -> None:
        """Leave the time since the last flush out of the seconds per step."""
        self._flushed = time.monotonic()
