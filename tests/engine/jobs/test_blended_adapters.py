"""A blend where an adapter is expected: its adapters with their weights, layer by layer."""

from __future__ import annotations

import pytest
import torch

from engine.config.blends import Blend, Ingredient, to_text
from engine.errors import UserError
from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors
from engine.jobs.generate import read_adapter
from engine.models.load import load_family


@pytest.fixture(scope="module")
def family():
    return load_family("tiny", dtype=torch.float32, device="cpu")


def written(folder, family, name: str, seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, dict] = {}
    for part, paths in (family.targets("attention") | family.targets("text_encoder")).items():
        for path in paths:
            out, inside = family.parts[part].get_submodule(path).weight.shape
            down, up = (torch.randn(shape, generator=generator) for shape in ((2, inside), (out, 2)))
            parts.setdefault(part, {})[path] = Factors(down, up, 1.0)
    adapter = Adapter(parts)
    kohya.write(folder / f"{name}.safetensors", adapter, family.kohya_name, "fp32")
    return adapter


def test_a_blend_is_the_weighted_sum_of_its_adapters_block_by_block(family, tmp_path):
    one, other = (written(tmp_path, family, name, seed) for name, seed in (("one", 1), ("other", 2)))
    blend = Blend(
        [
            Ingredient(str(tmp_path / "one.safetensors"), 0.5, {"unet.mid_block": 0.0, "text_encoder": 2.0}),
            Ingredient(str(tmp_path / "other.safetensors"), -0.3),
        ]
    )
    (tmp_path / "blend.toml").write_text(to_text(blend, tmp_path))
    found = read_adapter(family, tmp_path / "blend.toml")
    assert found.parts.keys() == one.parts.keys()
    for part, layers in found.parts.items():
        for path, layer in layers.items():
            strength = 2.0 if part == "text_encoder" else 0.0 if path.startswith("mid_block.") else 0.5
            exact = strength * one.parts[part][path].delta() - 0.3 * other.parts[part][path].delta()
            torch.testing.assert_close(layer.delta(), exact, rtol=1e-5, atol=1e-5)


def test_everything_that_is_wrong_with_the_files_of_a_blend_is_told(family, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    text = 'adapters = [{path = "bad.safetensors"}, {path = "missing.safetensors"}]'
    (tmp_path / "blend.toml").write_text(text)
    with pytest.raises(UserError) as refused:
        read_adapter(family, tmp_path / "blend.toml")
    assert [problem.where for problem in refused.value.problems] == [
        str(tmp_path / name) for name in ("bad.safetensors", "missing.safetensors")
    ]
