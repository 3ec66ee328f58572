"""The training loop, top to bottom. It knows an objective, a denoiser and a flat buffer of parameters; no family, no
file format and no dataset.

A step is: for each micro-batch noise, predict, weigh, differentiate; then one update of the flat buffer. Nothing in a
step waits for the device. What happens between steps (samples, validation, checkpoints) is the run's to say; after a
step k it happens in that order, so a state of step k means that all of it was done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from engine import draws
from engine.config import Train
from engine.lora.flat import FlatParameters
from engine.models.base import Family
from engine.training import schedule
from engine.training.batches import Batch
from engine.training.changes import Changes
from engine.training.metrics import Metrics
from engine.training.objectives import Objective, squared_error
from engine.training.optimizer import FlatAdamW


class Between(Protocol):
    """What a run does between its steps."""

    def begin(self, step: int) -> None:
        """Before the first step of an attempt; `step` is the last one that was done, 0 for none."""

    def after(self, step: int) -> None:
        """After a step: raises Stopped, or samples, validates, saves and carries out commands when it is time."""


@dataclass
class Trainer:
    """Everything that the loop works on."""

    config: Train
    family: Family
    layers: list[nn.Module]
    flat: FlatParameters
    objective: Objective
    optimizer: FlatAdamW
    batches: Callable[[int, int], Batch]
    metrics: Metrics
    steps: int
    changes: Changes = field(default_factory=Changes)
    done: int = 0
    """The step that the parameters have come to: set with the update, so that what is saved is never misnamed."""

    def train(self, done: int, between: Between) -> None:
        """Go from step `done` to the last one. Raises what `between` raises, and Diverged."""
        warmup = schedule.warmup_steps(self.config, self.steps)
        self.done = done
        between.begin(done)
        self.mode(True)
        for step in range(done + 1, self.steps + 1):
            factor = schedule.factor(self.config.schedule.kind, step, self.steps, warmup)
            rates = {group: self.rate(group) * factor for group in self.flat.groups}
            self.optimizer.set_rates(rates)
            losses = [self.micro_step(step, micro) for micro in range(self.config.training.accumulate)]
            norm = self.optimizer.step()
            self.done = step
            self.metrics.add(step, torch.cat([torch.stack(losses).mean(0), norm.view(1)]), rates)
            between.after(step)
        self.metrics.flush()

    def rate(self, part: str) -> float:
        """The full learning rate of a part's factors."""
        name = self.rate_field(part)
        return self.changes.values.get(name, getattr(self.config.optimizer, name.removeprefix("optimizer.")))

    def rate_field(self, part: str) -> str:
        """The field that holds a part's learning rate."""
        return "optimizer.lr_unet" if part == self.family.denoiser else "optimizer.lr_text"

    def micro_step(self, step: int, micro: int) -> Tensor:
        """Draw and accumulate one micro-batch; dropout takes its masks from torch's generator, sown anew for each."""
        if self.config.adapter.dropout:
            torch.manual_seed(draws.bits(self.config.training.seed, "dropout", step, micro))
        return self.accumulate(self.batches(step, micro))

    def accumulate(self, batch: Batch) -> Tensor:
        """Add the gradient of one micro-batch. Returns loss, instance loss and prior loss, [3], detached."""
        errors = self.errors(batch)
        instance = errors[: batch.instances].mean()
        prior = errors[batch.instances :].mean() if len(errors) > batch.instances else torch.zeros_like(instance)
        loss = instance + self.config.prior.weight * prior
        scale = self.optimizer.scale.scale if self.optimizer.scale is not None else 1.0
        (loss * (scale / self.config.training.accumulate)).backward()
        return torch.stack([loss, instance, prior]).detach()

    def errors(self, batch: Batch) -> Tensor:
        """Weighted squared error of each image of a batch, [n] float32."""
        noise = batch.noise
        latents = batch.mean + batch.std * noise.posterior
        noisy = self.objective.corrupt(latents, noise.noise, noise.timesteps)
        prediction = self.family.predict(noisy.to(self.family.dtype), noise.timesteps, batch.conditioning())
        target = self.objective.target(latents, noise.noise, noise.timesteps)
        return squared_error(prediction, target) * self.objective.weight(noise.timesteps)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> float:
        """Mean error over fixed batches."""
        with self.resting():
            return torch.cat([self.errors(batch) for batch in batches]).mean().item()

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Dropout off and averaged parameters, where there are any, in their place: the adapter as it will be used."""
        self.mode(False)
        self.flat.exchange_average()
        try:
            yield
        finally:
            self.flat.exchange_average()
            self.mode(True)

    def mode(self, training: bool) -> None:
        """Switch dropout. Only the low-rank layers have any."""
        for layer in self.layers:
            layer.train(training)
