"""What a run does between its steps, and when: pictures, fixed-noise loss, checkpoints, and ending when asked to.

After a step the order is: pictures, validation, checkpoint. An attempt that begins at step k does again what the one
before may not have finished there, since a run that was asked to stop saves before everything due was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine import protocol
from engine.config import Train
from engine.config.prompts import SamplePrompt, parse
from engine.context import Context
from engine.models.base import Family
from engine.sampling import sampler
from engine.sampling.files import save_picture
from engine.training.batches import Batch
from engine.training.loop import Trainer


@dataclass(frozen=True)
class Intervals:
    """Steps between pictures, validations and checkpoints; 0 means at the end only (and pictures at the start)."""

    sample: int
    validate: int
    save: int


def intervals(config: Train, steps: int, batches_per_epoch: int) -> Intervals:
    """The intervals of a run, `auto` resolved: 4 pictures, 20 validations, 10 checkpoints."""

    def every(setting: int | str, times: int) -> int:
        return max(1, steps // times) if setting == "auto" else setting

    per_epoch = max(1, round(batches_per_epoch / config.training.accumulate))
    sample = config.sampling.epochs * per_epoch or every(config.sampling.every, 4)
    return Intervals(sample, every(config.training.validate_every, 20), every(config.saving.every, 10))


def due(step: int, every: int, steps: int) -> bool:
    """Whether something with this interval happens after `step`. It always happens after the last."""
    return step == steps or bool(every and step and step % every == 0)


@dataclass
class Milestones:
    """The `Between` of a training run."""

    config: Train
    context: Context
    family: Family
    trainer: Trainer
    intervals: Intervals
    requests: list[sampler.Request]
    validation: list[Batch]
    held_out: bool
    save: Callable[[int], None]
    """Write adapter and state of a step."""
    saved: int = 0

    def begin(self, step: int) -> None:
        self.saved = step
        if step == 0 or due(step, self.intervals.sample, self.trainer.steps):
            self._draw(step)
        if step == 0 or due(step, self.intervals.validate, self.trainer.steps):
            self._validate(step)
        self.context.stage("train", self.trainer.steps, "steps")
        self.trainer.metrics.proceed()

    def after(self, step: int) -> None:
        draws_pictures = bool(self.requests) and due(step, self.intervals.sample, self.trainer.steps)
        validates = due(step, self.intervals.validate, self.trainer.steps)
        saves = due(step, self.intervals.save, self.trainer.steps)
        if draws_pictures or validates or saves:
            self.trainer.metrics.flush()
            if draws_pictures:
                self._draw(step)
                self.context.stage("train", self.trainer.steps, "steps")
            if validates:
                self._validate(step)
            if saves:
                self.save_now()
            self.trainer.metrics.proceed()
        self.context.tick()

    def save_now(self) -> None:
        """Write adapter and state of the last step that was done, unless they are there; its metrics go first."""
        self.trainer.metrics.flush()
        step = self.trainer.done
        if self.saved != step:
            self.save(step)
            self.saved = step

    def _validate(self, step: int) -> None:
        if not (self.intervals.validate and self.validation):
            return
        loss = self.trainer.validate(self.validation)
        images = "held-out" if self.held_out else "training"
        self.context.journal.emit(
            protocol.Validation(step=step, loss=protocol.finite(loss), images=images, count=len(self.validation))
        )

    def _draw(self, step: int) -> None:
        wanted = [(index, request, self._path(step, index, request)) for index, request in enumerate(self.requests)]
        missing = [entry for entry in wanted if not entry[2].exists()]
        if not missing:
            return
        self.context.stage("draw", len(missing), "images")
        with self.trainer.resting():
            for done, (index, request, path) in enumerate(missing, start=1):
                image = sampler.draw(self.family, [request], self.config.model.clip_skip, self.context.tick)[0]
                save_picture(path, image, request, self.family, self.config.model)
                relative = str(path.relative_to(self.context.directory))
                self.context.journal.emit(
                    protocol.Sample(step=step, path=relative, prompt=request.prompt, seed=request.seed, index=index)
                )
                self.context.progress(done, len(missing))

    def _path(self, step: int, index: int, request: sampler.Request) -> Path:
        return self.context.directory / protocol.SAMPLES / f"step-{step:06d}-p{index}-s{request.seed}.png"


def sample_requests(config: Train, resolution: int, size_step: int) -> list[sampler.Request]:
    """The pictures of a run; sizes are brought down to what the base can draw."""
    return [_request(parse(line), config, resolution, size_step) for line in config.sampling.prompts]


def _request(line: SamplePrompt, config: Train, resolution: int, size_step: int) -> sampler.Request:
    settings = config.sampling

    def side(length: int | None) -> int:
        return max(1, (length or resolution) // size_step) * size_step

    return sampler.Request(
        prompt=line.prompt,
        negative=settings.negative if line.negative is None else line.negative,
        seed=settings.seed if line.seed is None else line.seed,
        width=side(line.width),
        height=side(line.height),
        steps=line.steps or settings.steps,
        guidance_scale=settings.guidance_scale if line.guidance_scale is None else line.guidance_scale,
    )
