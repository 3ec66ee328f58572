"""Adapters on a diffusers pipeline: put on, weighted, stacked and taken off, against the dense weights."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from engine import lora, tiny
from engine.errors import UserError
from engine.formats.adapter import Adapter, Factors
from engine.formats.layers import DoRA, LoHa, LoKr
from engine.formats.writing import write_adapter

DISNEY = Path(__file__).parents[2] / "fixtures" / "cloneofsimo" / "lora_disney.safetensors"
SPOT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def loaded():
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(str(tiny.FOLDER), safety_checker=None, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe, prompt="a cat") -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.tensor(
        pipe(prompt, num_inference_steps=2, width=64, height=64, generator=generator, output_type="np").images
    )


def noise(*shape: int, seed: int) -> torch.Tensor:
    return 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def factors(shape, seed: int, rank=2) -> Factors:
    ones = (1, 1) if len(shape) == 4 else ()
    return Factors(noise(rank, *shape[1:], seed=seed), noise(shape[0], rank, *ones, seed=seed + 1), alpha=4.0)


def layers_of(pipe) -> dict[tuple[str, str], nn.Module]:
    return {
        (part, path.removeprefix("text_model.")): module
        for part in ("unet", "text_encoder")
        for path, module in getattr(pipe, part).named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def everywhere(pipe, seed: int) -> Adapter:
    parts: dict[str, dict] = {}
    for number, ((part, path), module) in enumerate(layers_of(pipe).items()):
        parts.setdefault(part, {})[path] = factors(tuple(module.weight.shape), seed + 2 * number)
    return Adapter(parts)


def kinds(pipe) -> Adapter:
    """One layer each of what is no plain pair of factors."""
    unet = pipe.unet
    block = "mid_block.attentions.0.transformer_blocks.0.attn1"
    shape = tuple(unet.get_submodule(f"{block}.to_q").weight.shape)
    half = [
        noise(shape[0], 2, seed=1),
        noise(2, shape[1], seed=2),
        noise(shape[0], 2, seed=3),
        noise(2, shape[1], seed=4),
    ]
    conv = unet.mid_block.resnets[0].conv1.weight
    return Adapter(
        {
            "unet": {
                f"{block}.to_q": LoHa(*half, alpha=2.0, shape=shape),
                f"{block}.to_k": LoKr(
                    1.0, shape, w1=noise(4, 4, seed=5), w2=noise(shape[0] // 4, shape[1] // 4, seed=6)
                ),
                f"{block}.to_v": DoRA(factors(shape, 7), 1.1 * torch.ones(shape[0]), 0),
                "mid_block.resnets.0.conv1": DoRA(factors(tuple(conv.shape), 8), torch.ones(conv.shape[0]), 0),
            }
        }
    )


def baked(pipe, *adapters: tuple[Adapter, float]):
    """A copy of the pipeline with the dense updates added to its weights."""
    other = copy.deepcopy(pipe)
    layers = layers_of(other)
    for adapter, weight in adapters:
        for part, modules in adapter.parts.items():
            for path, layer in modules.items():
                original = layers_of(pipe)[part, path].weight.detach()
                layers[part, path].weight.data += weight * layer.delta(original).float()
    return other


def test_an_adapter_is_put_on_weighted_and_taken_off_in_three_lines(loaded):
    adapter = everywhere(loaded, 10)
    before = picture(loaded)

    added = lora.apply(loaded, adapter, weight=0.8)
    strong = picture(loaded)
    added.weight = 0.3
    weak = picture(loaded)
    added.remove()

    assert torch.equal(picture(loaded), before)
    assert (strong - picture(baked(loaded, (adapter, 0.8)))).abs().max() < 1e-4
    assert (weak - picture(baked(loaded, (adapter, 0.3)))).abs().max() < 1e-4
    assert (strong - before).abs().max() > 0.01


def test_every_kind_of_layer_draws_as_its_dense_update_does(loaded):
    adapter = kinds(loaded)
    with lora.apply(loaded, adapter, 0.7):
        drawn = picture(loaded)
    assert (drawn - picture(baked(loaded, (adapter, 0.7)))).abs().max() < 1e-4
    assert (drawn - picture(loaded)).abs().max() > 1e-3


def test_several_adapters_add_up_and_come_off_in_any_order(loaded):
    first, second = everywhere(loaded, 100), everywhere(loaded, 500)
    before = picture(loaded)
    both = picture(baked(loaded, (first, 0.5), (second, -0.4)))
    alone = picture(baked(loaded, (second, -0.4)))
    one, two = lora.apply(loaded, first, 0.5), lora.apply(loaded, second, -0.4)
    assert (picture(loaded) - both).abs().max() < 1e-4
    one.remove()
    assert (picture(loaded) - alone).abs().max() < 1e-4
    two.remove()
    two.remove()
    assert torch.equal(picture(loaded), before)


def test_weight_zero_is_the_base_to_the_bit(loaded):
    before = picture(loaded)
    with lora.apply(loaded, everywhere(loaded, 1), weight=0.0):
        assert torch.equal(picture(loaded), before)


def test_a_weight_must_be_a_number(loaded):
    with lora.apply(loaded, everywhere(loaded, 1)) as added, pytest.raises(ValueError):
        added.weight = float("nan")


def test_a_pipeline_in_halves_computes_in_halves(loaded):
    half = copy.deepcopy(loaded).to(torch.bfloat16)
    layer = half.unet.get_submodule(SPOT)
    x = torch.ones(1, 4, layer.in_features, dtype=torch.bfloat16)
    base = layer(x)
    with lora.apply(half, everywhere(loaded, 1)):
        assert layer(x).dtype == torch.bfloat16 and not torch.equal(layer(x), base)


def test_what_does_not_fit_is_told_and_leaves_the_pipeline_as_it_was(loaded):
    shape = tuple(loaded.unet.get_submodule(SPOT).weight.shape)
    wrong = Adapter(
        {
            "unet": {
                SPOT: factors((shape[0] + 1, shape[1]), 1),
                "mid_block.nowhere": factors(shape, 1),
                "conv_in": factors(tuple(loaded.unet.conv_in.weight.shape), 1),
            },
            "text_encoder_2": {"encoder.layers.0.mlp.fc1": factors(shape, 1)},
        }
    )
    before = picture(loaded)
    with pytest.raises(UserError) as refused:
        lora.apply(loaded, wrong)
    strange, unlike = refused.value.problems
    assert "mid_block.nowhere" in strange.field and "text_encoder_2" in strange.field and SPOT in unlike.field
    assert torch.equal(picture(loaded), before)


def test_tokens_come_and_go_with_their_adapter(loaded):
    width = loaded.text_encoder.get_input_embeddings().weight.shape[1]
    tokens = {"<krk>": {"text_encoder": noise(3, width, seed=1)}, "<one>": {"text_encoder": noise(1, width, seed=2)}}
    words, table = len(loaded.tokenizer), loaded.text_encoder.get_input_embeddings().weight.detach().clone()
    before = picture(loaded, "a <krk> cat")
    with lora.apply(loaded, Adapter({}, tokens=tokens)):
        vocabulary = loaded.tokenizer.get_vocab()
        learned = loaded.text_encoder.get_input_embeddings().weight
        for number, word in enumerate(("<krk>", "<krk>_1", "<krk>_2")):
            assert torch.equal(learned[vocabulary[word]], tokens["<krk>"]["text_encoder"][number])
        assert not torch.equal(picture(loaded, "a <krk> cat"), before)
        with pytest.raises(UserError, match="does not have yet"):
            lora.apply(loaded, Adapter({}, tokens=tokens))
    assert len(loaded.tokenizer) == words
    assert torch.equal(loaded.text_encoder.get_input_embeddings().weight, table)
    assert torch.equal(picture(loaded, "a <krk> cat"), before)


def test_a_file_is_put_on_as_the_adapter_in_it(loaded, tmp_path):
    shape = tuple(loaded.unet.get_submodule(SPOT).weight.shape)
    adapter = Adapter({"unet": {SPOT: factors(shape, 1)}})
    write_adapter(tmp_path / "mine.safetensors", adapter)
    expected = picture(baked(loaded, (adapter, 0.8)))
    with lora.apply(loaded, str(tmp_path / "mine.safetensors"), weight=0.8):
        assert (picture(loaded) - expected).abs().max() < 1e-4


def test_a_real_file_of_another_base_is_refused_layer_by_layer(loaded):
    before = picture(loaded)
    with pytest.raises(UserError, match="trained on"):
        lora.apply(loaded, DISNEY)
    assert torch.equal(picture(loaded), before)


def test_the_lines_of_the_documentation_do_what_it_says(loaded, tmp_path, monkeypatch):
    docs = Path(__file__).parents[3] / "docs"
    ((lines,),) = [re.findall(r"```python\n(.+?)```", (docs / "adapters.md").read_text(encoding="utf-8"), re.DOTALL)]
    put_on, rest = lines.split("added.weight", 1)
    shutil.copyfile(docs / "recording" / "octopus.safetensors", tmp_path / "cat.safetensors")
    monkeypatch.chdir(tmp_path)
    bare, names = picture(loaded), {"pipe": loaded}
    exec(put_on, names)
    strong = picture(loaded)
    weaker, take_off = f"added.weight{rest}".splitlines()
    exec(weaker, names)
    weak = picture(loaded)
    exec(take_off, names)
    assert not torch.equal(strong, bare) and not torch.equal(weak, bare) and not torch.equal(weak, strong)
    assert torch.equal(picture(loaded), bare)
