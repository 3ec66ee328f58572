"""What went wrong, in words, and which settings would help."""

from __future__ import annotations

import errno

import torch

from engine.config import Job, Operate, Train
from engine.training.metrics import Diverged


def out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of a device's memory or of the machine's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def explain(error: BaseException, config: Job | None) -> tuple[str, list[str]]:
    """(cause, settings that would help) of an error that ended a job."""
    if isinstance(error, Diverged):
        return str(error), _diverged(config)
    if out_of_memory(error):
        return "out of memory", _memory(config)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {error.filename or error.strerror}", _disk(config)
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        folder = "the folder of its result" if isinstance(config, Operate) else "the workspace"
        return f"{error.strerror or error}{place}", [f"check that {folder} can be written to"]
    return f"{type(error).__name__}: {error}", [
        "this is a defect of loratui: engine.log in the run's folder tells more"
    ]


def _diverged(config: Job | None) -> list[str]:
    advice = ["optimizer.lr_unet and optimizer.lr_text: a third of what they are"]
    if isinstance(config, Train):
        if config.runtime.precision == "fp16":
            advice.append('runtime.precision = "bf16", or "fp32" where there is no bf16')
        if not config.optimizer.clip_norm:
            advice.append("optimizer.clip_norm = 1.0")
    return advice


def _memory(config: Job | None) -> list[str]:
    if isinstance(config, Operate):
        return ["close other programs, or use a machine with more memory"]
    if not isinstance(config, Train):
        return ["picture.count = 1 and a smaller picture.width and picture.height", 'runtime.precision = "bf16"']
    advice = []
    if config.training.batch > 1:
        total = config.training.batch * config.training.accumulate
        advice.append(f"training.batch = 1 with training.accumulate = {total}: the same images in a step")
    if not config.runtime.gradient_checkpointing:
        advice.append("runtime.gradient_checkpointing = true")
    if config.runtime.precision == "fp32":
        advice.append('runtime.precision = "bf16"')
    return [*advice, "a smaller dataset.resolution"]


def _disk(config: Job | None) -> list[str]:
    if isinstance(config, Operate):
        return ["make room, then try it again"]
    advice = ["make room, then resume: the last saved state is whole"]
    if isinstance(config, Train):
        advice.append("saving.every: a larger number; saving.states = 1")
    return advice
