"""The embedded base, a trainer over it without a job around it, and jobs over a few drawn pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch
from PIL import Image, ImageDraw

from engine import draws, protocol
from engine.config import Request, Train, to_toml
from engine.lora.flat import FlatParameters
from engine.lora.inject import Selection, choose, inject, remove
from engine.models.load import load_family
from engine.training import chance
from engine.training.batches import Batch
from engine.training.loop import Trainer
from engine.training.metrics import Metrics
from engine.training.objectives import Diffusion
from engine.training.optimizer import FlatAdamW
from engine.worker import run_job

CAPTIONS = ("a cat on a red background", "octopus, blue background", "robot face", "")


@pytest.fixture(scope="session")
def tiny():
    """The embedded base. To be left as it was found."""
    return load_family("tiny", dtype=torch.float32, device="cpu")


@pytest.fixture
def config_of() -> Callable[..., Train]:
    """A request from assignments: `config_of("training.batch=4")`."""

    def make(*assignments: str) -> Train:
        request = Request()
        request.lay({"model": {"base": "tiny"}, "dataset": {"subsets": [{"path": "/images"}]}}, "test")
        request.lay({"prior": {"weight": 0.0}, "adapter": {"rank": 4, "alpha": 2, "targets": "attention"}}, "test")
        for assignment in assignments:
            request.set(assignment)
        return request.checked(Train)

    return make


@pytest.fixture
def trainer_of(tiny):
    """A trainer over the attention of the UNet and the text encoder of a family, the embedded base unless told. Its
    `up` factors are drawn too, so that gradients reach everything; its journal keeps the events. A new one takes the
    place of the last."""
    made = []

    def clean() -> None:
        while made:
            family, layers = made.pop()
            remove(family.parts, layers)

    def make(config: Train, family=tiny, steps: int = 4) -> Trainer:
        clean()
        names = frozenset(
            f"{part}.{path}"
            for target in ("attention", "text_encoder")
            for part, paths in family.targets(target).items()
            for path in paths
        )
        chosen = choose(family.parts, [Selection(config.adapter.rank, config.adapter.alpha, names)])
        layers = inject(family.parts, chosen, lambda name: draws.bits(1, name), config.adapter.dropout)
        made.append((family, layers))
        generator = torch.Generator().manual_seed(2)
        for paths in layers.values():
            for layer in paths.values():
                layer.up.data.copy_(0.05 * torch.randn(layer.up.shape, generator=generator))
        flat = FlatParameters(layers, family.dtype, average=bool(config.training.ema))
        events: list[protocol.Event] = []
        journal = SimpleNamespace(emit=lambda *new: events.extend(new), events=events)
        return Trainer(
            config=config,
            family=family,
            layers=[layer for paths in layers.values() for layer in paths.values()],
            flat=flat,
            objective=Diffusion(family.alphas_cumprod, family.objective, config.loss.snr_gamma, family.device),
            optimizer=FlatAdamW(flat, config.optimizer, config.training.ema),
            batches=lambda step, micro: batch_of(family, 2, step=step, micro=micro),
            metrics=Metrics(journal),
            steps=steps,
        )

    yield make
    clean()


def batch_of(family, instances: int, classes: int = 0, step: int = 1, micro: int = 0, start: int = 0) -> Batch:
    """A batch of drawn latents, live captions: rows `start` … of the step, class images behind."""
    shape = (family.latent_channels, 16, 16)
    places = range(micro * instances + start, micro * instances + start + instances)
    drawn = [chance.draw(1, "train", step, places, shape, 1000)]
    pictures = [torch.randn(shape, generator=torch.Generator().manual_seed(place)) for place in places]
    captions = [CAPTIONS[place % 4] for place in places]
    if classes:
        drawn.append(chance.draw(1, "prior", step, range(classes), shape, 1000))
        pictures += [torch.randn(shape, generator=torch.Generator().manual_seed(100 + n)) for n in range(classes)]
        captions += ["a cat"] * classes
    mean = torch.stack(pictures)
    std = torch.full_like(mean, 0.1)
    noise = chance.Noise.concatenate(drawn)
    return Batch(mean, std, noise, lambda: family.encode_text(family.tokenize(captions)), instances)


@pytest.fixture(scope="session")
def make_batch():
    return batch_of


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Four drawn pictures of 64 × 64, each with a caption of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, colour in enumerate(("red", "green", "blue", "yellow")):
        image = Image.new("RGB", (64, 64), colour)
        ImageDraw.Draw(image).ellipse((10 + 4 * index, 12, 40 + 4 * index, 50), fill="white")
        image.save(folder / f"{colour}.png")
        (folder / f"{colour}.txt").write_text(f"a disc on a {colour} background")
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory, pictures):
    """Run a short training job over the drawn pictures: its folder, its events and the losses of its steps."""

    def start(*assignments: str, subsets: list[dict] | None = None) -> SimpleNamespace:
        directory = tmp_path_factory.mktemp("job")
        request = Request()
        request.lay({"kind": "train", "model": {"base": "tiny"}, "prior": {"weight": 0.0}}, "test")
        request.lay({"dataset": {"buckets": False, "subsets": subsets or [{"path": str(pictures)}]}}, "test")
        request.lay({"training": {"steps": 4, "validate_every": 0}, "saving": {"every": 0}}, "test")
        request.lay({"runtime": {"device": "cpu"}}, "test")
        for assignment in assignments:
            request.set(assignment)
        (directory / protocol.CONFIG).write_text(to_toml(request.checked()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LORATUI_WORKSPACE", str(tmp_path_factory.getbasetemp() / "workspace"))
            code = run_job(directory)
        events = list(protocol.JournalReader(directory / protocol.JOURNAL).read())
        assert code == protocol.DONE, msgspec.json.encode(events[-1])
        steps = [event for event in events if isinstance(event, protocol.Step)]
        return SimpleNamespace(directory=directory, events=events, steps=steps, losses=[step.loss for step in steps])

    return start
