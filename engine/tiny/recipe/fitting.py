"""One training loop for all stages: warm-up and cosine, averaged weights, and a state file to go on from.

Matrices may learn with Muon (Jordan et al. 2024), whose steps are as long in rare directions as in frequent ones: what
says which of many drawings is meant is rare. All else learns with AdamW.

Every batch is a pure function of stage and step, so a stage that was cut off goes on as if it had not been. On a CPU a
batch may be cut into shares, each with a replica of the module on a thread of its own: layers this small keep one core
busy, but not two.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
MUON_RATE = 2.0
"""Of AdamW's, where Muon's steps are scaled to be as long as its own."""


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
    muon: str = ""
    """Beginning of the names of parameters whose matrices learn with Muon."""
    slow: str = ""
    """Beginning of the names of parameters that have learned before: they learn at a tenth of the rate."""
    preview: int = 1500
    """Steps from one preview to the next."""


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


Batch = tuple[Tensor, ...]
"""What a step learns from, with the pictures in dimension 0 of every tensor."""


class Replicas:
    """A module and copies of it that share its weights, so that shares of a batch go through side by side."""

    def __init__(self, module: nn.Module, count: int):
        self._all = [module, *(copy.deepcopy(module) for _ in range(count - 1))]
        for replica in self._all[1:]:
            for own, shared in zip(replica.parameters(), module.parameters(), strict=True):
                own.data = shared.data
        initializer = (lambda: torch.set_num_threads(1)) if count > 1 else None
        self.threads = ThreadPoolExecutor(count, initializer=initializer)

    def backward(self, loss: Callable[..., Tensor], batch: Batch) -> float:
        """Leave the gradient of the mean loss in the module; returns the loss."""
        shares = zip(*(tensor.chunk(len(self._all)) for tensor in batch), strict=True)
        values = list(self.threads.map(lambda pair: self._one(loss, *pair), zip(self._all, shares, strict=True)))
        own = [parameter.grad for parameter in self._all[0].parameters()]
        for replica in self._all[1:]:
            torch._foreach_add_(own, [parameter.grad for parameter in replica.parameters()])
            replica.zero_grad()
        return sum(values)

    def _one(self, loss: Callable[..., Tensor], module: nn.Module, share: Batch) -> float:
        value = loss(module, *share) / len(self._all)
        value.backward()
        return float(value.detach())

    def train(self) -> None:
        for replica in self._all:
            replica.train()


class Optimizer:
    """Muon for the matrices that the plan names, kernels flattened to one, and AdamW for all else."""

    def __init__(self, parameters: dict[str, nn.Parameter], plan: Plan, threads: ThreadPoolExecutor, shares: int):
        """threads, shares: matrices are stepped side by side, in as many shares."""
        self._plan, self._threads = plan, threads
        self._matrices = {
            name: (parameter, nn.Parameter(parameter.data.flatten(1)))
            for name, parameter in parameters.items()
            if _has(name, plan.muon) and not _has(name, plan.slow) and parameter.dim() > 1
        }
        self._others = {name: value for name, value in parameters.items() if name not in self._matrices}
        groups = [
            {"params": [value for name, value in self._others.items() if _has(name, plan.slow) == slow], "scale": scale}
            for slow, scale in ((False, 1.0), (True, 0.1))
        ]
        self._adam = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            plan.rate,
            weight_decay=plan.decay,
            betas=(0.9, 0.99),
            fused=True,
        )
        flat = sorted((matrix for _, matrix in self._matrices.values()), key=_work, reverse=True)
        self._muons = [
            torch.optim.Muon(flat[share::shares], plan.rate, plan.decay, adjust_lr_fn="match_rms_adamw")
            for share in range(shares if flat else 0)
        ]

    def step(self, share: float) -> None:
        """One step with a share of the plan's rate."""
        for group in self._adam.param_groups:
            group["lr"] = self._plan.rate * group["scale"] * share
        self._adam.step()
        for parameter, matrix in self._matrices.values():
            matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        for muon in self._muons:
            muon.param_groups[0]["lr"] = MUON_RATE * self._plan.rate * share
        list(self._threads.map(lambda muon: muon.step(), self._muons))

    def moments(self) -> dict[str, Tensor]:
        """What it remembers of each parameter."""
        found = {}
        for name, parameter in self._others.items():
            state = self._adam.state[parameter]
            found |= {f"first {name}": state["exp_avg"], f"second {name}": state["exp_avg_sq"]}
        momenta = {matrix: state["momentum_buffer"] for muon in self._muons for matrix, state in muon.state.items()}
        return found | {f"first {name}": momenta[matrix] for name, (_, matrix) in self._matrices.items()}

    def recall(self, step: int, moments: Callable[[str], Tensor]) -> None:
        """Go on after a step."""
        for name, parameter in self._others.items():
            self._adam.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                "exp_avg": moments(f"first {name}").to(parameter.device),
                "exp_avg_sq": moments(f"second {name}").to(parameter.device),
            }
        owners = {matrix: muon for muon in self._muons for matrix in muon.param_groups[0]["params"]}
        for name, (parameter, matrix) in self._matrices.items():
            owners[matrix].state[matrix]["momentum_buffer"] = moments(f"first {name}").to(parameter.device)


def _work(matrix: Tensor) -> int:
    """About how many multiplications a matrix costs Muon."""
    return matrix.numel() * min(matrix.shape)


def fit(
    stage: str,
    module: nn.Module,
    draw: Callable[[int, Random], Batch],
    loss: Callable[..., Tensor],
    plan: Plan,
    work: Path,
    say: Callable[[str], None],
    preview: Callable[[], None] | None = None,
    shares: int = 1,
) -> nn.Module:
    """Train `module` on `loss(module, *draw(step, chance))` and leave the averaged weights in it, frozen.

    Goes on from a state in `work`. `preview` is called now and then with the averaged weights in the module. shares: of
    a batch, side by side.
    """
    parameters = dict(module.named_parameters())
    averaged = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    replicas = Replicas(module, shares)
    optimizer = Optimizer(parameters, plan, replicas.threads, shares)
    file = work / f"{stage}.state.safetensors"
    first = _recall(file, parameters, averaged, optimizer) if file.is_file() else 0
    if first:
        say(f"{stage}: goes on after step {first}")
    replicas.train()
    told = saved = time.monotonic()
    told_step, running = first, 0.0
    for step, batch in _batches(stage, draw, range(first, plan.steps)):
        value = replicas.backward(loss, batch)
        nn.utils.clip_grad_norm_(parameters.values(), plan.clip)
        optimizer.step(_share(step, plan))
        module.zero_grad()
        kept = min(plan.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(averaged.values()), [p.detach() for p in parameters.values()], 1 - kept)
        now = time.monotonic()
        running += (value - running) / min(step - first + 1, 200)
        last = step + 1 == plan.steps
        if now - told > TOLD_EVERY or last:
            say(str(Told(stage, step + 1, plan.steps, running, (now - told) / (step + 1 - told_step))))
            told, told_step = now, step + 1
        if now - saved > SAVED_EVERY or last:
            _remember(file, step + 1, parameters, averaged, optimizer)
            saved = time.monotonic()
        if preview and (step + 1) % plan.preview == 0 and not last:
            _shown(parameters, averaged, preview)
    _put(parameters, averaged)
    return module.eval().requires_grad_(False)


def _batches(stage: str, draw: Callable[[int, Random], Batch], steps: range) -> Iterator[tuple[int, Batch]]:
    """Each step with its batch, which is drawn while the step before is at work."""

    def drawn(step: int) -> Batch:
        torch.manual_seed(chance(stage, step).getrandbits(48))
        return draw(step, chance(stage, step))

    with ThreadPoolExecutor(1) as ahead:
        coming = [ahead.submit(drawn, step) for step in steps[:1]]
        for step in steps:
            batch = coming.pop().result()
            coming = [ahead.submit(drawn, following) for following in (step + 1,) if following in steps]
            yield step, batch


@torch.no_grad()
def _shown(parameters: dict[str, nn.Parameter], averaged: dict[str, Tensor], preview: Callable[[], None]) -> None:
    """The preview of the averaged weights; the module goes on with its own."""
    own = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    _put(parameters, averaged)
    preview()
    _put(parameters, own)


def _has(name: str, beginning: str) -> bool:
    """Whether a plan means this parameter; an empty beginning means none."""
    return bool(beginning) and name.startswith(beginning)


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
    file: Path, step: int, parameters: dict[str, nn.Parameter], averaged: dict[str, Tensor], optimizer: Optimizer
) -> None:
    state = {"step": torch.tensor(step), **optimizer.moments()}
    for name, parameter in parameters.items():
        state |= {f"own {name}": parameter.detach(), f"averaged {name}": averaged[name]}
    write_bytes(file, save({name: tensor.contiguous() for name, tensor in state.items()}))


@torch.no_grad()
def _recall(file: Path, parameters: dict[str, nn.Parameter], averaged: dict[str, Tensor], optimizer: Optimizer) -> int:
    with safe_open(file, "pt") as state:
        step = int(state.get_tensor("step"))
        for name, parameter in parameters.items():
            parameter.copy_(state.get_tensor(f"own {name}"))
            averaged[name].copy_(state.get_tensor(f"averaged {name}"))
        optimizer.recall(step, state.get_tensor)
    return step
