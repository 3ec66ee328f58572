"""The flat buffer and the injection that feeds it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine import draws
from engine.config import Optimizer
from engine.lora.flat import ALIGN, FlatParameters
from engine.lora.inject import Selection, adaptable, choose, inject, remove
from engine.training.optimizer import FlatAdamW, LossScale


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(12, 12, bias=False) for _ in range(3))
        self.conv = nn.Conv2d(12, 20, 3, padding=1)

    def forward(self, x):
        y = self.to_q(x) + self.to_k(x) * self.to_v(x)
        return self.conv(y.transpose(1, 2).unflatten(2, (3, 3)))


def model(seed=0):
    torch.manual_seed(seed)
    parts = {"unet": nn.Sequential(Block(), nn.ReLU()), "text_encoder": nn.Sequential(nn.Linear(5, 12))}
    for part in parts.values():
        part.requires_grad_(False)
    return parts


def adapted(seed=0, **settings):
    parts = model(seed)
    names = frozenset(f"{part}.{path}" for part, paths in adaptable(parts).items() for path in paths)
    layers = inject(parts, choose(parts, [Selection(3, 3, names)]), lambda name: draws.bits(7, "init", name))
    return parts, layers, FlatParameters(layers, **settings)


def loss_of(parts):
    x = torch.linspace(-1, 1, 2 * 9 * 5).view(2, 9, 5)
    return parts["unet"](parts["text_encoder"](x)).square().mean()


def test_parameters_and_gradients_are_views_into_the_buffer():
    parts, layers, flat = adapted()
    loss_of(parts).backward()
    layer = layers["unet"]["0.conv"]
    flat.value.fill_(0.25)
    assert layer.down.unique().tolist() == [0.25]
    assert torch.equal(flat.view("unet.0.conv.up", flat.gradient), layer.up.grad)
    assert layer.up.grad.abs().sum() > 0


def test_segments_are_aligned_and_groups_are_contiguous_and_neighbours_lie_side_by_side():
    _, _, flat = adapted()
    assert all(start % ALIGN == 0 for start, _ in flat.segments.values())
    assert flat.groups["unet"].stop == flat.groups["text_encoder"].start
    starts = [flat.segments[f"unet.0.{name}.down"][0] for name in ("to_q", "to_k", "to_v")]
    padded = -(-3 * 12 // ALIGN) * ALIGN
    assert [start - starts[0] for start in starts] == [0, padded, 2 * padded]


def test_a_layers_start_depends_on_its_name_alone():
    parts = model()
    few = inject(parts, {"unet": {"0.to_v": (3, 3.0)}}, lambda name: draws.bits(7, "init", name))
    _, all_layers, _ = adapted()
    assert torch.equal(few["unet"]["0.to_v"].down, all_layers["unet"]["0.to_v"].down)


def test_removing_puts_the_very_modules_back():
    parts = model()
    before = {path: module for path, module in parts["unet"].named_modules()}
    layers = inject(parts, {"unet": {"0.to_q": (2, 2.0), "0.conv": (2, 2.0)}}, lambda name: 0)
    assert type(parts["unet"][0].to_q).__name__ == "LoRALinear"
    remove(parts, layers)
    assert {path: module for path, module in parts["unet"].named_modules()} == before


def test_the_last_selection_decides_and_rank_zero_leaves_out():
    parts = model()
    everything = frozenset(f"{part}.{path}" for part, paths in adaptable(parts).items() for path in paths)
    chosen = choose(
        parts, [Selection(4, 4, everything), Selection(2, 8, pattern="unet.*to_?"), Selection(0, 0, pattern="text*")]
    )
    assert chosen == {"unet": {"0.to_q": (2, 8), "0.to_k": (2, 8), "0.to_v": (2, 8), "0.conv": (4, 4)}}


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_steps_equal_torchs_adamw_with_clipping_and_two_rates(clip):
    settings = Optimizer(lr_unet=1e-2, lr_text=3e-3, weight_decay=0.1, clip_norm=clip)
    parts, _, flat = adapted()
    mine = FlatAdamW(flat, settings)
    mine.set_rates({"unet": 1e-2, "text_encoder": 3e-3})
    other_parts, other_layers, _ = adapted()
    groups = {
        part: [
            nn.Parameter(getattr(layer, factor).detach().clone())
            for layer in paths.values()
            for factor in ("down", "up")
        ]
        for part, paths in other_layers.items()
    }
    for part, paths in other_layers.items():
        for layer, down, up in zip(paths.values(), groups[part][::2], groups[part][1::2], strict=True):
            layer.down, layer.up, layer.compute = down, up, None
    reference = torch.optim.AdamW(
        [{"params": groups["unet"], "lr": 1e-2}, {"params": groups["text_encoder"], "lr": 3e-3}], weight_decay=0.1
    )
    for _ in range(5):
        loss_of(parts).backward()
        norm = mine.step()
        loss_of(other_parts).backward()
        everything = groups["unet"] + groups["text_encoder"]
        exact = torch.nn.utils.clip_grad_norm_(everything, clip or float("inf"))
        reference.step()
        reference.zero_grad()
        assert norm.item() == pytest.approx(exact.item(), rel=1e-5)
    for part, paths in other_layers.items():
        for path, layer in paths.items():
            torch.testing.assert_close(flat.view(f"{part}.{path}.up", flat.value), layer.up.data, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(
                flat.view(f"{part}.{path}.down", flat.value), layer.down.data, rtol=1e-4, atol=1e-6
            )


def test_a_gradient_that_is_not_finite_changes_nothing_but_is_cleared():
    parts, _, flat = adapted()
    optimizer = FlatAdamW(flat, Optimizer())
    optimizer.set_rates({"unet": 1e-2, "text_encoder": 1e-2})
    loss_of(parts).backward()
    optimizer.step()
    before = {name: tensor.clone() for name, tensor in flat.state().items()}
    loss_of(parts).backward()
    flat.gradient[5] = float("nan")
    assert not optimizer.step().isfinite()
    assert all(torch.equal(before[name], tensor) for name, tensor in flat.state().items())
    assert flat.gradient.abs().sum() == 0
    loss_of(parts).backward()
    optimizer.step()
    assert not torch.equal(before["value"], flat.value)


def test_the_loss_scale_falls_on_overflow_and_does_not_change_the_step():
    parts, _, flat = adapted()
    scale = LossScale(flat.value.device, initial=1024.0)
    optimizer = FlatAdamW(flat, Optimizer(), scale=scale)
    optimizer.set_rates({"unet": 1e-2, "text_encoder": 1e-2})
    (loss_of(parts) * scale.scale).backward()
    optimizer.step()
    plain_parts, _, plain = adapted()
    reference = FlatAdamW(plain, Optimizer())
    reference.set_rates({"unet": 1e-2, "text_encoder": 1e-2})
    loss_of(plain_parts).backward()
    reference.step()
    torch.testing.assert_close(flat.value, plain.value)
    flat.gradient[0] = float("inf")
    optimizer.step()
    assert scale.scale.item() == 512.0


def test_the_average_follows_with_its_decay_and_can_take_the_parameters_place():
    parts, _, flat = adapted(average=True)
    optimizer = FlatAdamW(flat, Optimizer(), average=0.9)
    optimizer.set_rates({"unet": 1e-2, "text_encoder": 1e-2})
    start = flat.value.clone()
    loss_of(parts).backward()
    optimizer.step()
    trained = flat.value.clone()
    torch.testing.assert_close(flat.average, 0.9 * start + 0.1 * trained)
    flat.exchange_average()
    torch.testing.assert_close(flat.value, 0.9 * start + 0.1 * trained)
    flat.exchange_average()
    assert torch.equal(flat.value, trained)


def test_a_state_put_back_continues_to_the_same_bits():
    def trained(parts, flat, steps):
        optimizer = FlatAdamW(flat, Optimizer())
        optimizer.set_rates({"unet": 1e-2, "text_encoder": 1e-2})
        for _ in range(steps):
            loss_of(parts).backward()
            optimizer.step()

    parts, _, flat = adapted()
    trained(parts, flat, 3)
    saved = {name: tensor.clone() for name, tensor in flat.state().items()}
    trained(parts, flat, 3)
    other_parts, _, other = adapted()
    other.load(saved)
    trained(other_parts, other, 3)
    assert torch.equal(flat.value, other.value) and torch.equal(flat.moment2, other.moment2)


def test_a_compute_copy_is_the_cast_of_the_parameters_after_every_step():
    _, layers, flat = adapted(compute=torch.bfloat16)
    optimizer = FlatAdamW(flat, Optimizer())
    optimizer.set_rates({"unet": 1e-2, "text_encoder": 1e-2})
    layer = layers["unet"]["0.to_q"]
    assert layer.down.dtype == torch.float32
    layer.down.grad.fill_(1.0)
    optimizer.step()
    assert torch.equal(layer.compute[0], layer.down.detach().bfloat16())
