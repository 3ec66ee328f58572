"""What a training run leaves on disk: adapters, training states, and the way back into one.

The adapter of a step is written before its state, so a state says that everything due by its step is there. A state is
believed only when it is whole; the run falls back behind a damaged one and says so.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from engine import protocol
from engine.config import Problem, Train, UserError
from engine.context import Context
from engine.data.dataset import Dataset
from engine.formats.kohya import PRECISIONS
from engine.jobs import output
from engine.jobs.prepare import Prepared
from engine.lora.inject import Layers
from engine.training import changes, state
from engine.training.intervals import Intervals
from engine.training.loop import Trainer
from engine.training.metrics import Diverged


@dataclass
class Saver:
    """Writes what a run leaves behind, and finds what an earlier attempt has left."""

    config: Train
    context: Context
    prepared: Prepared
    layers: Layers
    trainer: Trainer

    @property
    def folder(self) -> Path:
        folder = self.context.directory / protocol.CHECKPOINTS
        folder.mkdir(exist_ok=True)
        return folder

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that training changes; the tensors are the live ones."""
        scale = self.trainer.optimizer.scale
        return self.trainer.flat.state() | (scale.state() if scale is not None else {})

    def save(self, step: int) -> None:
        """Adapter and training state of `step`, each whole or not there. Raises OSError when the disk refuses."""
        path = self.folder / f"{self.config.name}-step{step:06d}.safetensors"
        self._write(path, step)
        written = state.save(
            self.folder,
            self.config.name,
            step,
            self.conditions(),
            self.tensors(),
            self.config.saving.states,
            self.trainer.changes.values,
        )
        names = (str(made.relative_to(self.context.directory)) for made in (path, written))
        self.context.journal.emit(protocol.Checkpoint(step=step, adapter=next(names), state=next(names)))

    def conditions(self) -> state.Conditions:
        family, images = self.prepared.family, self.prepared.images
        return state.conditions(self.prepared.place.title, family.fingerprint, _digest(images))

    def resume(self) -> int:
        """Put the last whole state back, if there is one, and what was changed live. Returns its step, else 0."""
        done = self._last_state()
        live = self.trainer.changes
        live.go_on(changes.told(self.context.directory / protocol.JOURNAL), done)
        self.context.notices(live.words())
        return done

    def _last_state(self) -> int:
        states = state.find(self.folder)
        for path in reversed(states):
            found = state.load(path)
            if found is not None:
                return self._go_on_from(path, *found)
            self.context.notices([f"{path.name} is damaged: the run goes back to the state before it"])
        if states:
            self.context.notices(["no whole state is left: the run begins anew"])
        return 0

    def _go_on_from(self, path: Path, facts: state.Facts, tensors: dict[str, torch.Tensor]) -> int:
        try:
            self.trainer.flat.load(tensors)
        except (KeyError, RuntimeError):
            raise UserError(
                Problem(
                    where=str(path),
                    expected="a state of the layers that this run adapts",
                    found="one of others",
                    advice="the base has changed since: bring the former one back, or start a new run",
                )
            ) from None
        scale = self.trainer.optimizer.scale
        for name, live in (scale.state() if scale is not None else {}).items():
            live.copy_(tensors[name])
        self.trainer.changes.values = dict(facts.changes)
        changed = self.conditions().changed(facts.conditions)
        if changed:
            self.context.notices(
                [f"changed since step {facts.step}: {', '.join(changed)}: the run goes on, not to the same bits"]
            )
        self.context.journal.emit(protocol.Resumed(step=facts.step))
        return facts.step

    def finish(self) -> list[str]:
        """Write the finished adapter beside the checkpoints."""
        path = self.context.directory / f"{self.config.name}.safetensors"
        self._write(path, self.trainer.steps)
        return [path.name]

    def _write(self, path: Path, step: int) -> None:
        started = self.context.journal.status.started
        facts = output.facts_of(
            self.config,
            self.prepared.family,
            self.prepared.images,
            self.prepared.plan,
            self.prepared.resolution,
            step,
            started,
            time.time(),
        )
        with self.trainer.resting():
            self._check_finite(step)
            output.write(path, self.layers, self.prepared.family, facts, self.config.saving.precision)

    def _check_finite(self, step: int) -> None:
        """Raises Diverged for numbers that the adapter's file could not hold."""
        precision = self.config.saving.precision
        largest = torch.finfo(PRECISIONS[precision]).max
        if not self.trainer.flat.value.abs().max() <= largest:
            raise Diverged(step, f"the adapter's numbers were beyond {largest:g}, the largest of {precision},")

    def check_room(self, intervals: Intervals, done: int) -> None:
        """Refuse to go on from step `done` where the files still to be written won't fit on the disk."""
        width = PRECISIONS[self.config.saving.precision].itemsize
        left = self.trainer.steps // intervals.save - done // intervals.save if intervals.save else 0
        adapters = left + 2
        state_size = sum(tensor.nbytes for tensor in self.tensors().values())
        states = self.config.saving.states + 1 - len(state.find(self.folder))
        needed = adapters * self.trainer.flat.count * width + max(1, states) * state_size
        free = shutil.disk_usage(self.context.directory).free
        if needed > free:
            raise UserError(
                Problem(
                    where=str(self.context.directory),
                    expected=f"{needed / 1e6:,.1f} MB of free disk for {adapters} adapters and the training states",
                    found=f"{free / 1e6:,.1f} MB",
                    advice="make room, or raise saving.every",
                )
            )


def _digest(images: Dataset) -> str:
    """Hash over everything of the images that decides what a step sees."""
    seen = [
        (item.sha256, item.bucket, item.caption, item.repeats, item.is_reg, item.flip, item.crops, item.caption_dropout)
        for item in (*images.items, *images.class_items)
    ]
    return hashlib.sha256(repr(seen).encode()).hexdigest()
