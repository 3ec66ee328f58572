"""What a run does between its steps, and when: pictures, fixed-noise loss, checkpoints, and what commands ask for.

After a step the order is: pictures, validation, checkpoint, commands. An attempt that begins at step k does again what
the one before may not have finished there, since a run that was asked to stop saves before everything due was done.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine import protocol
from engine.config import Train
from engine.config.prompts import SamplePrompt, parse
from engine.context import Context, Stopped
from engine.data.buckets import whole_steps
from engine.models.base import Family
from engine.sampling import sampler
from engine.sampling.files import save_picture
from engine.training.batches import Batch
from engine.training.intervals import Intervals, due
from engine.training.loop import Trainer


@dataclass(frozen=True)
class Picture:
    """A picture that is wanted, and the file that it goes to."""

    index: int
    """Place among the run's prompts; beyond them for one that a command asked for."""
    request: sampler.Request
    path: Path


@dataclass
class Milestones:
    """The `Between` of a training run."""

    config: Train
    context: Context
    family: Family
    trainer: Trainer
    intervals: Intervals
    requests: list[sampler.Request]
    resolution: int
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
        self._attend()
        self.context.stage("train", self.trainer.steps, "steps")
        self.context.control.training = True
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
        self._attend()

    def _attend(self) -> None:
        """Do what commands ask for, and hold still or end where one says so. None of it changes the bits of a step, but
        for a rate; and none of it ends the run when it fails."""
        self.trainer.changes.reach(self.trainer.done)
        if self.context.control.wanted:
            self.trainer.metrics.flush()
            self.context.attend(self._serve)
            self.trainer.metrics.proceed()

    def _serve(self, command: protocol.ControlLine) -> None:
        match command.name:
            case "set":
                self._change(command.field, command.value)
            case "checkpoint":
                self._save_as_told()
            case "sample":
                self._sample(command.prompt)

    def _change(self, field: str, value: float) -> None:
        if all(self.trainer.rate_field(part) != field for part in self.trainer.flat.groups):
            self.context.notices([f"{field} changes nothing: no module of that part is adapted"])
            return
        self.trainer.changes.make(field, value)
        self.context.journal.emit(protocol.Changed(step=self.trainer.done, field=field, value=value))

    def _save_as_told(self) -> None:
        if self.saved == self.trainer.done:
            self.context.notices([f"step {self.saved} is saved already"])
            return
        try:
            self.save_now()
        except OSError as error:
            self.context.notices([f"step {self.trainer.done} was not saved: {error}"])

    def _sample(self, prompt: str) -> None:
        """Draw a picture of `prompt` now, or the run's own where it is empty. What goes wrong with it is told."""
        step = self.trainer.done
        pictures = [self._extra(step, prompt)] if prompt.strip() else self._missing(step)
        if not pictures:
            self.context.notices([f"the pictures of step {step} are drawn already"])
            return
        self.context.stage("draw", len(pictures), "images")
        with self.trainer.resting():
            try:
                self._draw_all(step, pictures)
            except Stopped:
                raise
            except Exception as error:  # Caught inside: its pictures are freed before the parameters come back.
                self.context.notices([f"a picture of step {step} was not drawn: {error}"])
        self.context.stage("train", self.trainer.steps, "steps")

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
        missing = self._missing(step)
        if missing:
            self.context.stage("draw", len(missing), "images")
            with self.trainer.resting():
                self._draw_all(step, missing)

    def _draw_all(self, step: int, pictures: list[Picture]) -> None:
        """To be called while the trainer is resting."""
        for done, picture in enumerate(pictures, start=1):
            request = picture.request
            image = sampler.draw(self.family, [request], self.config.model.clip_skip, self.context.tick)[0]
            save_picture(picture.path, image, request, self.family, self.config.model)
            path = str(picture.path.relative_to(self.context.directory))
            self.context.journal.emit(
                protocol.Sample(step=step, path=path, prompt=request.prompt, seed=request.seed, index=picture.index)
            )
            self.context.progress(done, len(pictures))

    def _missing(self, step: int) -> list[Picture]:
        """The run's own pictures of a step, as far as they are not there."""
        pictures = [
            Picture(index, request, self._path(step, f"p{index}", request))
            for index, request in enumerate(self.requests)
        ]
        return [picture for picture in pictures if not picture.path.exists()]

    def _extra(self, step: int, prompt: str) -> Picture:
        """A picture that a command asked for, under the first number that is free in its step."""
        request = _request(parse(prompt), self.config, self.resolution, self.family.size_step)
        folder = self.context.directory / protocol.SAMPLES
        number = next(n for n in itertools.count(1) if not any(folder.glob(f"step-{step:06d}-now-{n}-*")))
        return Picture(len(self.requests) + number - 1, request, self._path(step, f"now-{number}", request))

    def _path(self, step: int, name: str, request: sampler.Request) -> Path:
        return self.context.directory / protocol.SAMPLES / f"step-{step:06d}-{name}-s{request.seed}.png"


def sample_requests(config: Train, resolution: int, size_step: int) -> list[sampler.Request]:
    """The pictures of a run; sizes are brought down to what the base can draw."""
    return [_request(parse(line), config, resolution, size_step) for line in config.sampling.prompts]


def _request(line: SamplePrompt, config: Train, resolution: int, size_step: int) -> sampler.Request:
    settings = config.sampling

    return sampler.Request(
        prompt=line.prompt,
        negative=settings.negative if line.negative is None else line.negative,
        seed=settings.seed if line.seed is None else line.seed,
        width=whole_steps(line.width or resolution, size_step),
        height=whole_steps(line.height or resolution, size_step),
        steps=line.steps or settings.steps,
        guidance_scale=settings.guidance_scale if line.guidance_scale is None else line.guidance_scale,
    )
