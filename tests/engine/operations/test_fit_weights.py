"""Learned weights on the embedded base: what helps stays, what harms goes, and the blend is one that others take."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from engine import tiny
from engine.config.blends import read_blend
from engine.config.operations import checked
from engine.errors import UserError
from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors
from engine.models.load import load_family
from engine.operate import Reporter
from engine.operations.fit import fit_weights

SUBJECT = Path(str(tiny.FOLDER)).parent / "subjects" / "octopus"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Two adapters of noise, one of the UNet and one of the text encoder, and a folder of captioned images."""
    folder = tmp_path_factory.mktemp("fit")
    family = load_family("tiny", dtype=torch.float32, device="cpu")
    for name, target, seed in (("harm", "attention", 1), ("text", "text_encoder", 2)):
        generator = torch.Generator().manual_seed(seed)
        parts: dict[str, dict] = {}
        for part, paths in family.targets(target).items():
            for path in paths:
                weight = family.parts[part].get_submodule(path).weight
                ones = (1, 1) if weight.ndim == 4 else ()
                down = torch.randn(2, *weight.shape[1:], generator=generator) * weight[0].numel() ** -0.5
                up = 0.5 * torch.randn(weight.shape[0], 2, *ones, generator=generator)
                parts.setdefault(part, {})[path] = Factors(down, up, 2.0)
        kohya.write(folder / f"{name}.safetensors", Adapter(parts), family.kohya_name, "fp32")
    shutil.copytree(SUBJECT, folder / "images")
    return folder


@pytest.fixture(autouse=True)
def workspace(monkeypatch, tmp_path):
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "workspace"))


def fit(folder: Path, out: Path, **more):
    request = {
        "base": "tiny",
        "adapters": [{"path": str(folder / f"{name}.safetensors")} for name in ("harm", "text")],
        "data": str(folder / "images"),
        "out": str(out),
        "steps": 25,
        "batch": 2,
        "rate": 0.05,
        "device": "cpu",
    }
    return fit_weights(checked("fit_weights", request | more), Reporter(lambda event: None))


def test_an_adapter_that_only_harms_is_turned_down_and_the_loss_falls(files, tmp_path):
    found = fit(files, tmp_path / "blend.toml")
    ((harm, text),) = found.weights.values()
    assert list(found.weights) == ["all"] and found.before == [1.0, 1.0] and found.images == 4
    assert harm < 0.5 and text != 1.0
    assert found.loss_after < found.loss_before
    blend = read_blend(tmp_path / "blend.toml")
    assert [one.path for one in blend.adapters] == [str(files / "harm.safetensors"), str(files / "text.safetensors")]
    assert [one.weight for one in blend.adapters] == pytest.approx([harm, text], abs=1e-3)
    assert f"{found.loss_after:.6f}" in blend.about


def test_each_block_can_have_a_weight_of_its_own(files, tmp_path):
    found = fit(files, tmp_path / "blend.toml", per_block=True, steps=3)
    assert "unet.mid_block" in found.weights and "text_encoder" in found.weights
    one = read_blend(tmp_path / "blend.toml").adapters[0]
    assert one.blocks.keys() == found.weights.keys()
    assert one.weight_of("unet", "mid_block.attentions.0.proj_in") == pytest.approx(
        found.weights["unet.mid_block"][0], abs=1e-3
    )


def test_a_strong_pull_holds_the_weights_where_they_began(files, tmp_path):
    ((harm, text),) = fit(files, tmp_path / "blend.toml", pull=1000.0, steps=5, rate=0.001).weights.values()
    assert abs(harm - 1) < 0.01 and abs(text - 1) < 0.01


def test_the_same_request_learns_the_same_weights(files, tmp_path):
    first, second = (fit(files, tmp_path / f"{name}.toml", steps=2) for name in ("a", "b"))
    assert msgspec.structs.replace(second, out=first.out) == first


@pytest.mark.parametrize(
    ("out", "found"), [("b.safetensors", ".safetensors"), ("nowhere/b.toml", "no folder"), ("taken.toml", "a file")]
)
def test_a_blend_that_can_not_be_written_is_refused_before_anything_is_loaded(files, tmp_path, out, found):
    (tmp_path / "taken.toml").touch()
    with pytest.raises(UserError) as refused:
        fit(files, tmp_path / out, base="nowhere")
    assert refused.value.problems[0].found.startswith(found)


def test_what_is_wrong_with_several_adapters_is_told_at_once(files, tmp_path):
    missing = [{"path": str(tmp_path / f"{name}.safetensors")} for name in "ab"]
    with pytest.raises(UserError) as refused:
        fit(files, tmp_path / "blend.toml", adapters=missing)
    assert len(refused.value.problems) == 2
