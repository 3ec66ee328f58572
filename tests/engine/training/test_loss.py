"""The loss and its gradient, from noise to factors, against the same computed by other means."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch.func import functional_call

from engine.models.load import load_family
from engine.protocol import Step


@pytest.fixture(scope="module")
def noise_base():
    """The embedded base, taken for one that predicts the noise."""
    return load_family("tiny", prediction="epsilon", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def bare():
    """The embedded base without adapters."""
    return load_family("tiny", dtype=torch.float32, device="cpu")


def by_hand(trainer, batch, rows: slice) -> torch.Tensor:
    """Mean over rows of a batch of the weighted squared error, in a forward pass of their own; gamma 5, in float64."""
    family, noise = trainer.family, batch.noise
    scheduler = DDPMScheduler.from_config(family.make_scheduler().config)
    times, drawn = noise.timesteps[rows], noise.noise[rows]
    latents = batch.mean[rows] + batch.std[rows] * noise.posterior[rows]
    states = {name: states[rows] for name, states in batch.conditioning().items()}
    prediction = family.predict(scheduler.add_noise(latents, drawn, times), times, states).double()
    alphas = scheduler.alphas_cumprod.double()[times]
    snr = alphas / (1 - alphas)
    if family.objective == "v":
        target, weight = scheduler.get_velocity(latents, drawn, times).double(), snr.clamp(max=5) / (snr + 1)
    else:
        target, weight = drawn.double(), snr.clamp(max=5) / snr
    return ((prediction - target) ** 2).mean((1, 2, 3)).mul(weight).mean()


def gradient(trainer) -> torch.Tensor:
    """The accumulated gradient, taken out."""
    taken = trainer.flat.gradient.clone()
    trainer.flat.gradient.zero_()
    return taken


def test_the_loss_is_that_of_the_images_plus_the_weighted_one_of_the_class_images(config_of, trainer_of, make_batch):
    trainer = trainer_of(config_of("prior.weight=0.3", "prior.prompt=a cat"))
    batch = make_batch(trainer.family, 3, 2)
    loss, instance, prior = trainer.accumulate(batch).double()
    mine = gradient(trainer)
    parts = by_hand(trainer, batch, slice(0, 3)), by_hand(trainer, batch, slice(3, 5))
    assert (instance.item(), prior.item()) == pytest.approx([part.item() for part in parts], rel=1e-5)
    assert loss.item() == pytest.approx(parts[0].item() + 0.3 * parts[1].item(), rel=1e-5)
    (parts[0] + 0.3 * parts[1]).backward()
    torch.testing.assert_close(mine, gradient(trainer), rtol=1e-4, atol=1e-7)


def test_without_class_images_the_prior_loss_is_zero(config_of, trainer_of, make_batch):
    trainer = trainer_of(config_of())
    batch = make_batch(trainer.family, 2)
    loss, instance, prior = trainer.accumulate(batch).tolist()
    gradient(trainer)
    assert prior == 0 and loss == instance == pytest.approx(by_hand(trainer, batch, slice(None)).item(), rel=1e-5)


def test_accumulated_micro_batches_have_the_loss_and_the_gradient_of_the_big_batch(config_of, trainer_of, make_batch):
    trainer = trainer_of(config_of("training.accumulate=2"))
    halves = [make_batch(trainer.family, 2, start=start) for start in (0, 2)]
    losses = torch.stack([trainer.accumulate(half) for half in halves])
    accumulated = gradient(trainer)
    whole = trainer_of(config_of())
    loss = whole.accumulate(make_batch(whole.family, 4))
    torch.testing.assert_close(losses.mean(0), loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(accumulated, gradient(whole), rtol=1e-4, atol=1e-7)


def test_the_gradient_is_that_of_the_dense_weights_through_the_whole_model(config_of, trainer_of, make_batch, bare):
    """W + α/r · U D put into a bare base by functional_call; the chain rule is then torch's alone."""
    trainer = trainer_of(config_of())
    flat, alpha, rank = trainer.flat, trainer.config.adapter.alpha, trainer.config.adapter.rank
    batch = make_batch(trainer.family, 2)
    trainer.accumulate(batch)
    mine = gradient(trainer)

    factors = {name: flat.view(name, flat.value).clone().requires_grad_() for name in flat.segments}
    dense = {"unet": {}, "text_encoder": {}}
    for name in factors:
        module, _, factor = name.rpartition(".")
        if factor == "up":
            part, _, path = module.partition(".")
            update = alpha / rank * factors[name] @ factors[f"{module}.down"]
            dense[part][f"{path}.weight"] = bare.parts[part].get_submodule(path).weight + update
    ids = bare.tokenize(["a cat on a red background", "octopus, blue background"])
    text = functional_call(bare.parts["text_encoder"], dense["text_encoder"], (ids,)).last_hidden_state
    noise = batch.noise
    latents = batch.mean + batch.std * noise.posterior
    noisy = trainer.objective.corrupt(latents, noise.noise, noise.timesteps)
    wanted = DDPMScheduler.from_config(bare.make_scheduler().config).get_velocity(latents, noise.noise, noise.timesteps)
    said = functional_call(bare.parts["unet"], dense["unet"], (noisy, noise.timesteps), {"encoder_hidden_states": text})
    weight = trainer.objective.weight(noise.timesteps)
    ((said.sample - wanted).square().mean((1, 2, 3)) * weight).mean().backward()
    assert mine.abs().max() > 1e-3
    for name, factor in factors.items():
        torch.testing.assert_close(flat.view(name, mine), factor.grad, rtol=1e-3, atol=1e-6)


def test_a_base_that_predicts_the_noise_is_trained_on_it(noise_base, config_of, trainer_of, make_batch):
    assert noise_base.objective == "epsilon"
    trainer = trainer_of(config_of('model.prediction="epsilon"'), noise_base)
    batch = make_batch(noise_base, 3)
    loss = trainer.accumulate(batch)[0]
    gradient(trainer)
    assert loss.item() == pytest.approx(by_hand(trainer, batch, slice(None)).item(), rel=1e-5)
    plain = trainer_of(config_of())
    assert loss.item() != pytest.approx(plain.accumulate(batch)[0].item(), rel=1e-2)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_perfect_prediction_has_no_loss(config_of, trainer_of, make_batch, noise_base, tiny, prediction, monkeypatch):
    family = tiny if prediction == "v" else noise_base
    trainer = trainer_of(config_of(), family)
    batch = make_batch(family, 3)
    latents = batch.mean + batch.std * batch.noise.posterior
    perfect = trainer.objective.target(latents, batch.noise.noise, batch.noise.timesteps)
    monkeypatch.setattr(family, "predict", lambda *_: perfect)
    assert trainer.errors(batch).tolist() == [0.0] * 3


def test_the_journal_has_each_steps_mean_losses_and_the_rates_of_every_part(config_of, trainer_of):
    class Nothing:
        begin = after = staticmethod(lambda step: None)

    config = config_of(
        "training.accumulate=2", "optimizer.lr_unet=1e-3", "optimizer.lr_text=2e-4", "schedule={kind='linear',warmup=2}"
    )
    trainer = trainer_of(config)
    first = torch.stack([trainer.accumulate(trainer.batches(1, micro)) for micro in (0, 1)]).mean(0)
    norm = gradient(trainer).norm()
    trainer.train(0, Nothing())
    events = trainer.metrics.journal.events
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2, 3, 4]
    assert [event.lr["unet"] for event in events] == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])
    assert [event.lr["text_encoder"] for event in events] == pytest.approx([1e-4, 2e-4, 2e-4, 1e-4])
    assert (events[0].loss, events[0].instance) == pytest.approx(first[:2].tolist(), rel=1e-6)
    assert events[0].grad_norm == pytest.approx(norm.item(), rel=1e-5)
    assert trainer.done == 4


def test_dropout_acts_in_training_and_rests_while_validating(config_of, trainer_of, make_batch):
    trainer = trainer_of(config_of("adapter.dropout=0.5"))
    batch = make_batch(trainer.family, 2)
    trainer.mode(True)
    with torch.no_grad():
        assert not torch.equal(trainer.errors(batch), trainer.errors(batch))
    assert trainer.validate([batch]) == trainer.validate([batch])
    with torch.no_grad():
        assert not torch.equal(trainer.errors(batch), trainer.errors(batch))


def test_dropout_masks_are_a_function_of_the_step(config_of, trainer_of):
    trainer = trainer_of(config_of("adapter.dropout=0.5"))
    trainer.mode(True)
    first = trainer.micro_step(3, 0)
    torch.manual_seed(77)
    assert torch.equal(trainer.micro_step(3, 0), first)
    assert not torch.equal(trainer.micro_step(3, 1), first)


def test_a_validation_is_the_mean_error_over_all_its_images_with_the_averaged_weights(
    config_of, trainer_of, make_batch
):
    trainer = trainer_of(config_of("training.ema=0.9"))
    batches = [make_batch(trainer.family, 2), make_batch(trainer.family, 2, start=2)]
    trainer.flat.average.zero_()
    value = trainer.flat.value.clone()
    loss = trainer.validate(batches)
    assert torch.equal(trainer.flat.value, value)
    trainer.flat.value.zero_()
    trainer.flat.refresh()
    with torch.no_grad():
        exact = [by_hand(trainer, batch, slice(row, row + 1)).item() for batch in batches for row in (0, 1)]
    assert loss == pytest.approx(sum(exact) / 4, rel=1e-5)
