"""The training job: look at the images, load the base, draw class images, fill the caches, adapt, train, write.

Each function is one stage and hands on what the next needs. What an attempt that was killed in a stage has finished is
found again by the next; what it has not is done anew, to the same bits.
"""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass, replace

import torch

from engine import draws, paths
from engine.config import Train
from engine.context import Context, Stopped
from engine.data.cache import LatentCache, Latents
from engine.data.dataset import Dataset
from engine.data.images import colour
from engine.data.items import Item
from engine.data.order import ClassOrder, Order
from engine.jobs import device
from engine.jobs.prepare import Prepared, prepare
from engine.jobs.saver import Saver
from engine.lora.flat import FlatParameters
from engine.lora.inject import inject
from engine.training import batches, milestones, prior
from engine.training.batches import Batches
from engine.training.intervals import intervals
from engine.training.loop import Trainer
from engine.training.metrics import Diverged, Metrics
from engine.training.milestones import Milestones
from engine.training.objectives import Diffusion
from engine.training.optimizer import FlatAdamW, LossScale
from engine.training.text import TextStates


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
        intervals=intervals(config, total, prepared.plan.batches_per_epoch),
        requests=milestones.sample_requests(config, prepared.resolution, family.size_step),
        resolution=prepared.resolution,
        validation=batches.validation_batches(
            inputs.validation, inputs.latents, inputs.text, objective.timesteps, place.device
        ),
        held_out=bool(prepared.images.held_out),
        save=saver.save,
    )
    done = saver.resume()
    saver.check_room(between.intervals, done)
    try:
        trainer.train(done, between)
    except Stopped:
        between.save_now()
        raise
    except Diverged:
        raise  # The states on disk are the last good ones: this one may come of the numbers that made it diverge.
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # They hold the step's activations: a save needs memory too.
        with contextlib.suppress(Exception):  # What ended the run is the news, not that it can't be saved either.
            between.save_now()
        raise
    context.control.finish()
    return saver.finish()
