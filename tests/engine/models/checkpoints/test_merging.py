"""Adapters baked into whole models: the sum that the weights are to be, and everything else as it was to the bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from engine.config.operations import checked
from engine.errors import UserError
from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import read_header
from engine.formats.layers import Dense, DoRA, LoHa, LoKr
from engine.formats.streams import HASH
from engine.formats.weights import open_weights
from engine.formats.writing import write_adapter
from engine.lora.bake import baked
from engine.models.checkpoints.opening import open_checkpoint
from engine.models.load import load_family
from engine.operate import Reporter
from engine.operations.bases import open_model
from engine.operations.checkpoints import convert
from engine.operations.merge import merge

PIPELINES = {"sd1": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def run(base, adapters, out, **options):
    uses = [{"path": str(path), "weight": weight} for path, weight in adapters]
    request = {"base": str(base), "adapters": uses, "out": str(out), **options}
    return merge(checked("merge", request), Reporter(lambda event: None))


def refusal(base, adapters, out, **options) -> str:
    with pytest.raises(UserError) as caught:
        run(base, adapters, out, **options)
    return str(caught.value)


def converted(source, out, **options) -> Path:
    convert(
        checked("convert_checkpoint", {"path": str(source), "out": str(out), **options}), Reporter(lambda event: None)
    )
    return out


def digests(path: Path) -> dict[str, str]:
    """Each tensor of a file as a hash of its format, shape and bytes."""
    found = {}
    for name, tensor in open_weights(path).load():
        numbers = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        found[name] = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + numbers).hexdigest()
    return found


def adapter_for(path: Path, choose=lambda part, name: True, seed=0, rank=2, size=0.1) -> Adapter:
    """Random factors for the layers of a model that `choose` takes."""
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, dict[str, Factors]] = {}
    model = open_checkpoint(path)
    for part in model.parts.keys() - {"vae"}:
        for name, info in model.parts[part].header.items():
            module = name.removesuffix(".weight")
            if module == name or len(info.shape) not in (2, 4) or "embedding." in name or not choose(part, module):
                continue
            down = torch.randn(rank, *info.shape[1:], generator=generator) * size
            up = torch.randn(info.shape[0], rank, *(1 for _ in info.shape[2:]), generator=generator) * size
            parts.setdefault(part, {})[module] = Factors(down, up, 1.0)
    return Adapter(parts)


def written(path: Path, adapter: Adapter, to="kohya") -> Path:
    write_adapter(path, adapter, to)
    return path


def assert_is_sum(before: Path, after: Path, terms) -> None:
    """Every weight is W + Σ w·ΔW, rounded once, and every tensor without a ΔW the same bits."""
    one, other = open_checkpoint(before), open_checkpoint(after)
    for part, held in one.parts.items():
        read, found = held.reader(), other.parts[part].reader()
        for name in held.tensors:
            deltas = [
                weight * adapter.parts[part][module].delta(read(name))
                for adapter, weight in terms
                if (module := name.removesuffix(".weight")) != name and module in adapter.parts.get(part, {})
            ]
            if not deltas:
                assert torch.equal(read(name), found(name)), name
                continue
            wanted = read(name).double() + sum(deltas)
            step = 2.0**-10 if read(name).dtype == torch.float16 else 2.0**-20
            assert found(name).dtype == read(name).dtype
            assert ((found(name).double() - wanted).abs() <= step * wanted.abs() + 1e-6).all(), name


# ---- the sum


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_adapters_are_added_to_all_layers_of_a_single_file(small_model, tmp_path, suffix):
    base = small_model.path
    if suffix == ".ckpt":
        base = converted(base, tmp_path / "base.ckpt")
    first, second = adapter_for(base, seed=1), adapter_for(base, lambda part, name: "attn" in name, seed=2)
    files = [written(tmp_path / "a.safetensors", first), written(tmp_path / "b.safetensors", second, "peft")]
    result = run(base, zip(files, (0.7, -0.3), strict=True), tmp_path / f"out{suffix}")
    assert result.tensors == {part: len(layers) for part, layers in first.parts.items()}
    assert_is_sum(base, tmp_path / f"out{suffix}", [(first, 0.7), (second, -0.3)])


def test_all_that_no_adapter_changes_is_the_same_to_the_bit(small_model, tmp_path):
    tensors = small_model.tensors | {
        "model_ema.decay": torch.tensor(0.9),
        "betas": torch.rand(10, dtype=torch.float64),
        "somebody's own": torch.arange(5),
    }
    metadata = {"modelspec.title": "[best quality]", "a": "../b", HASH: "0x" + "0" * 64}
    save_file(tensors, tmp_path / "base.safetensors", metadata)
    adapter = adapter_for(small_model.path, lambda part, name: name.endswith("q_proj") or "down_blocks.1" in name)
    file = written(tmp_path / "a.safetensors", adapter)
    result = run(tmp_path / "base.safetensors", [(file, 1.0)], tmp_path / "out.safetensors")
    before, after = digests(tmp_path / "base.safetensors"), digests(tmp_path / "out.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    keys = {
        recipe.sources[0]
        for part, held in open_checkpoint(small_model.path).parts.items()
        for name, recipe in held.tensors.items()
        if name.removesuffix(".weight") in adapter.parts.get(part, {}) and name.endswith(".weight")
    }
    assert changed == keys
    header = read_header(tmp_path / "out.safetensors")
    raw = (tmp_path / "out.safetensors").read_bytes()
    content = raw[8 + int.from_bytes(raw[:8], "little") :]
    assert header.metadata == metadata | {HASH: "0x" + hashlib.sha256(content).hexdigest()}
    assert any("averages of its weights" in note for note in result.notes)


def test_query_alone_changes_its_rows_of_a_fused_tensor_alone(small_models, tmp_path):
    model = small_models("sdxl")
    adapter = adapter_for(
        model.path, lambda part, name: part == "text_encoder_2" and name.endswith("0.self_attn.k_proj")
    )
    run(model.path, [(written(tmp_path / "a.safetensors", adapter), 1.0)], tmp_path / "out.safetensors")
    key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    before, after = model.tensors[key], load_file(tmp_path / "out.safetensors")[key]
    assert torch.equal(before[:64], after[:64]) and torch.equal(before[128:], after[128:])
    assert not torch.equal(before[64:128], after[64:128])


def test_a_folder_and_a_file_of_the_same_model_come_out_the_same(small_model, tmp_path):
    folder = converted(small_model.path, tmp_path / "folder")
    file = written(tmp_path / "a.safetensors", adapter_for(small_model.path))
    run(folder, [(file, 0.8)], tmp_path / "merged")
    run(small_model.path, [(file, 0.8)], tmp_path / "merged.safetensors")
    again = converted(tmp_path / "merged.safetensors", tmp_path / "again")
    names = sorted(str(path.relative_to(again)) for path in again.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for name in names:
        assert (again / name).read_bytes() == (tmp_path / "merged" / name).read_bytes(), name


def test_diffusers_fuses_the_same_adapter_to_the_same_weights(small_model, tmp_path):
    folder = converted(small_model.path, tmp_path / "folder", precision="fp32")
    chosen = lambda part, name: (".attentions." in name and "proj_" not in name) or "self_attn" in name  # noqa: E731
    file = written(tmp_path / "a.safetensors", adapter_for(small_model.path, chosen), "peft")
    run(folder, [(file, 0.6)], tmp_path / "merged")
    theirs = PIPELINES[small_model.family].from_pretrained(folder, local_files_only=True)
    theirs.load_lora_weights(str(tmp_path), weight_name="a.safetensors")
    theirs.fuse_lora(lora_scale=0.6)
    theirs.unload_lora_weights()
    ours = PIPELINES[small_model.family].from_pretrained(tmp_path / "merged", local_files_only=True)
    for part in adapter_for(small_model.path, chosen).parts:
        one, other = getattr(ours, part).state_dict(), getattr(theirs, part).state_dict()
        assert one.keys() == other.keys()
        assert all(torch.allclose(one[name], other[name], rtol=1e-5, atol=1e-6) for name in one), part


def test_every_kind_of_update_is_added(small_sd1, tmp_path):
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = open_checkpoint(small_sd1.path).parts["unet"].reader()(path + ".weight")
    rows, columns = weight.shape
    draw = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(*shape, generator=draw) * 0.1

    kinds = {
        "loha": LoHa(random(rows, 2), random(2, columns), random(rows, 2), random(2, columns), 2.0, (rows, columns)),
        "lokr": LoKr(1.0, (rows, columns), w1=random(4, 4), w2=random(rows // 4, columns // 4)),
        "dora": DoRA(Factors(random(2, columns), random(rows, 2), 2.0), weight.float().norm(dim=1) + 0.1, 0),
        "dense": Dense(random(rows, columns)),
    }
    for name, layer in kinds.items():
        file = written(tmp_path / f"{name}.safetensors", Adapter({"unet": {path: layer}}))
        run(small_sd1.path, [(file, 0.5)], tmp_path / f"out-{name}.safetensors")
        assert_is_sum(small_sd1.path, tmp_path / f"out-{name}.safetensors", [(Adapter({"unet": {path: layer}}), 0.5)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_a_baked_weight_keeps_its_format_and_is_rounded_once(dtype):
    weight = (torch.randn(32, 48) * 0.05).to(dtype)
    terms = [(Factors(torch.randn(4, 48), torch.randn(32, 4), 2.0), 0.01 * number) for number in range(1, 9)]
    exact = weight.double() + sum(strength * layer.delta() for layer, strength in terms)
    found = baked(weight, terms)
    assert found.dtype == dtype
    rounded = exact.to(dtype).double()
    slack = 1e-12 if dtype == torch.float64 else 1e-5
    assert ((found.double() - exact).abs() <= (rounded - exact).abs() + slack).all()


def test_a_blend_with_weights_by_block_is_merged_as_it_says(small_sd1, tmp_path):
    adapter = adapter_for(small_sd1.path)
    written(tmp_path / "a.safetensors", adapter)
    (tmp_path / "b.toml").write_text(
        'kind = "blend"\n[[adapters]]\npath = "a.safetensors"\nweight = 0.0\nblocks = {"unet.mid_block" = 0.5}\n'
    )
    result = run(small_sd1.path, [(tmp_path / "b.toml", 1.0)], tmp_path / "out.safetensors")
    middle = {path: layer for path, layer in adapter.parts["unet"].items() if path.startswith("mid_block.")}
    assert result.tensors == {"unet": len(middle)}
    assert_is_sum(small_sd1.path, tmp_path / "out.safetensors", [(Adapter({"unet": middle}), 0.5)])


# ---- what comes along


def test_a_ckpt_keeps_its_numbers_and_texts_and_tells_what_it_drops(small_sd1, tmp_path):
    luggage = {"epoch": 3, "note": "[/foo]", "optimizer_states": [{"state": {}}], "state_dict": small_sd1.tensors}
    torch.save(luggage, tmp_path / "base.ckpt")
    file = written(tmp_path / "a.safetensors", adapter_for(small_sd1.path))
    result = run(tmp_path / "base.ckpt", [(file, 1.0)], tmp_path / "out.ckpt")
    found = torch.load(tmp_path / "out.ckpt", weights_only=True)
    assert {key: value for key, value in found.items() if key != "state_dict"} == {"epoch": 3, "note": "[/foo]"}
    assert result.notes == ["not taken from base.ckpt: optimizer_states"]
    run(small_sd1.path, [(file, 1.0)], tmp_path / "same.safetensors")
    assert digests(tmp_path / "out.ckpt") == digests(tmp_path / "same.safetensors")


def test_a_folder_keeps_its_other_files_and_leaves_out_what_is_without_the_adapter(small_sd1, tmp_path):
    folder = converted(small_sd1.path, tmp_path / "folder")
    (folder / "README.md").write_text("about")
    (folder / "whole.ckpt").write_bytes(b"x")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"x")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.fp16.safetensors").write_bytes(b"x")
    (folder / "elsewhere").mkdir()
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "Checker"], "../elsewhere": ["a", "b"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    text = folder / "text_encoder"
    torch.save(load_file(text / "model.safetensors"), text / "pytorch_model.bin")
    (text / "model.safetensors").unlink()
    file = written(tmp_path / "a.safetensors", adapter_for(folder))
    result = run(folder, [(file, 1.0)], tmp_path / "out")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names - found == {"whole.ckpt", "unet/diffusion_pytorch_model.fp16.safetensors"}
    assert found <= names
    changed = {name for name in found if (folder / name).read_bytes() != (tmp_path / "out" / name).read_bytes()}
    assert changed == {"unet/diffusion_pytorch_model.safetensors", "text_encoder/pytorch_model.bin"}
    assert result.notes == [
        "left out, since the adapters are not in them: unet/diffusion_pytorch_model.fp16.safetensors, whole.ckpt"
    ]
    assert_is_sum(folder, tmp_path / "out", [(adapter_for(folder), 1.0)])
    loaded = torch.load(tmp_path / "out" / "text_encoder" / "pytorch_model.bin", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in loaded.values())


def test_learned_tokens_are_said_not_to_be_in_it(small_sd1, tmp_path):
    file = written(tmp_path / "a.safetensors", adapter_for(small_sd1.path))
    save_file(load_file(file) | {"bundle_emb.cat.string_to_param.*": torch.randn(1, 32)}, file)
    notes = run(small_sd1.path, [(file, 1.0)], tmp_path / "out.safetensors").notes
    assert notes[-1] == "a: learned tokens are no weights, and need a file of their own still: cat"


# ---- what is refused before anything is written


@pytest.fixture
def refuses(small_sd1, tmp_path):
    """Merge into the small SD1 and return the refusal, once it is known that nothing was written."""

    def call(adapter: Path, out="out.safetensors", base=small_sd1.path, weight=1.0):
        before = sorted(tmp_path.iterdir())
        text = refusal(base, [(adapter, weight)], tmp_path / out)
        assert sorted(tmp_path.iterdir()) == before
        return text

    return call


def test_layers_of_other_sizes_are_refused_all_at_once(small_models, small_sd1, tmp_path, refuses):
    file = written(tmp_path / "a.safetensors", adapter_for(small_models("sd2").path))
    text = refuses(file)
    assert "factors for a" in text and "more" in text


def test_an_adapter_of_another_family_is_refused_by_name(small_sd1, tmp_path, refuses):
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    layer = Factors(torch.randn(2, 2048), torch.randn(640, 2), 1.0)
    file = written(tmp_path / "a.safetensors", Adapter({"unet": {path: layer}}, family="sdxl"))
    assert "an adapter for sd1, which small.safetensors is; found one for sdxl" in refuses(file)


def test_a_module_that_the_base_has_not_is_refused(small_sd1, tmp_path, refuses):
    layer = Factors(torch.randn(2, 32), torch.randn(32, 2), 1.0)
    file = written(tmp_path / "a.safetensors", Adapter({"text_encoder": {"encoder.layers.9.mlp.fc1": layer}}))
    assert "no such module" in refuses(file)


@pytest.mark.parametrize("wrong", ["nan", "truncated", "missing"])
def test_an_adapter_that_can_not_be_read_is_refused(small_sd1, tmp_path, refuses, wrong):
    path = tmp_path / "a.safetensors"
    written(path, adapter_for(small_sd1.path))
    if wrong == "nan":
        tensors = load_file(path)
        tensors[next(key for key in tensors if "lora_up" in key)][0] = float("nan")
        save_file(tensors, path)
    elif wrong == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
    assert str(path) in refuses(path)


def test_a_weight_beyond_the_format_of_the_base_is_refused(small_sd1, tmp_path, refuses):
    file = written(tmp_path / "a.safetensors", adapter_for(small_sd1.path, size=1000.0))
    assert "numbers within the range of F16" in refuses(file, weight=10.0)


def test_no_update_at_all_is_refused(small_sd1, tmp_path, refuses):
    assert "not 0" in refuses(written(tmp_path / "a.safetensors", adapter_for(small_sd1.path)), weight=0.0)


def test_the_result_is_what_the_base_is(small_sd1, tmp_path, refuses):
    file = written(tmp_path / "a.safetensors", adapter_for(small_sd1.path))
    assert "loratui checkpoint convert" in refuses(file, out="folder")
    folder = converted(small_sd1.path, tmp_path / "folder")
    assert "a folder" in refuses(file, base=folder)
    assert "--force" in refuses(file, base=folder, out="folder")
    with pytest.raises(UserError, match="it would be lost"):
        run(folder, [(file, 1.0)], folder, force=True)


def test_by_force_a_file_is_replaced_by_itself_with_the_adapter(small_sd1, tmp_path):
    base = shutil.copy(small_sd1.path, tmp_path / "base.safetensors")
    file = written(tmp_path / "a.safetensors", adapter_for(small_sd1.path))
    run(base, [(file, 1.0)], base, force=True)
    run(small_sd1.path, [(file, 1.0)], tmp_path / "other.safetensors")
    assert digests(base) == digests(tmp_path / "other.safetensors")


# ---- a base that lies in several folders


def test_an_embedded_base_that_shares_its_folders_becomes_one_of_its_own(miniatures, little_bases, tmp_path):
    family = load_family("tiny-xl", dtype=torch.float32, device="cpu")
    unet, text = "mid_block.resnets.0.conv1", "encoder.layers.0.mlp.fc1"
    weights = {(part, path): family.parts[part].get_submodule(path).weight for part, path in
               (("unet", unet), ("text_encoder_2", text))}  # fmt: skip
    parts = {}
    for (part, path), weight in weights.items():
        ones = (1, 1) if weight.ndim == 4 else ()
        parts[part] = {path: Factors(torch.randn(2, *weight.shape[1:]), torch.randn(len(weight), 2, *ones) * 0.1, 1.0)}
    kohya.write(tmp_path / "a.safetensors", Adapter(parts, family.metadata()), family.kohya_name, "fp32")
    run("tiny-xl", [(tmp_path / "a.safetensors", 0.5)], tmp_path / "merged")
    merged = load_family(str(tmp_path / "merged"), dtype=torch.float32, device="cpu")
    for part, module in family.parts.items():
        found = merged.parts[part].state_dict()
        for name, tensor in module.state_dict().items():
            place = (part, name.removesuffix(".weight"))
            change = 0.5 * parts[part][place[1]].delta().float().reshape(tensor.shape) if place in weights else 0
            torch.testing.assert_close(found[name], tensor + change, rtol=0, atol=1e-5)
    StableDiffusionXLPipeline.from_pretrained(tmp_path / "merged", dtype=torch.float32)


def test_extracting_and_merging_open_the_inpainting_base_from_where_its_parts_lie(miniatures, little_bases):
    model = open_model("tiny-inpaint", "base")
    assert model.family == "sd1" and list(model.parts) == ["unet", "vae", "text_encoder"]
    assert model.parts["unet"].header["conv_in.weight"].shape == (64, 9, 3, 3)
