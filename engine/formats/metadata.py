"""The metadata of a trained adapter, as kohya-ss sd-scripts (`ss_*`) and ModelSpec 1.0.1 (`modelspec.*`) lay it down.

Web UIs, model sites and metadata editors read these entries, so keys and spelling are theirs: every value is text as
Python prints it ("None", "False", "1e-05"), tables are JSON. Settings that this program doesn't have are written as
sd-scripts writes them when they are off. The hashes over the file itself are added by the writer.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from typing import Any

from engine.formats.facts import BaseFacts, DatasetFacts, RunFacts, SubsetFacts, TrainingFacts

OFF: dict[str, Any] = {
    "ss_full_fp16": False,
    "ss_lowram": False,
    "ss_multires_noise_iterations": None,
    "ss_multires_noise_discount": 0.3,
    "ss_adaptive_noise_scale": None,
    "ss_zero_terminal_snr": False,
    "ss_training_comment": None,
    "ss_sd_scripts_commit_hash": "(unknown)",
    "ss_caption_dropout_every_n_epochs": 0,
    "ss_caption_tag_dropout_rate": 0.0,
    "ss_face_crop_aug_range": None,
    "ss_scale_weight_norms": None,
    "ss_ip_noise_gamma": None,
    "ss_debiased_estimation": False,
    "ss_noise_offset_random_strength": False,
    "ss_ip_noise_gamma_random_strength": False,
    "ss_loss_type": "l2",
    "ss_huber_schedule": "snr",
    "ss_huber_scale": 1.0,
    "ss_huber_c": 0.1,
    "ss_fp8_base": False,
    "ss_fp8_base_unet": False,
    "ss_validation_seed": None,
    "ss_validation_split": 0.0,
    "ss_max_validation_steps": None,
    "ss_validate_every_n_epochs": None,
    "ss_validate_every_n_steps": None,
    "ss_resize_interpolation": None,
}
"""What sd-scripts says of options that nobody set."""

_SUBSET_OFF: dict[str, Any] = {
    "color_aug": False,
    "shuffle_caption": False,
    "keep_tokens": 0,
    "keep_tokens_separator": None,
    "secondary_separator": None,
    "enable_wildcard": False,
    "resize_interpolation": None,
}


def training_metadata(facts: TrainingFacts) -> dict[str, str]:
    """All metadata of an adapter but the hashes over its tensors. The same facts give the same texts."""
    entries = {**OFF, **_run(facts), **_dataset(facts.dataset), **_models(facts.base)}
    if facts.adapter.arguments:
        entries["ss_network_args"] = json.dumps(dict(facts.adapter.arguments))
    return {key: str(value) for key, value in entries.items()} | _modelspec(facts)


def _run(facts: TrainingFacts) -> dict[str, Any]:
    run, adapter, dataset = facts.run, facts.adapter, facts.dataset
    return {
        "ss_session_id": run.session_id,
        "ss_training_started_at": run.started_at,
        "ss_training_finished_at": run.finished_at,
        "ss_output_name": run.name,
        "ss_steps": run.steps,
        "ss_epoch": run.epoch,
        "ss_max_train_steps": run.max_steps,
        "ss_num_epochs": run.epochs,
        "ss_num_batches_per_epoch": run.batches_per_epoch,
        "ss_num_train_images": _seen(dataset, is_reg=False),
        "ss_num_reg_images": _seen(dataset, is_reg=True),
        "ss_num_validation_images": dataset.validation_images,
        "ss_learning_rate": run.lr_unet or run.lr_text,
        "ss_unet_lr": run.lr_unet or None,
        "ss_text_encoder_lr": run.lr_text or None,
        "ss_lr_scheduler": run.schedule,
        "ss_lr_warmup_steps": run.warmup,
        "ss_optimizer": run.optimizer,
        "ss_max_grad_norm": float(run.clip_norm),
        "ss_gradient_accumulation_steps": run.accumulate,
        "ss_gradient_checkpointing": run.gradient_checkpointing,
        "ss_mixed_precision": "no" if run.precision == "fp32" else run.precision,
        "ss_cache_latents": run.cache_latents,
        "ss_clip_skip": run.clip_skip,
        "ss_max_token_length": _token_length(run),
        "ss_seed": run.seed,
        "ss_prior_loss_weight": float(run.prior_weight),
        "ss_min_snr_gamma": run.snr_gamma or None,
        "ss_noise_offset": run.noise_offset or None,
        "ss_caption_dropout_rate": _caption_dropout(dataset),
        "ss_network_module": adapter.module,
        "ss_network_dim": adapter.rank,
        "ss_network_alpha": float(adapter.alpha),
        "ss_network_dropout": adapter.dropout or None,
        "ss_v2": facts.base.version.startswith("sd_v2"),
        "ss_base_model_version": facts.base.version,
    }


def _token_length(run: RunFacts) -> int | None:
    """sd-scripts knows 150 and 225, and None for the 75 tokens that CLIP has anyway."""
    return None if run.token_length == 75 else run.token_length


def _caption_dropout(dataset: DatasetFacts) -> float:
    """One rate for the whole run, where subsets may have their own: the highest."""
    return max((subset.caption_dropout for subset in dataset.subsets if not subset.is_reg), default=0.0)


def _seen(dataset: DatasetFacts, is_reg: bool) -> int:
    """Images in an epoch, repeats counted."""
    return sum(subset.repeats * len(subset.captions) for subset in dataset.subsets if subset.is_reg == is_reg)


def _dataset(dataset: DatasetFacts) -> dict[str, Any]:
    """The entries of sd-scripts' dataset-config mode. Folders go by their names, without their paths."""
    frequencies = tag_frequency((_last(subset.folder), subset.captions) for subset in dataset.subsets)
    sides = [side for size in dataset.buckets or () for side in size]
    described = {
        "is_dreambooth": True,
        "batch_size_per_device": dataset.batch,
        "num_train_images": _seen(dataset, is_reg=False),
        "num_reg_images": _seen(dataset, is_reg=True),
        "resolution": dataset.resolution,
        "enable_bucket": dataset.buckets is not None,
        "min_bucket_reso": min(sides, default=None),
        "max_bucket_reso": max(sides, default=None),
        "tag_frequency": frequencies,
        "bucket_info": _buckets(dataset),
        "resize_interpolation": None,
        "subsets": [_subset(subset) for subset in dataset.subsets],
    }
    return {
        "ss_datasets": json.dumps([described]),
        "ss_tag_frequency": json.dumps(frequencies),
        "ss_dataset_dirs": json.dumps(_folders(dataset)),
    }


def _buckets(dataset: DatasetFacts) -> dict[str, Any] | None:
    if dataset.buckets is None:
        return None
    buckets = {
        str(index): {"resolution": size, "count": count}
        for index, (size, count) in enumerate(sorted(dataset.buckets.items()))
    }
    return {"buckets": buckets, "mean_img_ar_error": dataset.aspect_error}


def _subset(subset: SubsetFacts) -> dict[str, Any]:
    return {
        "img_count": len(subset.captions),
        "num_repeats": subset.repeats,
        **_SUBSET_OFF,
        "flip_aug": subset.flip,
        "random_crop": subset.random_crop,
        "caption_prefix": subset.caption_prefix or None,
        "caption_suffix": subset.caption_suffix or None,
        "image_dir": _last(subset.folder),
        "class_tokens": subset.class_tokens or None,
        "is_reg": subset.is_reg,
    }


def _folders(dataset: DatasetFacts) -> dict[str, dict[str, int]]:
    """Repeats and images of each instance folder; further folders of the same name are numbered."""
    folders: dict[str, dict[str, int]] = {}
    for subset in dataset.subsets:
        if subset.is_reg:
            continue
        name = base = _last(subset.folder)
        number = 2
        while name in folders:
            name = f"{base} ({number})"
            number += 1
        folders[name] = {"n_repeats": subset.repeats, "img_count": len(subset.captions)}
    return folders


def tag_frequency(folders: Iterable[tuple[str, Iterable[str]]]) -> dict[str, dict[str, int]]:
    """How many captions of each folder hold a tag: `{"10_ohwx cat": {"ohwx cat": 4}}`.

    folders: name and captions; a folder that comes twice is counted on. Tags are what lies between commas, stripped and
    in lower case; each image counts once, whatever its repeats, and a tag twice in a caption counts twice.
    """
    frequencies: dict[str, dict[str, int]] = {}
    for name, captions in folders:
        counts = frequencies.setdefault(name, {})
        for caption in captions:
            for tag in caption.split(","):
                if tag := tag.strip().lower():
                    counts[tag] = counts.get(tag, 0) + 1
    return frequencies


def _models(base: BaseFacts) -> dict[str, Any]:
    """Names and hashes of the base and of a VAE that replaced its own; a hash that there is none of is left out."""
    entries = {
        "ss_sd_model_name": base.name,
        "ss_sd_model_hash": base.legacy_hash,
        "ss_new_sd_model_hash": base.sha256,
    }
    if base.vae:
        entries |= {
            "ss_vae_name": base.vae.name,
            "ss_vae_hash": base.vae.legacy_hash,
            "ss_new_vae_hash": base.vae.sha256,
        }
    return {key: value for key, value in entries.items() if value is not None}


def _last(path: str) -> str:
    """A folder's own name: the path to it is nobody's business."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path


def _modelspec(facts: TrainingFacts) -> dict[str, str]:
    base, card, run = facts.base, facts.card, facts.run
    width, height = facts.dataset.resolution
    date = datetime.datetime.fromtimestamp(int(run.finished_at), datetime.UTC)
    entries = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{base.architecture}/lora",
        "implementation": base.implementation,
        "implementation_version": facts.program,
        "title": card.title or run.name,
        "description": card.description,
        "author": card.author,
        "license": card.license,
        "usage_hint": card.usage_hint,
        "trigger_phrase": card.trigger_phrase,
        "tags": ", ".join(card.tags),
        "date": date.isoformat(),
        "resolution": f"{width}x{height}",
        "prediction_type": base.prediction,
        "encoder_layer": str(run.clip_skip),
    }
    return {f"modelspec.{key}": value for key, value in entries.items() if value}
