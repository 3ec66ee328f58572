"""Noise, posterior noise and timesteps: pure functions of where they are drawn for."""

from __future__ import annotations

import pytest
import torch

from engine.training import chance
from engine.training.chance import Noise

SHAPE = (4, 8, 8)


def draw(indices, seed=1, stage="train", step=3, **options) -> Noise:
    return chance.draw(seed, stage, step, indices, SHAPE, 1000, **options)


def same(one: Noise, other: Noise) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("posterior", "noise", "timesteps"))


def test_the_same_place_has_the_same_draws_whatever_was_drawn_before():
    first = draw(range(4))
    torch.manual_seed(99)
    draw(range(50, 60), step=7)
    torch.randn(5)
    assert same(draw(range(4)), first)


def test_drawing_leaves_torchs_own_generator_alone():
    state = torch.get_rng_state()
    draw(range(2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_two_micro_batches_of_four_draw_what_one_of_eight_draws(offset):
    parts = [draw(range(start, start + 4), offset=offset) for start in (0, 4)]
    assert same(Noise.concatenate(parts), draw(range(8), offset=offset))


def test_the_noise_of_an_image_does_not_depend_on_its_neighbours():
    whole = draw(range(8))
    alone = draw(range(5, 6))
    assert torch.equal(whole.noise[5:6], alone.noise) and torch.equal(whole.timesteps[5:6], alone.timesteps)


@pytest.mark.parametrize("other", [{"seed": 2}, {"stage": "prior"}, {"step": 4}, {"indices": range(4, 8)}])
def test_another_seed_stage_step_or_place_draws_something_else(other):
    one, two = draw(range(4)), draw(**{"indices": range(4), **other})
    assert not any(torch.equal(a, b) for a, b in zip(one.noise, two.noise, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.posterior, two.posterior, strict=True))
    assert not torch.equal(one.timesteps, two.timesteps)


def test_posterior_and_noise_of_an_image_are_independent_standard_normals():
    drawn = draw(range(400))
    for tensor in (drawn.posterior, drawn.noise):
        count = tensor.numel()
        assert abs(tensor.mean().item()) < 4 / count**0.5
        assert abs(tensor.var().item() - 1) < 4 * (2 / count) ** 0.5
    correlation = (drawn.posterior * drawn.noise).mean().item()
    assert abs(correlation) < 4 / drawn.noise.numel() ** 0.5
    neighbours = (drawn.noise[1:] * drawn.noise[:-1]).mean().item()
    assert abs(neighbours) < 4 / drawn.noise.numel() ** 0.5


def test_timesteps_are_uniform_over_the_whole_range():
    times = draw(range(5000)).timesteps
    assert times.dtype == torch.int64 and times.min() >= 0 and times.max() <= 999
    counts = torch.histc(times.float(), bins=10, min=0, max=1000)
    assert ((counts - 500) ** 2 / 500).sum() < 27.9  # χ² with 9 degrees of freedom, p = 0.001
    assert {0, 1, 2} == set(chance.draw(0, "train", 1, range(60), SHAPE, 3).timesteps.tolist())


def test_a_noise_offset_shifts_each_channel_by_a_normal_of_its_size():
    plain, shifted = draw(range(600)), draw(range(600), offset=0.1)
    shift = shifted.noise - plain.noise
    assert torch.equal(plain.timesteps, shifted.timesteps) and torch.equal(plain.posterior, shifted.posterior)
    torch.testing.assert_close(shift, shift.mean((2, 3), keepdim=True).expand_as(shift), rtol=0, atol=1e-6)
    shifts = shift.mean((2, 3))
    assert abs(shifts.std().item() / 0.1 - 1) < 0.06
    assert abs(shifts.mean().item()) < 4 * 0.1 / shifts.numel() ** 0.5
    between = (shifts[:, 0] * shifts[:, 1]).mean().item() / 0.01
    assert abs(between) < 4 / 600**0.5


def test_the_draws_are_the_recorded_ones():
    """A change here changes every run that was ever started."""
    drawn = chance.draw(42, "train", 1, range(2), (1, 1, 2), 1000, 0.5)
    assert drawn.timesteps.tolist() == [767, 302]
    assert drawn.posterior.flatten().tolist() == pytest.approx([-0.548951, 0.364203, -0.894228, -0.154886], abs=1e-5)
    assert drawn.noise.flatten().tolist() == pytest.approx([-0.7714, 0.942178, -1.590308, -2.473569], abs=1e-5)
