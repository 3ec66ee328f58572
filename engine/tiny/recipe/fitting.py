"""One training loop for all stages: AdamW, warm-up and cosine, averaged weights, and a state file to go on from.

Every batch is a pure function of stage, seed and step, so a stage that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.files import write_bytes

SAVED_EVERY = 180.0
"""Seconds between two states on disk."""
TOLD_EVERY = 20.0


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage learns."""

    steps: int
    rate: float
    batch: int
    warm_up: int = 100
    decay: float = 0.01
    average: float = 0.9985
    """Decay of the averaged weights, which are what a stage leaves."""
    clip: float = 1.0


@dataclass
class Told:
    """How far a stage is."""

    stage: str
    step: int
    steps: int
    loss: float
    seconds_per_step: float

    def __str__(self) -> str:
        left = (self.steps - self.step) * self.seconds_per_step
        return (
            f"{self.stage}: step {self.step}/{self.steps}  loss {self.loss:.4f}  "
            f"{self.seconds_per_step:.3f} s/step  {int(left // 60)} min {int(left % 60)} s left"
        )


def chance(stage: str, step: int) -> Random:
    """Where the batch of a step comes from."""
    return Random(f"{stage} {step}")


def fit(
    stage: str,
    module: nn.Module,
    loss: Callable[[int, Random], Tensor],
    plan: Plan,
    work: Path,
    say: Callable[[str], None],
    preview: Callable[[nn.Module, int], None] | None = None,
    preview_every: int = 2000,
) -> nn.Module:
    """Train `module` on `loss(step, chance)` and leave the averaged weights in it. Goes on from a state in `work`."""
    parameters = dict(module.named_parameters())
    averaged = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = torch.optim.AdamW(
        parameters.values(), plan.rate, weight_decay=plan.decay, betas=(0.9, 0.99), fused=True
    )
    file = work / f"{stage}.state.safetensors"
    first = _recall(file, parameters, averaged, optimizer) if file.is_file() else 0
    if first:
        say(f"{stage}: goes on after step {first}")
    told = saved = time.monotonic()
    told_step, running = first, 0.0
    module.train()
    for step in range(first, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * _share(step, plan)
        torch.manual_seed(chance(stage, step).getrandbits(48))
        value = loss(step, chance(stage, step))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters.values(), plan.clip)
        optimizer.step()
        kept = min(plan.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(averaged.values()), [p.detach() for p in parameters.values()], 1 - kept)
        now = time.monotonic()
        running += (float(value.detach()) - running) / min(step - first + 1, 200)
        if now - told > TOLD_EVERY or step + 1 == plan.steps:
            say(str(Told(stage, step + 1, plan.steps, running, (now - told) / (step + 1 - told_step))))
            told, told_step = now, step + 1
        if now - saved > SAVED_EVERY or step + 1 == plan.steps:
            _remember(file, step + 1, parameters, averaged, optimizer)
            saved = time.monotonic()
        if preview and (step + 1) % preview_every == 0:
            with torch.no_grad():
                own = {name: parameter.detach().clone() for name, parameter in parameters.items()}
                _put(parameters, averaged)
                module.eval()
                preview(module, step + 1)
                module.train()
                _put(parameters, own)
    _put(parameters, averaged)
    return module.eval().requires_grad_(False)


def _share(step: int, plan: Plan) -> float:
    """The share of the rate that a step learns with."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warm_up) / max(1, plan.steps - plan.warm_up)))


@torch.no_grad()
def _put(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _remember(
    file: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    averaged: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    state = {"step": torch.tensor(step)}
    for name, parameter in parameters.items():
        moments = optimizer.state[parameter]
        state |= {
            f"own {name}": parameter.detach(),
            f"averaged {name}": averaged[name],
            f"first {name}": moments["exp_avg"],
            f"second {name}": moments["exp_avg_sq"],
        }
    write_bytes(file, save({name: tensor.contiguous() for name, tensor in state.items()}))


@torch.no_grad()
def _recall(
    file: Path, parameters: dict[str, nn.Parameter], averaged: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    with safe_open(file, "pt") as state:
        step = int(state.get_tensor("step"))
        for name, parameter in parameters.items():
            parameter.copy_(state.get_tensor(f"own {name}"))
            averaged[name].copy_(state.get_tensor(f"averaged {name}"))
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": state.get_tensor(f"first {name}").to(parameter.device),
                "exp_avg_sq": state.get_tensor(f"second {name}").to(parameter.device),
            }
    return step
