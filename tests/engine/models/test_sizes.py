"""What is told of a base's sizes is what its modules have, and what adapters of them have on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from engine import tiny
from engine.config import Request, Train
from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import TensorInfo
from engine.lora.flat import ALIGN
from engine.lora.layers import LoRALayer, wrap
from engine.models import ldm, sizes
from engine.models.build import _projecting_text, _text, _unet
from engine.models.checkpoints.layout import LAYOUTS, added_dimensions
from engine.models.folder import open_folder
from engine.models.sd1 import SD1
from engine.models.sdxl import SDXL
from engine.models.source import Component, Source
from engine.models.stable import StableDiffusion
from engine.training import disk


def published(ldm_layout, family: str) -> Source:
    """A base of the published size, without weights."""
    configs = {}
    shapes = ldm_layout.file(family, ldm_layout.full[family])
    for part, place in LAYOUTS[family].places.items():
        inside = {
            key.removeprefix(place.prefix): TensorInfo("F16", shape)
            for key, shape in shapes.items()
            if key.startswith(place.prefix)
        }
        configs[part] = place.kind.config(inside)
    configs["unet"] |= added_dimensions(configs["unet"], configs.get("text_encoder_2", {}))
    return source_of(configs, family)


def source_of(configs: dict[str, dict], family: str) -> Source:
    components = {part: Component(config, Path(), lambda: iter(())) for part, config in configs.items()}
    return Source(Path(), components, ldm.SCHEDULE, {}, (), family=family)


def sd15(ldm_layout) -> Source:
    return published(ldm_layout, "sd1")


def tiny_xl() -> Source:
    """The configs of `tiny-xl`, whether or not its weights are here."""
    from engine.tiny.recipe.xl import SHAPE

    base = {part: component.config for part, component in open_folder(tiny.FOLDER, "base").components.items()}
    return source_of(base | {"unet": SHAPE, "text_encoder_2": base["text_encoder"]}, "sdxl")


@pytest.fixture(params=["sd1", "tiny", "tiny-xl"])
def source(request, ldm_layout) -> Source:
    makers = {
        "tiny": lambda: open_folder(tiny.FOLDER, "base"),
        "tiny-xl": tiny_xl,
        "sd1": lambda: published(ldm_layout, "sd1"),
        "sdxl": lambda: published(ldm_layout, "sdxl"),
    }
    return makers[request.param]()


@pytest.fixture
def family(source) -> StableDiffusion:
    """The base with modules that have shapes and no numbers."""
    makers = {"unet": _unet, "text_encoder": _text, "text_encoder_2": _projecting_text}
    with torch.device("meta"):
        modules = {part: makers[part](one.config) for part, one in source.components.items() if part in makers}
    kind = SDXL if source.family == "sdxl" else SD1
    return kind(source, modules | {"vae": torch.nn.Identity()}, None, "a base")


def layers(family: StableDiffusion, targets: str, rank: int) -> dict[tuple[str, str], LoRALayer]:
    held = family.targets(targets)
    return {
        (part, path): wrap(family.parts[part].get_submodule(path), rank, rank)
        for part, paths in held.items()
        for path in paths
    }


@pytest.mark.parametrize("source", ["sd1", "tiny", "tiny-xl", "sdxl"], indirect=True)
def test_the_figures_are_those_of_the_modules(source, family):
    base = sizes.base_of(source)
    assert (base.resolution, base.size_step) == (family.default_resolution, family.size_step)
    assert (base.downscale, base.latent_channels) == (family.downscale, family.latent_channels)
    for targets, members in sizes.SHARES.items():
        for rank in (1, 7):
            held = layers(family, targets, rank)
            assert sum(base.shares[share].modules for share in members) == len(held)
            numbers = sum(layer.down.numel() + layer.up.numel() for layer in held.values())
            assert sum(base.shares[share].numbers for share in members) * rank == numbers


def test_no_gap_is_left_between_the_factors_of_a_state(family):
    for targets in sizes.SHARES:
        for layer in layers(family, targets, 1).values():
            assert layer.down.numel() % ALIGN == layer.up.numel() % ALIGN == 0


def test_bases_of_other_sizes_have_no_shares(ldm_layout):
    source = sd15(ldm_layout)
    source.components["unet"].config["layers_per_block"] = 3
    assert sizes.base_of(source).shares is None
    assert sizes.base_of(source).resolution == sizes.SD1.resolution


def test_stable_diffusion_1_is_what_is_taken_for_a_base_that_is_not_here(ldm_layout):
    assert sizes.base_of(sd15(ldm_layout)) == sizes.SD1


def config(**tables) -> Train:
    request = Request()
    request.lay({"model": {"base": "tiny"}, "dataset": {"subsets": [{"path": "/images"}]}}, "test")
    request.lay({"prior": {"weight": 0.0}, **tables}, "test")
    return request.checked(Train)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("rank", [1, 16])
def test_a_saved_adapter_is_as_large_as_told(source, family, precision, rank, tmp_path):
    wish = config(
        adapter={"rank": rank, "alpha": 1, "targets": "locon"},
        optimizer={"lr_text": 1e-4},
        saving={"precision": precision},
    )
    adapter = Adapter(metadata={"modelspec.description": "x" * disk.METADATA}, parts={})
    for targets in ("locon", "text_encoder"):
        for (part, path), layer in layers(family, targets, rank).items():
            down, up = torch.zeros(layer.down.shape), torch.zeros(layer.up.shape)
            adapter.parts.setdefault(part, {})[path] = Factors(down, up, 1.0)
    kohya.write(tmp_path / "a.safetensors", adapter, family.kohya_name, precision)
    told = disk.adapter(wish, sizes.base_of(source).shares, disk.ranks(wish))
    assert told == pytest.approx((tmp_path / "a.safetensors").stat().st_size, rel=0.02)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        shares = [sizes.base_of(source).shares[share] for share in (*sizes.SHARES["locon"], "text_encoder")]
        assert len(file.keys()) == 3 * sum(share.modules for share in shares)


# Which sets a config asks for


ALL = {"attention": 16, "feed_forward": 16, "convolutions": 16}


@pytest.mark.parametrize(
    ("adapter", "optimizer", "expected"),
    [
        ({"targets": "locon"}, {"lr_text": 0.0}, ALL),
        ({"targets": "attention"}, {"lr_text": 1e-5}, {"attention": 16, "text_encoder": 16}),
        ({"targets": "locon"}, {"lr_unet": 0.0, "lr_text": 1e-5}, {"text_encoder": 16}),
        ({"targets": "unet.mid_block.*"}, {"lr_unet": 0.0, "lr_text": 1e-5}, {"text_encoder": 16}),
        ({"targets": "unet.mid_block.*"}, {"lr_text": 0.0}, None),
        (
            {"targets": "locon", "sets": [{"targets": "transformer", "rank": 4, "alpha": 4}]},
            {"lr_text": 0.0},
            {**ALL, "attention": 4, "feed_forward": 4},
        ),
        (
            {"targets": "attention", "sets": [{"targets": "text_encoder", "rank": 0, "alpha": 0}]},
            {"lr_text": 1e-5},
            {"attention": 16, "text_encoder": 0},
        ),
        ({"targets": "locon", "sets": [{"targets": "unet.*", "rank": 4, "alpha": 4}]}, {"lr_text": 0.0}, None),
    ],
)
def test_the_last_set_that_holds_a_module_decides_its_rank(adapter, optimizer, expected):
    assert disk.ranks(config(adapter=adapter, optimizer=optimizer)) == expected


def test_what_is_left_alone_is_not_saved():
    sets = [{"targets": "text_encoder", "rank": 0, "alpha": 0}]
    shares = sizes.SD1.shares
    without = config(optimizer={"lr_text": 0.0})
    left_out = config(optimizer={"lr_text": 1e-5}, adapter={"sets": sets})
    assert disk.adapter(left_out, shares, disk.ranks(left_out)) == disk.adapter(without, shares, disk.ranks(without))
    assert disk.state(left_out, shares, disk.ranks(left_out)) == disk.state(without, shares, disk.ranks(without))
