"""Number formats, gradient checkpointing and averaged weights of whole runs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import safetensors.torch
import torch

from engine.models.load import load_family
from engine.protocol import Validation

SETTINGS = (
    "training={steps=6, batch=4, seed=7, validate_every=6}",
    "adapter={rank=4, alpha=4, targets='attention'}",
    "optimizer={lr_unet=4e-3, lr_text=1e-3}",
    "schedule.warmup=0",
)


@pytest.fixture(scope="module")
def full(run):
    """The run in float32."""
    return run(*SETTINGS)


def fall(finished) -> float:
    """How far the fixed-noise loss has come down."""
    first, last = (event.loss for event in finished.events if isinstance(event, Validation))
    return first - last


def test_bfloat16_learns_as_float32_does(run, full):
    half = run(*SETTINGS, "runtime.precision='bf16'")
    assert half.losses == pytest.approx(full.losses, rel=0.03)
    assert half.losses != full.losses
    assert fall(half) == pytest.approx(fall(full), rel=0.15)
    assert fall(full) > 0.01


def test_gradient_checkpointing_changes_no_loss(run, full):
    finished = run(*SETTINGS, "runtime.gradient_checkpointing=true")
    assert finished.losses == pytest.approx(full.losses, rel=1e-5)


def saved_bytes(trainer, batch) -> int:
    """What a forward pass keeps for its backward pass, each memory once; weights are not counted."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.errors(batch).mean().backward()
    trainer.flat.gradient.zero_()
    own = {trainer.flat.value.untyped_storage().data_ptr()}
    own |= {weight.data_ptr() for part in trainer.family.parts.values() for weight in part.parameters()}
    return sum(size for place, size in kept.items() if place not in own)


def test_gradient_checkpointing_keeps_less_than_half_for_the_backward_pass_and_the_same_gradient(
    config_of, trainer_of, make_batch
):
    family = load_family("tiny", dtype=torch.float32, device="cpu")
    trainer = trainer_of(config_of(), family)
    batch = make_batch(family, 2)
    plain = saved_bytes(trainer, batch)
    trainer.accumulate(batch)
    gradient = trainer.flat.gradient.clone()
    trainer.flat.gradient.zero_()
    family.enable_gradient_checkpointing()
    assert saved_bytes(trainer, batch) < 0.5 * plain
    trainer.accumulate(batch)
    torch.testing.assert_close(trainer.flat.gradient, gradient, rtol=1e-5, atol=1e-8)


def test_the_average_follows_the_weights_and_is_what_a_run_saves(run):
    finished = run(
        *SETTINGS,
        "training={steps=3, ema=0.6, validate_every=0}",
        "saving={every=1, states=10, precision='fp32'}",
    )
    folder = finished.directory / "checkpoints"
    states = [
        safetensors.torch.load_file(folder / f"adapter-step{step:06d}.state" / "tensors.safetensors")
        for step in (1, 2, 3)
    ]
    for before, after in pairwise(states):
        average = 0.6 * before["average"].double() + 0.4 * after["value"].double()
        torch.testing.assert_close(after["average"].double(), average, rtol=1e-5, atol=1e-7)
    for name, state in (("checkpoints/adapter-step000002", states[1]), ("adapter", states[2])):
        saved = safetensors.torch.load_file(finished.directory / f"{name}.safetensors")
        assert numbers(saved) == numbers({"average": state["average"]})
        assert numbers(saved) != numbers({"value": state["value"]})


def numbers(tensors: dict[str, torch.Tensor]) -> list[float]:
    """All numbers that are not 0, in order of size; alphas left out."""
    flat = torch.cat([tensor.flatten() for name, tensor in tensors.items() if not name.endswith(".alpha")])
    return flat[flat != 0].sort().values.tolist()
