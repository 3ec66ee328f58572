"""The adapter file of a training run, with everything that its readers look for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from engine import __version__, draws
from engine.config import Train
from engine.data.dataset import Dataset
from engine.data.items import Item
from engine.data.plan import Plan
from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors
from engine.formats.facts import AdapterFacts, BaseFacts, DatasetFacts, ModelFacts, RunFacts, SubsetFacts, TrainingFacts
from engine.formats.metadata import training_metadata
from engine.lora.inject import Layers
from engine.models.base import Family
from engine.training import schedule


def adapter_of(layers: Layers) -> Adapter:
    """The factors as they are now, in float32."""
    parts = {
        part: {path: Factors(layer.down.detach(), layer.up.detach(), layer.alpha) for path, layer in paths.items()}
        for part, paths in layers.items()
    }
    return Adapter(parts)


def with_one_alpha(adapter: Adapter, alpha: float) -> Adapter:
    """The same ΔW with the same alpha everywhere: diffusers takes one for all attention layers of a file."""

    def scaled(factors: Factors) -> Factors:
        if factors.alpha == alpha:
            return factors
        return Factors(factors.down, factors.up * (factors.alpha / alpha), alpha)

    parts = {
        part: {path: scaled(factors) for path, factors in modules.items()} for part, modules in adapter.parts.items()
    }
    return Adapter(parts, adapter.metadata)


def write(path: Path, layers: Layers, family: Family, facts: TrainingFacts, precision: str) -> None:
    """Write the adapter in kohya's naming. Raises OSError when the disk refuses."""
    adapter = Adapter(with_one_alpha(adapter_of(layers), facts.adapter.alpha).parts, training_metadata(facts))
    kohya.write(path, adapter, family.kohya_name, precision)


def facts_of(
    config: Train, family: Family, images: Dataset, plan: Plan, resolution: int, step: int, started: float, now: float
) -> TrainingFacts:
    """What there is to say of a run after `step`. Times are seconds since 1970."""
    chosen = config.adapter
    arguments = {f"set.{rule.targets}": f"{rule.rank}/{rule.alpha:g}" for rule in chosen.sets}
    optimizer = config.optimizer
    moments = f"betas=({optimizer.beta1:g}, {optimizer.beta2:g}), eps={optimizer.eps:g}"
    return TrainingFacts(
        base=base_facts(family),
        dataset=_dataset_facts(config, images, resolution),
        adapter=AdapterFacts(
            rank=chosen.rank,
            alpha=chosen.alpha,
            dropout=chosen.dropout,
            arguments={"targets": chosen.targets, **arguments},
        ),
        run=RunFacts(
            name=config.name,
            session_id=draws.bits(config.training.seed, "session", int(started)) % 2**32,
            seed=config.training.seed,
            started_at=started,
            finished_at=now,
            steps=step,
            epoch=int(step * config.training.accumulate / plan.batches_per_epoch),
            max_steps=plan.steps,
            epochs=round(plan.epochs),
            batches_per_epoch=plan.batches_per_epoch,
            lr_unet=optimizer.lr_unet,
            lr_text=optimizer.lr_text,
            optimizer=f"torch.optim.adamw.AdamW(weight_decay={optimizer.weight_decay:g}, {moments})",
            schedule=config.schedule.kind,
            warmup=schedule.warmup_steps(config, plan.steps),
            accumulate=config.training.accumulate,
            clip_norm=optimizer.clip_norm,
            precision={torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[family.dtype],
            gradient_checkpointing=config.runtime.gradient_checkpointing,
            clip_skip=config.model.clip_skip,
            prior_weight=config.prior.weight,
            snr_gamma=config.loss.snr_gamma,
            noise_offset=config.loss.noise_offset,
        ),
        program=f"loratui/{__version__}",
    )


def base_facts(family: Family) -> BaseFacts:
    said = family.metadata()
    replaced = None
    if "ss_vae_name" in said:
        replaced = ModelFacts(
            name=said["ss_vae_name"], legacy_hash=said.get("ss_vae_hash"), sha256=said.get("ss_new_vae_hash")
        )
    return BaseFacts(
        name=said["ss_sd_model_name"],
        legacy_hash=said.get("ss_sd_model_hash"),
        sha256=said.get("ss_new_sd_model_hash"),
        version=said["ss_base_model_version"],
        architecture=said["modelspec.architecture"],
        implementation=said["modelspec.implementation"],
        prediction=said.get("modelspec.prediction_type"),
        vae=replaced,
    )


def _dataset_facts(config: Train, images: Dataset, resolution: int) -> DatasetFacts:
    seen = Counter()
    for item in images.items:
        seen[item.bucket] += item.repeats
    return DatasetFacts(
        subsets=tuple(_subset_facts(config, items) for items in _folders(images)),
        batch=config.training.batch,
        resolution=(resolution, resolution),
        buckets=dict(seen) if config.dataset.buckets else None,
        validation_images=len(images.held_out),
    )


def _folders(images: Dataset) -> list[list[Item]]:
    """The trained images by the folder that they lie in, in order."""
    folders: dict[Path, list[Item]] = {}
    for item in (*images.items, *images.class_items):
        folders.setdefault(item.path.parent, []).append(item)
    return list(folders.values())


def _subset_facts(config: Train, items: list[Item]) -> SubsetFacts:
    first = items[0]
    asked = config.dataset.subsets[first.subset] if first.subset >= 0 else None
    return SubsetFacts(
        folder=first.path.parent.name,
        captions=tuple(item.caption for item in items),
        repeats=first.repeats,
        class_tokens=asked.class_tokens if asked else config.prior.prompt,
        caption_prefix=asked.caption_prefix if asked else "",
        caption_suffix=asked.caption_suffix if asked else "",
        caption_dropout=first.caption_dropout,
        is_reg=first.is_reg,
        flip=first.flip,
        random_crop=first.crops > 1,
    )
