"""The training job: look at the images, load the base, draw class images, fill the caches, adapt, train, write.

Each function is one stage and hands on what the next needs. Everything that can be found wrong with a request is found
before the first picture is encoded.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine import draws, paths, protocol
from engine.config import Problem, Train, UserError
from engine.context import Context, Stopped
from engine.data import dataset, plan
from engine.data.cache import LatentCache, Latents
from engine.data.check import check_lengths
from engine.data.dataset import Dataset, Item
from engine.data.images import colour
from engine.data.notes import summary
from engine.data.order import ClassOrder, Order
from engine.jobs import device, output
from engine.jobs.failures import out_of_memory
from engine.lora.flat import FlatParameters
from engine.lora.inject import Layers, Selection, choose, inject
from engine.models.base import Family
from engine.models.load import load_family, resolve_base
from engine.training import batches, milestones, prior, state
from engine.training.batches import Batches
from engine.training.loop import Trainer
from engine.training.metrics import Diverged, Metrics
from engine.training.milestones import Milestones
from engine.training.objectives import Diffusion
from engine.training.optimizer import FlatAdamW, LossScale
from engine.training.text import TextStates

TARGET_SETS = ("attention", "transformer", "locon", "text_encoder")

Chosen = dict[str, dict[str, tuple[int, float]]]
"""Part → module path → (rank, alpha)."""


@dataclass(frozen=True)
class Prepared:
    """A run that could begin: its base, its images, what will be adapted, and its length."""

    family: Family
    images: Dataset
    plan: plan.Plan
    chosen: Chosen
    resolution: int
    place: device.Place


@dataclass(frozen=True)
class Inputs:
    """What the steps read: images in order, their latents, their captions' conditioning."""

    order: Order
    class_order: ClassOrder | None
    latents: Latents
    text: TextStates
    validation: list[Item]


def run(config: Train, context: Context) -> list[str]:
    """Run the job. Returns the files that it made, relative to its directory."""
    device.set_threads(config.runtime)
    prepared = prepare(config, context)
    if context.dry_run:
        return []
    prepared = replace(prepared, images=with_class_images(config, context, prepared))
    inputs = fill_caches(config, context, prepared)
    return train(config, context, prepared, inputs)


def prepare(config: Train, context: Context) -> Prepared:
    """Images and base, looked at and found good; the plan is in the journal."""
    context.stage("check", unit="images")
    place = device.choose(config.runtime)
    base = resolve_base(config.model.base)
    asked = base.default_resolution if config.dataset.resolution == "auto" else config.dataset.resolution
    resolution = max(1, asked // base.size_step) * base.size_step
    images = dataset.build(
        config.dataset,
        root=context.directory,
        resolution=resolution,
        step=base.size_step,
        seed=config.training.seed,
        progress=context.progress,
    )
    context.stage("load")
    family = load_family(
        config.model.base,
        vae=config.model.vae or None,
        prediction=config.model.prediction,
        dtype=place.dtype,
        device=place.device,
    )
    context.notices([*family.notices, *device.prepare(family, config.runtime, place)])
    captions = ((item.path, item.caption) for item in (*images.items, *images.class_items))
    context.notices(summary([*images.notes, *check_lengths(captions, family.count_tokens, family.max_tokens)]))
    chosen = choose(family.parts, selections(config, family))
    arithmetic = plan.make(
        images.items,
        batch=config.training.batch,
        accumulate=config.training.accumulate,
        steps=config.training.steps or None,
        epochs=config.training.epochs or None,
        class_images=len(images.class_items) or (config.prior.images if config.prior.weight else 0),
    )
    context.journal.emit(
        protocol.PlanMade(
            text=arithmetic.describe(),
            steps=arithmetic.steps,
            epochs=arithmetic.epochs,
            images=arithmetic.images,
            class_images=arithmetic.class_images,
            modules=sum(map(len, chosen.values())),
            base=family.title,
            captions=images.caption_sources(),
        )
    )
    return Prepared(family, images, arithmetic, chosen, resolution, place)


def selections(config: Train, family: Family) -> list[Selection]:
    """Which modules are adapted, with what rank and alpha. Raises UserError for a pattern that holds no module."""
    adapter, optimizer = config.adapter, config.optimizer
    rates = {part: optimizer.lr_unet if part == family.denoiser else optimizer.lr_text for part in family.parts}
    asked = [("adapter.targets", adapter.targets, adapter.rank, adapter.alpha)] if optimizer.lr_unet else []
    if optimizer.lr_text:
        asked.append(("optimizer.lr_text", "text_encoder", adapter.rank, adapter.alpha))
    asked += [
        (f"adapter.sets[{index}].targets", rule.targets, rule.rank, rule.alpha)
        for index, rule in enumerate(adapter.sets)
    ]
    found, problems = [], []
    for field, targets, rank, alpha in asked:
        named = family.targets(targets) if targets in TARGET_SETS else None
        names = frozenset(f"{part}.{path}" for part, paths in (named or {}).items() for path in paths)
        selection = Selection(rank, alpha, names, "" if named is not None else targets)
        held = choose(family.parts, [Selection(1, 1, selection.names, selection.pattern)])
        problems += _selection_problems(field, targets, rank, held, rates, family)
        found.append(selection)
    if problems:
        raise UserError(problems)
    return found


def _selection_problems(
    field: str, targets: str, rank: int, held: Chosen, rates: dict[str, float], family: Family
) -> list[Problem]:
    if not held:
        return [
            Problem(
                where=field,
                expected=f"one of {', '.join(TARGET_SETS)}, or a pattern over names such as "
                f"`{family.denoiser}.mid_block.*`",
                found=f"`{targets}`, which holds no module of this base",
            )
        ]
    return [
        Problem(
            where=field,
            expected=f"a learning rate above 0 for `{part}`, whose modules it holds",
            found="0",
            advice="raise the rate, set the rank of these modules to 0, or narrow the pattern",
        )
        for part in held
        if rank and not rates[part]
    ]


def with_class_images(config: Train, context: Context, prepared: Prepared) -> Dataset:
    """The images with class images beside them: a subset's, or drawn now by the base."""
    if not config.prior.weight or prepared.images.class_items:
        return prepared.images
    total = config.prior.images
    context.stage("class-images", total, "images")
    folder = prior.draw_missing(
        prepared.family,
        config.prior,
        prepared.resolution,
        config.model.clip_skip,
        config.training.seed,
        lambda done: context.progress(done, total),
        context.tick,
    )
    return replace(prepared.images, class_items=prior.items(folder, config.prior, prepared.resolution))


def fill_caches(config: Train, context: Context, prepared: Prepared) -> Inputs:
    """Latents of every picture and conditioning of every caption that the run can ask for."""
    family, images = prepared.family, prepared.images
    order = Order(images.items, config.training.batch, config.training.seed)
    class_order = (
        ClassOrder(images.class_items, config.training.batch, config.training.seed) if images.class_items else None
    )
    validation = list(images.held_out or images.items)[: batches.VALIDATION_IMAGES]
    pictures = batches.variants(order, class_order, validation)
    context.stage("cache", len(pictures), "images")
    cache = LatentCache(paths.cache("latents"), family.fingerprint, colour(config.dataset.background))
    latents = cache.ensure(pictures, family.encode_images, context.progress).to(prepared.place.device)
    live = bool(config.optimizer.lr_text)
    text = TextStates(family, images.captions(), config.model.clip_skip, live, context.tick)
    return Inputs(order, class_order, latents, text, validation)


def train(config: Train, context: Context, prepared: Prepared, inputs: Inputs) -> list[str]:
    """Adapt, go on from the last state if there is one, train, and write the adapter."""
    family, place, total = prepared.family, prepared.place, prepared.plan.steps
    seed = config.training.seed
    layers = inject(family.parts, prepared.chosen, lambda name: draws.bits(seed, "init", name), config.adapter.dropout)
    flat = FlatParameters(layers, place.dtype, average=bool(config.training.ema))
    scale = LossScale(place.device) if place.dtype == torch.float16 else None
    objective = Diffusion(family.alphas_cumprod, family.objective, config.loss.snr_gamma, place.device)
    trainer = Trainer(
        config=config,
        layers=[layer for modules in layers.values() for layer in modules.values()],
        family=family,
        flat=flat,
        objective=objective,
        optimizer=FlatAdamW(flat, config.optimizer, config.training.ema, scale),
        batches=Batches(
            inputs.order,
            inputs.class_order,
            inputs.latents,
            inputs.text,
            objective.timesteps,
            seed,
            config.training.accumulate,
            config.loss.noise_offset,
            place.device,
        ),
        metrics=Metrics(context.journal),
        steps=total,
    )
    saver = Saver(config, context, prepared, layers, trainer)
    between = Milestones(
        config=config,
        context=context,
        family=family,
        trainer=trainer,
        intervals=milestones.intervals(config, total, prepared.plan.batches_per_epoch),
        requests=milestones.sample_requests(config, prepared.resolution, family.size_step),
        validation=batches.validation_batches(
            inputs.validation, inputs.latents, inputs.text, objective.timesteps, place.device
        ),
        held_out=bool(prepared.images.held_out),
        save=saver.save,
    )
    saver.check_room(between.intervals)
    done = saver.resume()
    try:
        trainer.train(done, between)
    except (Stopped, Diverged) as ending:
        between.save_now()
        raise ending
    except Exception as error:
        if out_of_memory(error):
            between.save_now()
        raise
    return saver.finish()


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
        if not self.trainer.flat.value.isfinite().all():
            raise Diverged(step)
        path = self.folder / f"{self.config.name}-step{step:06d}.safetensors"
        self._write(path, step)
        facts = state.Facts(
            step=step,
            versions=state.versions(),
            threads=torch.get_num_threads(),
            device=self.prepared.place.title,
        )
        written = state.save(self.folder, self.config.name, facts, self.tensors(), self.config.saving.states)
        names = (str(made.relative_to(self.context.directory)) for made in (path, written))
        self.context.journal.emit(protocol.Checkpoint(step=step, adapter=next(names), state=next(names)))

    def resume(self) -> int:
        """Put the last state back, if there is one. Returns its step, else 0."""
        found = state.load_last(self.folder)
        if found is None:
            return 0
        facts, tensors = found
        self.trainer.flat.load(tensors)
        scale = self.trainer.optimizer.scale
        for name, live in (scale.state() if scale is not None else {}).items():
            live.copy_(tensors[name])
        now = state.Facts(
            step=facts.step,
            versions=state.versions(),
            threads=torch.get_num_threads(),
            device=self.prepared.place.title,
        )
        if now != facts:
            self.context.notices(
                [f"versions, threads or device differ from step {facts.step}'s: the run goes on, not to the same bits"]
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
            output.write(path, self.layers, self.prepared.family, facts, self.config.saving.precision)

    def check_room(self, intervals: milestones.Intervals) -> None:
        """Refuse a run whose files won't fit on the disk."""
        count = self.trainer.flat.count
        width = 4 if self.config.saving.precision == "fp32" else 2
        adapters = 2 + (self.trainer.steps // intervals.save if intervals.save else 0)
        states = (self.config.saving.states + 1) * count * 4 * len(self.trainer.flat.state())
        needed = adapters * count * width + states
        free = shutil.disk_usage(self.context.directory).free
        if needed > free:
            raise UserError(
                Problem(
                    where=str(self.context.directory),
                    expected=f"{needed / 1e6:,.0f} MB of free disk for {adapters} adapters and the training states",
                    found=f"{free / 1e6:,.0f} MB",
                    advice="make room, or raise saving.every",
                )
            )
