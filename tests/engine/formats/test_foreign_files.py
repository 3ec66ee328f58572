"""Files as other programs make them: PEFT's and diffusers' older ones, LyCORIS', ComfyUI's, and embeddings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import UserError
from engine.formats import names
from engine.formats.layers import Dense, DoRA, LoHa, LoKr, Tucker
from engine.formats.reading import read_adapter

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
TEXT = "encoder.layers.0.self_attn"


@pytest.fixture
def saved(tmp_path: Path):
    def saved(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, name: str = "a.safetensors") -> Path:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
        else:
            torch.save(tensors, path)
        return path

    return saved


def pair(stem: str, down: str, up: str, rank: int = 2, width: int = 320) -> dict[str, Tensor]:
    return {f"{stem}{down}": torch.randn(rank, width), f"{stem}{up}": torch.randn(width, rank)}


# ---- diffusers and PEFT


OLD = {
    f"unet.{BLOCK}.attn1.processor.to_q_lora": (".down.weight", ".up.weight", ("unet", f"{BLOCK}.attn1.to_q"), 320),
    f"{BLOCK}.attn2.processor.to_out_lora": (".down.weight", ".up.weight", ("unet", f"{BLOCK}.attn2.to_out.0"), 320),
    f"unet.{BLOCK}.attn1.to_v.lora": (".down.weight", ".up.weight", ("unet", f"{BLOCK}.attn1.to_v"), 320),
    f"text_encoder.text_model.{TEXT}.q_proj.lora_linear_layer": (
        ".down.weight", ".up.weight", ("text_encoder", f"{TEXT}.q_proj"), 768),
    f"text_encoder.text_model.{TEXT}.to_out_lora": (
        ".down.weight", ".up.weight", ("text_encoder", f"{TEXT}.out_proj"), 768),
    f"unet.{BLOCK}.attn1.to_k": (".lora_A.weight", ".lora_B.weight", ("unet", f"{BLOCK}.attn1.to_k"), 320),
    f"text_encoder.{TEXT}.v_proj": (".lora_A.weight", ".lora_B.weight", ("text_encoder", f"{TEXT}.v_proj"), 768),
    f"base_model.model.{BLOCK}.attn2.to_q": (".lora_A.weight", ".lora_B.weight", ("unet", f"{BLOCK}.attn2.to_q"), 320),
    "diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.net.2": (
        ".lora_down.weight", ".lora_up.weight", ("unet", f"{BLOCK}.ff.net.2"), (1280, 320)),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_every_spelling_of_diffusers_and_pefts_is_read_into_its_module(saved, suffix):
    content, expected = {}, {}
    for stem, (down, up, target, width) in OLD.items():
        inputs, out = width if isinstance(width, tuple) else (width, width)
        content[stem + down], content[stem + up] = torch.randn(2, inputs), torch.randn(out, 2)
        expected[target] = content[stem + up].double() @ content[stem + down].double()
    adapter = read_adapter(saved(content, name=f"pytorch_lora_weights{suffix}"))
    assert adapter.family == "sd1"
    found = {(part, path): layer for part, modules in adapter.parts.items() for path, layer in modules.items()}
    assert found.keys() == expected.keys()
    for target, delta in expected.items():
        torch.testing.assert_close(found[target].delta(), delta)


def test_the_old_spellings_are_those_that_diffusers_itself_maps(saved):
    """diffusers' own conversion of the same keys, key by key."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft

    unet = {key: tensor for stem, (down, up, target, _) in OLD.items() if target[0] == "unet" and "processor" in stem
            for key, tensor in pair(stem.removeprefix("unet."), down, up).items()}  # fmt: skip
    theirs = convert_unet_state_dict_to_peft(unet)
    ours = read_adapter(saved(unet)).parts["unet"]
    assert {key.removesuffix(".lora_A.weight") for key in theirs if "lora_A" in key} == ours.keys()
    for path, layer in ours.items():
        assert torch.equal(layer.down, theirs[f"{path}.lora_A.weight"])
    stems = [
        stem.removeprefix("text_encoder.")
        for stem in OLD
        if stem.endswith(("_lora", "linear_layer")) and "text_" in stem
    ]
    for stem in stems:  # one a file: diffusers converts one kind at a time
        text = pair(stem, ".down.weight", ".up.weight", width=768)
        (key,) = (key for key in convert_state_dict_to_peft(text) if "lora_A" in key)
        assert key.startswith("text_model." + next(iter(read_adapter(saved(text)).parts["text_encoder"])))


def config(**fields) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in fields.items()})}


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"r": 2, "lora_alpha": 3}, 1.5),
        ({"r": 2, "lora_alpha": 3, "use_rslora": True}, 3 / math.sqrt(2)),
        ({"lora_alpha": 3, "alpha_pattern": {"attn1.to_q": 5}}, 2.5),
        ({"lora_alpha": 3, "alpha_pattern": {f"^{BLOCK}.attn1.to_q$": 7}}, 3.5),
        ({"lora_alpha": 3, "alpha_pattern": {"to_k": 7}}, 1.5),
        ({"r": 2}, 1.0),
    ],
)
def test_alphas_are_those_of_pefts_configuration(saved, tmp_path, fields, scale):
    content = pair(f"{BLOCK}.attn1.to_q", ".lora_A.weight", ".lora_B.weight")
    inside = read_adapter(saved({f"unet.{key}": tensor for key, tensor in content.items()}, config(**fields)))
    assert inside.parts["unet"][f"{BLOCK}.attn1.to_q"].scale == pytest.approx(scale, rel=1e-12)
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
    own = {f"base_model.model.{key}": tensor for key, tensor in content.items()}
    beside = read_adapter(saved(own, name="adapter_model.safetensors"))
    assert beside.parts["unet"][f"{BLOCK}.attn1.to_q"].scale == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize(
    "metadata",
    [
        {"lora_adapter_metadata": "{"},
        {"lora_adapter_metadata": "[" * 100_000},
        config(lora_alpha="much"),
        config(lora_alpha=1, alpha_pattern={"(a+)+$": 2}),
        config(lora_alpha=1, alpha_pattern=[1]),
        {"lora_adapter_metadata": '{"unet.lora_alpha": 1e999}'},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(saved, metadata):
    path = saved(pair(f"unet.{BLOCK}.attn1.to_q", ".lora_A.weight", ".lora_B.weight"), metadata)
    with pytest.raises(UserError, match="expected a configuration as PEFT writes it"):
        read_adapter(path)


# ---- LyCORIS


SHAPES = {
    f"{BLOCK}.attn1.to_q": nn.Linear(320, 320),
    "down_blocks.0.resnets.0.conv1": nn.Conv2d(320, 320, 3, padding=1),
}
MADE = {
    "locon": ({"algo": "lora"}, None),
    "tucker": ({"algo": "lora", "use_tucker": True}, Tucker),
    "loha": ({"algo": "loha"}, LoHa),
    "loha tucker": ({"algo": "loha", "use_tucker": True}, LoHa),
    "lokr": ({"algo": "lokr", "factor": 8}, LoKr),
    "lokr tucker": ({"algo": "lokr", "factor": 8, "use_tucker": True}, LoKr),
    "lokr whole": ({"algo": "lokr", "full_matrix": True}, LoKr),
    "dora": ({"algo": "lora", "dora_wd": True}, DoRA),
    "old dora": ({"algo": "lora", "dora_wd": True, "wd_on_output": False}, DoRA),
    "loha dora": ({"algo": "loha", "dora_wd": True}, DoRA),
    "full": ({"algo": "full"}, Dense),
}


class Small(nn.Module):
    """Two layers at the places that they have in a UNet."""

    def __init__(self, layers: dict[str, nn.Module]):
        super().__init__()
        for path, layer in layers.items():
            at, *steps = path.split(".")
            parent: nn.Module = self
            while steps:
                if not hasattr(parent, at):
                    parent.add_module(at, nn.Module())
                parent, at = getattr(parent, at), steps.pop(0)
            parent.add_module(at, layer)


@pytest.mark.parametrize("kind", MADE)
def test_a_file_made_by_lycoris_has_its_updates(saved, kind):
    """Every layer's output in LyCORIS is that of a layer whose weight has our ΔW in it."""
    modules = pytest.importorskip("lycoris.modules", reason="the oracle (lycoris-lora) is not installed")
    options, expected = MADE[kind]
    torch.manual_seed(0)
    made = {"lora": modules.locon.LoConModule, "loha": modules.loha.LohaModule, "lokr": modules.lokr.LokrModule,
            "full": modules.full.FullModule}[options["algo"]]  # fmt: skip
    renamed = {"dora_wd": "weight_decompose", "wd_on_output": "wd_on_out"}
    arguments = {renamed.get(name, name): value for name, value in options.items() if name != "algo"}
    content, wrapped = {}, {}
    for path, base in SHAPES.items():
        layer = (
            nn.Conv2d(320, 320, 3, padding=1, bias=False) if base.weight.ndim == 4 else nn.Linear(320, 320, bias=False)
        )
        stem = names.kohya_name("sd1", "unet", path)
        module = made(stem, layer, lora_dim=4, alpha=2, **arguments).eval()
        with torch.no_grad():
            for name, tensor in module.named_parameters():
                if name == "dora_scale":
                    tensor.mul_(1 + 0.2 * torch.rand_like(tensor))
                elif "org" not in name:
                    tensor.copy_(0.1 * torch.randn(tensor.shape))
        wrapped[path] = layer, module
        found = {"diff": module.weight} if kind == "full" else module.custom_state_dict()
        content |= {f"{stem}.{name}": tensor.detach().clone() for name, tensor in found.items()}
    adapter = read_adapter(saved(content))
    assert adapter.format == "kohya"
    for path, (layer, module) in wrapped.items():
        update = adapter.parts["unet"][path]
        if expected and not (expected is Tucker and layer.weight.ndim == 2):
            assert type(update) is expected
        assert update.shape == layer.weight.shape
        x = torch.randn(2, 320, 6, 6) if layer.weight.ndim == 4 else torch.randn(2, 320)
        with torch.no_grad():
            theirs = module(x)
            layer.weight += update.delta(layer.weight).float()
            torch.testing.assert_close(layer(x), theirs, rtol=1e-3, atol=1e-3)


# ---- embeddings


VECTORS = torch.randn(3, 768)


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        ({"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "cat", "step": 99,
          "sd_checkpoint": None}, "x.pt", {"cat": {"text_encoder": VECTORS}}),
        ({"string_to_param": {"*": VECTORS}}, "x.pt", {"x": {"text_encoder": VECTORS}}),
        ({"emb_params": VECTORS}, "my-cat.safetensors", {"my-cat": {"text_encoder": VECTORS}}),
        ({"<cat>": VECTORS[0]}, "learned_embeds.bin", {"<cat>": {"text_encoder": VECTORS[:1]}}),
        ({"<cat>": VECTORS}, "learned_embeds.safetensors", {"<cat>": {"text_encoder": VECTORS}}),
        ({"cat-toy": VECTORS}, "learned_embeds.safetensors", {"cat-toy": {"text_encoder": VECTORS}}),
        ({"clip_l": VECTORS, "clip_g": torch.ones(3, 1280)}, "my-cat.safetensors",
         {"my-cat": {"text_encoder": VECTORS, "text_encoder_2": torch.ones(3, 1280)}}),
        ({"<s1>": VECTORS[0], "<s2>": VECTORS[1]}, "x.ti.pt",
         {"<s1>": {"text_encoder": VECTORS[:1]}, "<s2>": {"text_encoder": VECTORS[1:2]}}),
        ({"<tiny>": torch.ones(2, 128)}, "x.safetensors", {"<tiny>": {"text_encoder": torch.ones(2, 128)}}),
    ],
)  # fmt: skip
def test_embeddings_are_read_whoever_wrote_them(saved, content, name, expected):
    adapter = read_adapter(saved(content, name=name))
    assert (adapter.format, adapter.parts) == ("embedding", {})
    assert adapter.tokens.keys() == expected.keys()
    for token, parts in expected.items():
        assert adapter.tokens[token].keys() == parts.keys()
        assert all(torch.equal(adapter.tokens[token][part], vectors) for part, vectors in parts.items())


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2"), (128, "")])
def test_the_width_of_vectors_tells_the_family(saved, width, family):
    assert read_adapter(saved({"emb_params": torch.ones(1, width)})).family == family
    with pytest.raises(UserError, match="expected an adapter for sdxl") if family else pytest.raises(StopIteration):
        read_adapter(saved({"emb_params": torch.ones(1, width)}), "sdxl")
        raise StopIteration


def test_tokens_bundled_with_a_lora_are_read(saved):
    content = pair("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", ".lora_down.weight",
                   ".lora_up.weight")  # fmt: skip
    content |= {"bundle_emb.my.cat.string_to_param.*": VECTORS, "bundle_emb.dog.clip_g": torch.ones(2, 1280),
                "bundle_emb.dog.clip_l": torch.ones(2, 768)}  # fmt: skip
    adapter = read_adapter(saved(content))
    assert torch.equal(adapter.tokens["my.cat"]["text_encoder"], VECTORS)
    assert adapter.tokens["dog"].keys() == {"text_encoder", "text_encoder_2"}
    assert len(adapter.parts["unet"]) == 1


def test_the_same_token_twice_is_refused(saved):
    content = {"bundle_emb.cat.emb_params": VECTORS, "bundle_emb.cat.string_to_param.*": VECTORS + 1}
    with pytest.raises(UserError, match="expected one set of vectors a token and encoder; found cat twice"):
        read_adapter(saved(content))
