"""The two sides of `benchmarks.step`: a process sets one side up, checks it, and then runs steps when it is told to.

`ours` is the trainer as a run has it, with its metrics; `peft` is the loop of the usual example scripts around PEFT's
layers. What they share (weights, inputs, first factors) is a function of fixed seeds. Peak bytes are the most that all
tensors hold at once during a step, frozen weights left out: factors, optimizer state, gradients, inputs, activations.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.live_bytes import LiveBytes
from benchmarks.step import Case
from engine import draws, protocol
from engine.config.structs import Dataset, Model, Optimizer, Prior, Schedule, Train
from engine.lora.flat import FlatParameters
from engine.lora.inject import inject
from engine.models.base import Family, freeze
from engine.models.identity import Identity
from engine.models.load import load_family
from engine.models.resolve import find
from engine.models.sd1 import SD1
from engine.training import chance
from engine.training.batches import Batch
from engine.training.loop import Trainer
from engine.training.metrics import Metrics
from engine.training.objectives import Diffusion
from engine.training.optimizer import FlatAdamW

BATCHES = 4
CHECKED_STEPS = 6
RATE, CLIP, DECAY = 1e-4, 1.0, 1e-2
TOKENS = 77


class Side(Protocol):
    """One way to train. Loss and gradient norm of every step are kept, in order."""

    factors: int

    def run(self, steps: int) -> None:
        """Train so many steps on."""

    def history(self) -> tuple[list[float], list[float]]:
        """Losses and gradient norms of all steps so far."""


def frozen(case: Case) -> Family:
    """The base on the device. Of sd15 only the UNet has that shape; the rest is tiny's and is not used."""
    dtype = getattr(torch, case.dtype)
    family: Family = load_family("tiny", dtype=dtype, device=case.device)
    if case.base == "sd15":
        torch.manual_seed(0)
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).to(case.device, dtype)
        modules = family.parts | {"unet": freeze(unet), "vae": family.vae}
        source = find("tiny", "", weights=False)[1]
        family = SD1(source, modules, Identity("", (), False), "Stable Diffusion 1.5's shape")
    family.set_attention("sdpa")
    return family


def inputs(case: Case, family: Family) -> list[Batch]:
    """Cached latents, text states, noise and timesteps of a few batches."""
    generator = torch.Generator().manual_seed(0)
    width = family.parts["unet"].config.cross_attention_dim
    shape = (family.latent_channels, case.size, case.size)
    made = []
    for index in range(BATCHES):
        mean = torch.randn(case.batch, *shape, generator=generator).to(case.device)
        states = torch.randn(case.batch, TOKENS, width, generator=generator).to(case.device, family.dtype)
        noise = chance.draw(0, "train", index, range(case.batch), shape, len(family.alphas_cumprod))
        conditioning = {"encoder_hidden_states": states}
        made.append(
            Batch(
                mean,
                torch.full_like(mean, 0.1),
                noise.to(torch.device(case.device)),
                lambda conditioning=conditioning: conditioning,
                case.batch,
            )
        )
    return made


@torch.no_grad()
def start(path: str, down: Tensor, up: Tensor) -> None:
    """The first factors of a module. `up` is not zero, so that the first gradients already reach everything."""
    generator = torch.Generator().manual_seed(draws.bits(0, "benchmark", path))
    down.copy_(torch.randn(down.shape, generator=generator) * down[0].numel() ** -0.5)
    up.copy_(torch.randn(up.shape, generator=generator) * 0.01)


class Ours:
    """The engine's trainer on its flat buffer."""

    def __init__(self, case: Case, family: Family, targets: list[str], batches: list[Batch]):
        config = Train(
            model=Model(base=case.base),
            dataset=Dataset(subsets=[]),
            prior=Prior(weight=0.0),
            optimizer=Optimizer(lr_unet=RATE, weight_decay=DECAY, clip_norm=CLIP),
            schedule=Schedule(kind="constant", warmup=0),
        )
        chosen = {"unet": {path: (case.rank, float(case.rank)) for path in targets}}
        layers = inject(family.parts, chosen, lambda name: 0)
        for path, layer in layers["unet"].items():
            start(path, layer.down, layer.up)
        flat = FlatParameters(layers, compute=family.dtype)
        self.events: list[protocol.Step] = []
        self.factors = flat.count
        self.trainer = Trainer(
            config=config,
            family=family,
            layers=list(layers["unet"].values()),
            flat=flat,
            objective=Diffusion(family.alphas_cumprod, family.objective, 0.0, family.device),
            optimizer=FlatAdamW(flat, config.optimizer),
            batches=lambda step, micro: batches[step % BATCHES],
            metrics=Metrics(self),
            steps=0,
        )

    def emit(self, *events: protocol.Step) -> None:
        """Stands in for the journal."""
        self.events += events

    def begin(self, step: int) -> None:
        """Nothing comes between the steps."""

    after = begin

    def run(self, steps: int) -> None:
        done = self.trainer.steps
        self.trainer.steps += steps
        self.trainer.train(done, self)

    def history(self) -> tuple[list[float], list[float]]:
        return [event.loss for event in self.events], [event.grad_norm for event in self.events]


class Peft:
    """PEFT's layers, torch's AdamW, and the loop that everybody writes."""

    def __init__(self, case: Case, family: Family, targets: list[str], batches: list[Batch]):
        from peft import LoraConfig, inject_adapter_in_model  # only this side pays for the import

        self.family, self.batches = family, batches
        self.unet = family.parts["unet"]
        settings = LoraConfig(r=case.rank, lora_alpha=case.rank, target_modules=targets, init_lora_weights=True)
        inject_adapter_in_model(settings, self.unet)
        self.unet.train()
        for path in targets:
            layer = self.unet.get_submodule(path)
            for factor in (layer.lora_A, layer.lora_B):
                factor.float()  # masters in float32, as on our side
            start(path, layer.lora_A["default"].weight, layer.lora_B["default"].weight)
        self.parameters = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        self.factors = sum(parameter.numel() for parameter in self.parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=RATE, weight_decay=DECAY, fused=True)
        self.scheduler = family.make_scheduler()
        self.done = 0
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []

    def run(self, steps: int) -> None:
        kind, dtype = self.family.device.type, self.family.dtype
        for _ in range(steps):
            self.done += 1
            batch = self.batches[self.done % BATCHES]
            noise, timesteps = batch.noise.noise, batch.noise.timesteps
            latents = batch.mean + batch.std * batch.noise.posterior
            noisy = self.scheduler.add_noise(latents, noise, timesteps)
            with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
                prediction = self.unet(noisy.to(dtype), timesteps, **batch.conditioning()).sample
            wanted = noise
            if self.scheduler.config.prediction_type == "v_prediction":
                wanted = self.scheduler.get_velocity(latents, noise, timesteps)
            loss = functional.mse_loss(prediction.float(), wanted.float())
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.parameters, CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.losses.append(loss.detach())
            self.norms.append(norm.detach())

    def history(self) -> tuple[list[float], list[float]]:
        return [loss.item() for loss in self.losses], [norm.item() for norm in self.norms]


@dataclass
class Peak:
    """The most bytes held since `restart`, frozen weights left out."""

    restart: Callable[[], None]
    read: Callable[[], int]


@contextlib.contextmanager
def counted(case: Case, family: Family) -> Iterator[Peak]:
    """Count bytes: on a CPU at every operation, on a GPU as its allocator does."""
    if case.device == "cuda":
        weights = sum(tensor.untyped_storage().nbytes() for tensor in family.parts["unet"].state_dict().values())
        before = torch.cuda.memory_allocated()
        assert before >= weights
        yield Peak(torch.cuda.reset_peak_memory_stats, lambda: torch.cuda.max_memory_allocated() - before)
    else:
        with LiveBytes() as live:
            yield Peak(live.restart, lambda: live.peak)


def prepare(name: str, case: Case) -> tuple[Side, dict[str, Any]]:
    """The side, with what its first steps showed."""
    family = frozen(case)
    targets = family.targets(case.targets)["unet"]
    with counted(case, family) as peak:
        side = {"ours": Ours, "peft": Peft}[name](case, family, targets, inputs(case, family))
        side.run(1)  # from here on the optimizer has its state
        peak.restart()
        side.run(CHECKED_STEPS - 1)
        peak_bytes = peak.read()
    losses, norms = side.history()
    title = torch.cuda.get_device_name() if case.device == "cuda" else "CPU"
    return side, {
        "losses": losses,
        "norms": norms,
        "factors": side.factors,
        "peak_bytes": peak_bytes,
        "device": title,
    }


def main() -> None:
    """`python -m benchmarks.step_sides NAME CASE`: facts first, then seconds for every number of steps on stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed must not look like an answer

    def answer(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=answers, flush=True)

    name, case = sys.argv[1], Case(**json.loads(sys.argv[2]))
    if case.device == "cuda" and not torch.cuda.is_available():
        answer({"skipped": "torch sees no CUDA device"})
        return
    side, facts = prepare(name, case)
    answer(facts)
    for line in sys.stdin:
        answer({"seconds": timed(side, int(line), case.device)})


def timed(side: Side, steps: int, device: str) -> float:
    """Seconds from the first step's start to the last one's end, on the device."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    side.run(steps)
    wait()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
