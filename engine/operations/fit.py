"""fit-weights: how much of each of several frozen adapters makes pictures like these.

The weights are learned with the diffusion loss of training on captioned images, and a pull back to where they began,
so that adapters that don't help stay as the user set them. The result is a blend file; no adapter is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine import __version__, paths
from engine.config import Model, Problem, Runtime, Subset, UserError
from engine.config.blends import SUFFIX, Blend, Ingredient, to_text
from engine.config.operations import FitWeights
from engine.config.structs import Dataset
from engine.data import dataset, plan
from engine.data.cache import LatentCache
from engine.data.images import colour
from engine.data.order import Order
from engine.files import write_bytes
from engine.jobs import device
from engine.jobs.generate import read_all
from engine.lora.mixture import Mixture
from engine.models.base import Family
from engine.models.load import resolve_base
from engine.operate import Reporter
from engine.protocol.operations import Fitted
from engine.training import batches
from engine.training.batches import Batch, Batches
from engine.training.objectives import Diffusion, squared_error
from engine.training.text import TextStates


def fit_weights(request: FitWeights, reporter: Reporter) -> Fitted:
    """Learn the weights and write the blend."""
    out = Path(request.out)
    _check_out(out, request.force)
    place = device.choose(Runtime(device=request.device))
    reporter.stage("check")
    images = _images(request)
    reporter.stage("load")
    family, notices = device.load(Model(request.base), Runtime(device=request.device), place)
    for notice in notices:
        reporter.notice(notice)
    adapters = read_all(family, [use.path for use in request.adapters])
    for module in family.parts.values():
        module.requires_grad_(False)
    start = [use.weight for use in request.adapters]
    mixture = Mixture(family.parts, adapters, start, request.per_block)
    learns_text = any(part != family.denoiser for one in adapters for part in one.parts)
    draws, fixed = _inputs(request, images, family, learns_text, reporter)
    learner = _Learner(family, mixture, request)
    before = learner.measure(fixed)
    learner.learn(draws, reporter)
    after = learner.measure(fixed)
    weights = mixture.named()
    _write(out, request, weights, before, after)
    return Fitted(
        out=str(out),
        adapters=[use.path for use in request.adapters],
        before=start,
        weights=weights,
        loss_before=before,
        loss_after=after,
        images=len(images.items),
    )


def _images(request: FitWeights) -> dataset.Dataset:
    """The captioned images, all of them to learn from. Raises UserError with every problem there is."""
    base = resolve_base(request.base, "base")
    asked = _dataset(request)
    resolution = plan.resolution(asked, base.default_resolution, base.size_step)
    return dataset.build(asked, root=Path.cwd(), resolution=resolution, step=base.size_step, seed=request.seed)


def _dataset(request: FitWeights) -> Dataset:
    return Dataset([Subset(request.data)], hold_out=0.0)


def _inputs(
    request: FitWeights, images: dataset.Dataset, family: Family, learns_text: bool, reporter: Reporter
) -> tuple[Batches, list[Batch]]:
    """Batches to learn from, and the fixed ones that the loss is measured on; pictures are encoded once."""
    order = Order(images.items, request.batch, request.seed)
    checked = list(images.items)[: batches.VALIDATION_IMAGES]
    variants = batches.variants(order, None, checked)
    reporter.stage("cache", len(variants), "images")
    cache = LatentCache(paths.cache("latents"), family.fingerprint, colour(_dataset(request).background))
    encoded = cache.ensure(variants, family.encode_images, lambda done, _: reporter.progress(done))
    latents = encoded.to(family.device)
    text = TextStates(family, images.captions(), 1, live=learns_text)
    steps = len(family.alphas_cumprod)
    draws = Batches(order, None, latents, text, steps, request.seed, 1, 0.0, family.device)
    return draws, batches.validation_batches(checked, latents, text, steps, family.device)


def _check_out(out: Path, force: bool) -> None:
    found = ""
    if out.suffix.lower() != SUFFIX:
        found, advice = out.suffix or "no suffix", "a blend is written as TOML"
    elif not out.parent.is_dir():
        found, advice = f"no folder {out.parent}", "make the folder first"
    elif out.exists() and not force:
        found, advice = "a file of that name", "--force overwrites it"
    if found:
        expected = "a .toml file that is not there yet"
        raise UserError(Problem(where=str(out), field="out", expected=expected, found=found, advice=advice))


class _Learner:
    """Adam (Kingma & Ba 2015) on the weights of a mixture."""

    def __init__(self, family: Family, mixture: Mixture, request: FitWeights):
        self.family, self.mixture, self.request = family, mixture, request
        self.objective = Diffusion(family.alphas_cumprod, family.objective, 0.0, family.device)
        self.start = mixture.weights.detach().clone()
        self.optimizer = torch.optim.Adam([mixture.weights], lr=request.rate)

    def learn(self, draws: Batches, reporter: Reporter) -> None:
        """All steps. Raises UserError where the loss stops being a number."""
        reporter.stage("fit", self.request.steps, "steps")
        for step in range(1, self.request.steps + 1):
            self.optimizer.zero_grad()
            pull = self.request.pull * (self.mixture.weights - self.start).square().mean()
            loss = self._errors(draws(step, 0)).mean() + pull
            loss.backward()
            if not torch.isfinite(loss):
                raise UserError(
                    Problem(
                        where="fit-weights",
                        expected="a loss that is a number",
                        found=f"{loss.item()} in step {step}",
                        advice="lower --rate, or begin with smaller weights",
                    )
                )
            self.optimizer.step()
            reporter.progress(step)

    @torch.no_grad()
    def measure(self, fixed: Sequence[Batch]) -> float:
        """The loss under fixed noise and timesteps."""
        return torch.cat([self._errors(batch) for batch in fixed]).mean().item()

    def _errors(self, batch: Batch) -> Tensor:
        noise = batch.noise
        latents = batch.mean + batch.std * noise.posterior
        noisy = self.objective.corrupt(latents, noise.noise, noise.timesteps).to(self.family.dtype)
        prediction = self.family.predict(noisy, noise.timesteps, batch.conditioning())
        return squared_error(prediction, self.objective.target(latents, noise.noise, noise.timesteps))


def _write(out: Path, request: FitWeights, weights: dict[str, list[float]], before: float, after: float) -> None:
    """The blend: one weight an adapter, or one a block with their mean for all other layers."""
    adapters = []
    for number, use in enumerate(request.adapters):
        own = {block: round(values[number], 4) for block, values in weights.items()}
        mean = round(sum(own.values()) / len(own), 4)
        adapters.append(Ingredient(str(Path(use.path).absolute()), mean, own if request.per_block else {}))
    about = f"loratui {__version__} fit-weights: {request.steps} steps, loss {before:.6f} before, {after:.6f} after"
    write_bytes(out, to_text(Blend(adapters, about=about), out.parent).encode())
