"""Where a job computes and how: device, number format, threads, attention."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from engine.config import Model, Problem, Runtime, UserError
from engine.locks import DEVICE
from engine.models import attention
from engine.models.base import Family
from engine.models.load import load_family


@dataclass(frozen=True)
class Place:
    """A device and the number format that the base computes in there."""

    device: torch.device
    dtype: torch.dtype

    @property
    def title(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose(runtime: Runtime) -> Place:
    """The place that the settings ask for. Raises UserError where this machine does not have it."""
    wanted = runtime.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda:") and os.environ.get(DEVICE, "cpu") != "cpu":
        wanted = "cuda"  # The runner has chosen it, and this process sees no other.
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            Problem(
                where="runtime.device",
                expected="a device of this machine",
                found=f"{wanted}, where torch sees {torch.cuda.device_count()} CUDA devices",
                advice='`loratui doctor` lists them; "auto" takes the first, or the CPU',
            )
        )
    precision = runtime.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UserError(
            Problem(
                where="runtime.precision",
                expected="fp32 or bf16 on a CPU",
                found="fp16",
                advice="CPUs compute fp16 slowly and in part not at all",
            )
        )
    return Place(device, _DTYPES[precision])


def set_threads(runtime: Runtime) -> None:
    if runtime.threads:
        torch.set_num_threads(runtime.threads)


def load(model: Model, runtime: Runtime, place: Place) -> tuple[Family, list[str]]:
    """The base on its place, attention and gradient checkpointing set; and what the user should know of it."""
    family = load_family(
        model.base, vae=model.vae or None, prediction=model.prediction, dtype=place.dtype, device=place.device
    )
    backend, said = attention.choose(runtime.attention, place.device, place.dtype)
    family.set_attention(backend)
    if runtime.gradient_checkpointing:
        family.enable_gradient_checkpointing()
    return family, [*family.notices, f"{place.title}; {said}"]
