"""Files of cloneofsimo's lora: real ones against an independent reading, and both orders of their modules."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from engine.errors import UserError
from engine.formats import names
from engine.formats.reading import read_adapter
from engine.lora.layers import wrap

FILES = Path(__file__).parents[2] / "fixtures" / "cloneofsimo"


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    """SD1 and the UNet of SD2 as their libraries build them, without weights."""
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
            "text_encoder": CLIPTextModel(text),
            "sd2": UNet2DConditionModel(cross_attention_dim=1024, attention_head_dim=8, use_linear_projection=True),
        }


def walk(model: nn.Module, *classes: str) -> list[str]:
    """Linear layers inside modules of these classes, in the order of the model that is alive."""
    return [
        f"{name}.{inner}"
        for name, module in model.named_modules()
        if type(module).__name__ in classes
        for inner, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]


def legacy(paths: list[str]) -> list[str]:
    """The walk of diffusers up to 0.14, where GEGLU came second in a block: `ff` between `attn1` and `attn2`."""
    blocks = dict.fromkeys(re.match(r".+transformer_blocks\.\d+", path)[0] for path in paths)
    order = ("attn1", "ff", "attn2")
    return [path for block in blocks for kind in order for path in paths if path.startswith(f"{block}.{kind}")]


def pairs(path: Path) -> list[tuple[Tensor, Tensor]]:
    """(up, down) of a bare list, by torch's own restricted reader."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    return [(up.detach(), down.detach()) for up, down in zip(content[::2], content[1::2], strict=True)]


def test_a_real_file_is_read_key_by_key_into_its_144_and_48_layers(models):
    path = FILES / "lora_disney.safetensors"
    adapter, content = read_adapter(path), load_file(path)
    assert (adapter.format, adapter.family, adapter.notices) == ("cloneofsimo", "sd1", ())
    expected = {
        "unet": legacy(walk(models["unet"], "Attention", "GEGLU")),
        "text_encoder": walk(models["text_encoder"], "CLIPAttention"),
    }
    assert {part: len(paths) for part, paths in expected.items()} == {"unet": 144, "text_encoder": 48}
    for part, paths in expected.items():
        assert set(adapter.parts[part]) == set(paths)
        for number, name in enumerate(paths):
            layer = adapter.parts[part][name]
            assert torch.equal(layer.up, content.pop(f"{part}:{number}:up"))
            assert torch.equal(layer.down, content.pop(f"{part}:{number}:down"))
            assert (layer.rank, layer.scale) == (1, 1.0)
            assert layer.shape == tuple(models[part].get_submodule(name).weight.shape)
    assert content.keys() == adapter.tokens.keys() == {"<s1>", "<s2>"}
    for token, vector in content.items():
        assert torch.equal(adapter.tokens[token]["text_encoder"], vector[None])


def test_on_a_model_it_changes_just_these_layers_by_up_times_down(models):
    adapter = read_adapter(FILES / "lora_disney.safetensors")
    generator = torch.Generator().manual_seed(0)
    changed = 0
    for part in ("unet", "text_encoder"):
        for name, shape in names.modules("sd1")[part].items():
            layer = adapter.parts[part].get(name)
            if layer is None:
                continue
            linear = nn.Linear(shape[1], shape[0], bias=False)
            linear.weight.data.copy_(torch.randn(shape, generator=generator))
            adapted = wrap(linear, layer.rank, layer.alpha)
            adapted.down.data.copy_(layer.down)
            adapted.up.data.copy_(layer.up)
            x = torch.randn(2, shape[1], generator=generator)
            expected = x.double() @ (linear.weight.double() + layer.up.double() @ layer.down.double()).T
            torch.testing.assert_close(adapted.eval()(x).double(), expected, rtol=1e-4, atol=1e-4)
            changed += 1
    assert changed == 144 + 48


def test_a_bare_list_saved_on_a_gpu_is_read_without_geglu(models):
    path = FILES / "lora_illust.pt"
    adapter, expected = read_adapter(path), pairs(path)
    paths = walk(models["sd2"], "Attention")
    assert (adapter.format, adapter.family, len(paths)) == ("cloneofsimo", "sd2", 128)
    assert set(adapter.parts["unet"]) == set(paths)
    for name, (up, down) in zip(paths, expected, strict=True):
        layer = adapter.parts["unet"][name]
        assert torch.equal(layer.up, up) and torch.equal(layer.down, down)
        assert layer.up.device.type == "cpu"


def test_a_bare_list_of_a_text_encoder_is_known_by_its_shapes():
    path = FILES / "lora_kiriko.text_encoder.pt"
    adapter = read_adapter(path)
    assert (adapter.family, len(adapter.parts["text_encoder"])) == ("sd2", 92)
    order = [f"encoder.layers.{layer}.self_attn.{x}_proj" for layer in range(23) for x in ("k", "v", "q", "out")]
    for name, (up, down) in zip(order, pairs(path), strict=True):
        assert torch.equal(adapter.parts["text_encoder"][name].up, up)
        assert torch.equal(adapter.parts["text_encoder"][name].down, down)


def test_a_real_token_is_read():
    path = FILES / "lora_kiriko2.ti.pt"
    adapter = read_adapter(path)
    assert (adapter.format, adapter.family, adapter.parts) == ("embedding", "sd1", {})
    content = torch.load(path, map_location="cpu", weights_only=True)
    assert torch.equal(adapter.tokens["<krk>"]["text_encoder"], content["<krk>"][None])
    assert round(float(content["<krk>"].norm()), 3) == 0.746


def made(paths: tuple[str, ...], family: str = "sd1") -> dict[str, Tensor]:
    """A file whose every down is its own number."""
    content = {}
    for number, path in enumerate(paths):
        out, inputs, *kernel = names.modules(family)["unet"][path]
        content[f"unet:{number}:up"] = torch.ones(out, 1, *(1 for _ in kernel))
        content[f"unet:{number}:down"] = torch.full((1, inputs, *kernel), float(number))
    return content


@pytest.mark.parametrize("order", names.ORDERS)
@pytest.mark.parametrize("extended", [False, True])
def test_every_order_is_told_from_the_others_by_shapes(tmp_path: Path, order, extended):
    paths = names.numbered("sd1", "unet", order, extended)
    save_file(made(paths), tmp_path / "a.safetensors", {"unet": json.dumps(["GEGLU"])})
    adapter = read_adapter(tmp_path / "a.safetensors")
    assert adapter.family == "sd1"
    for number, path in enumerate(paths):
        assert adapter.parts["unet"][path].down.unique().tolist() == [number]


def test_a_companion_file_is_mentioned(tmp_path: Path):
    for name in ("a.pt", "a.text_encoder.pt", "a.ti.pt"):
        source = "lora_illust.pt" if name == "a.pt" else "lora_kiriko.text_encoder.pt"
        (tmp_path / name).write_bytes((FILES / source).read_bytes())
    assert [notice.partition(" ")[0] for notice in read_adapter(tmp_path / "a.pt").notices] == [
        "a.text_encoder.pt",
        "a.ti.pt",
    ]
    assert read_adapter(tmp_path / "a.text_encoder.pt").notices == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("unet:3:up"), "unet:3: expected up and down of every module"),
        (lambda content: [content.pop("unet:3:up"), content.pop("unet:3:down")], "numbered up to 143"),
        (lambda content: content.update({"unet:0:up": torch.ones(321, 1)}), "in an order of cloneofsimo's lora"),
        (lambda content: content.update({"vae:0:up": torch.ones(3, 1), "vae:0:down": torch.ones(1, 3)}),
         "expected unet or text_encoder"),
        (lambda content: content.update({"unet:0:up": torch.full((320, 1), torch.nan)}), "found NaN or infinity"),
        (lambda content: content.update({"<s1>": torch.full((768,), torch.inf)}), "<s1>: expected finite numbers"),
        (lambda content: content.update({"other": torch.ones(3)}), "keys of no kind known here"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_numbered_file_is_said(tmp_path: Path, change, words):
    content = made(names.numbered("sd1", "unet"))
    change(content)
    save_file(content, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=re.escape(words)):
        read_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [[torch.ones(3, 1)], [torch.ones(3, 1)] * 2, ["x", "y"], 3, {"a": {"b": 1}}, []])
def test_pickles_of_something_else_are_refused(tmp_path: Path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"expected (pairs|modules|a table|an adapter)"):
        read_adapter(tmp_path / "a.pt")


def test_a_tensor_that_claims_more_than_it_has_is_refused(tmp_path: Path):
    torch.save({"<s1>": torch.ones(1).expand(1 << 40)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"<s1>, which repeats|repeats its numbers|beyond|claims|fill"):
        read_adapter(tmp_path / "a.pt")
