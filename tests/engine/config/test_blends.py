"""Blend files: read, written and refused."""

from __future__ import annotations

import pytest

from engine.config.blends import Blend, Ingredient, is_blend, read_blend, to_text
from engine.errors import UserError


def written(tmp_path, text: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_a_blend_is_read_back_as_it_was_written(tmp_path):
    adapters = [
        Ingredient(str(tmp_path / "below" / "a.safetensors"), 0.7, {"unet.up_blocks": 0.9, "text_encoder": -0.25}),
        Ingredient("/elsewhere/[b] cat.safetensors", -0.3),
    ]
    blend = Blend(adapters, about="made by hand")
    text = to_text(blend, tmp_path)
    assert 'path = "below/a.safetensors"' in text and 'path = "/elsewhere/[b] cat.safetensors"' in text
    assert read_blend(written(tmp_path, text)) == blend


def test_a_relative_path_is_taken_from_the_blends_folder(tmp_path, monkeypatch):
    path = written(tmp_path, 'adapters = [{path = "../a.safetensors"}]')
    monkeypatch.chdir("/")
    assert read_blend(path).adapters[0].path == str(tmp_path.parent / "a.safetensors")


def test_the_longest_name_that_fits_a_layer_has_its_weight():
    one = Ingredient("a", 0.5, {"unet": 0.1, "unet.up_blocks": 0.2, "unet.up_blocks.1": 0.3})
    weights = {
        "up_blocks.1.resnets.0.conv1": 0.3,
        "up_blocks.10.resnets.0.conv1": 0.2,
        "up_blocks.0.resnets.0.conv1": 0.2,
        "conv_in": 0.1,
    }
    assert {path: one.weight_of("unet", path) for path in weights} == weights
    assert one.weight_of("text_encoder", "encoder.layers.0.mlp.fc1") == 0.5


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('adapters = [{path = "a", weigth = 1.0}]', "adapters[0].weigth"),
        ('adapters = [{path = "a", blocks = {unet = "much"}}]', "adapters[0].blocks.unet"),
        ('adapters = [{path = "a", weight = 1e9}]', "adapters[0].weight"),
        ("adapters = []", "adapters"),
        ('adapters = [{path = "mine.toml"}]', "adapters[0].path"),
        ('kind = "train"\nadapters = [{path = "a"}]', "kind"),
    ],
)
def test_what_is_no_blend_is_refused_by_field(tmp_path, text, field):
    with pytest.raises(UserError) as refused:
        read_blend(written(tmp_path, text))
    assert [problem.field for problem in refused.value.problems] == [field]


def test_a_blend_is_known_by_its_suffix():
    assert is_blend("a/b.TOML") and not is_blend("a.safetensors") and not is_blend("toml")
