"""compose, resize and interpolate, from files to files, against dense float64."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import protocol
from engine.errors import UserError
from engine.formats.reading import read_adapter

REAL = Path(__file__).parents[2] / "fixtures" / "cloneofsimo"


def digests(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def test_a_composition_is_the_weighted_sum_of_what_the_files_mean(files, operate):
    tensors = [files.plain("to_q", 1) | files.plain("conv", 3), files.plain("to_q", 5, 4) | files.loha("to_k", 7)]
    uses = [
        {"path": files.write(name, each), "weight": weight}
        for name, each, weight in zip("ab", tensors, (0.7, -0.3), strict=True)
    ]
    answer = operate("compose", adapters=uses, out=str(files / "out.safetensors"))
    found = files.deltas(files / "out.safetensors")
    for name in ("to_q", "conv", "to_k"):
        exact = 0.7 * files.dense(tensors[0], name) - 0.3 * files.dense(tensors[1], name)
        assert error(found[name], exact) < 1e-6
    ranks = {layer.path: layer.rank for layer in answer.layers}
    assert ranks == {f"{files.path}.to_q": 7, f"{files.path}.to_k": 4, "mid_block.resnets.0.conv1": 3}
    assert answer.bytes == (files / "out.safetensors").stat().st_size


@pytest.mark.parametrize("measure", [{"rank": 3}, {"energy": 0.8}], ids=str)
def test_a_lower_rank_is_the_best_and_its_error_is_the_one_that_is_told(files, operate, measure):
    tensors = [files.plain("to_q", seed, rank=6) for seed in (1, 11)]
    uses = [{"path": files.write(name, each)} for name, each in zip("ab", tensors, strict=True)]
    (layer,) = operate("compose", adapters=uses, out=str(files / "out.safetensors"), **measure).layers
    exact = sum(files.dense(each, "to_q") for each in tensors)
    values = torch.linalg.svdvals(exact)
    reached = error(files.deltas(files / "out.safetensors")["to_q"], exact)
    assert math.isclose(reached, float(values[layer.rank :].norm() / values.norm()), rel_tol=1e-4)
    assert math.isclose(layer.error, reached, rel_tol=1e-4) and math.isclose(layer.sv_fro**2, layer.energy)
    assert layer.rank == 3 if "rank" in measure else layer.energy >= 0.8


def test_a_lokr_is_refused_or_by_choice_approximated(files, operate):
    tensors = files.lokr("to_q", 1)
    path, out = files.write("a", tensors), str(files / "out.safetensors")
    before = digests(files.folder)
    with pytest.raises(UserError, match="--how svd"):
        operate("compose", adapters=[{"path": path}], out=out)
    assert digests(files.folder) == before
    (layer,) = operate("compose", adapters=[{"path": path}], out=out, how="svd", rank=8).layers
    assert math.isclose(layer.error, error(files.deltas(out)["to_q"], files.dense(tensors, "to_q")), rel_tol=1e-4)
    assert layer.rank == 8 and 0.1 < layer.error < 1


def test_a_dora_takes_its_base(files, operate):
    unet = files / "base" / "unet"
    unet.mkdir(parents=True)
    base = files.rand(64, 64, seed=50)
    (unet / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    save_file({f"{files.path}.to_q.weight": base}, unet / "diffusion_pytorch_model.safetensors")
    tensors = files.dora("to_q", 1)
    request = {"adapters": [{"path": files.write("a", tensors), "weight": 0.5}], "out": str(files / "out.safetensors")}
    with pytest.raises(UserError, match="--base"):
        operate("compose", **request, how="svd", rank=64)
    operate("compose", **request, how="svd", rank=64, base=str(files / "base"))
    exact = 0.5 * files.dense(tensors, "to_q", base)
    assert error(files.deltas(files / "out.safetensors")["to_q"], exact) < 1e-5


def test_halves_stay_halves_unless_another_format_is_asked_for(files, operate):
    halves = files.write("a", files.plain("to_q", 1, dtype=torch.float16))
    wide = files.write("b", files.plain("to_q", 3, dtype=torch.bfloat16))
    for adapters, precision, dtype in (
        ([halves], "keep", torch.float16),
        ([halves, wide], "keep", torch.float32),
        ([halves], "bf16", torch.bfloat16),
    ):
        uses = [{"path": path} for path in adapters]
        out = str(files / "out.safetensors")
        (layer,) = operate("compose", adapters=uses, out=out, precision=precision, force=True).layers
        assert {tensor.dtype for key, tensor in load_file(out).items() if "lora_" in key} == {dtype}
        exact = sum(files.dense(load_file(path), "to_q") for path in adapters)
        assert math.isclose(layer.error, error(files.deltas(out)["to_q"], exact), rel_tol=0.05, abs_tol=1e-6)


def test_tokens_come_along_and_clashes_get_another_name(files, operate):
    word = "bundle_emb.<s1>.string_to_param.*"
    tensors = [files.plain("to_q", seed) | {word: files.rand(1, 768, seed=seed)} for seed in (1, 2)]
    uses = [{"path": files.write(name, each)} for name, each in zip("ab", tensors, strict=True)]
    answer = operate("compose", adapters=uses, out=str(files / "out.safetensors"))
    assert answer.renamed == {"b: <s1>": "<s1-2>"} and answer.tokens.keys() == {"<s1>", "<s1-2>"}
    for (token, path), own in zip(answer.tokens.items(), tensors, strict=True):
        vectors = read_adapter(files / path).tokens[token]["text_encoder"]
        assert torch.equal(vectors, own[word])
    (files / "out.safetensors").unlink()
    with pytest.raises(UserError, match="--force"):
        operate("compose", adapters=uses, out=str(files / "out.safetensors"))


def test_a_blend_is_composed_with_the_weights_of_its_blocks(files, operate):
    tensors = files.plain("to_q", 1) | files.plain("conv", 3)
    files.write("a", tensors)
    text = '[[adapters]]\npath = "a.safetensors"\nweight = 0.5\n[adapters.blocks]\n"unet.mid_block.resnets" = 2.0\n'
    (files / "mine.toml").write_text(text)
    uses = [{"path": str(files / "mine.toml"), "weight": -1.0}]
    operate("compose", adapters=uses, out=str(files / "out.safetensors"))
    found = files.deltas(files / "out.safetensors")
    assert error(found["to_q"], -0.5 * files.dense(tensors, "to_q")) < 1e-6
    assert error(found["conv"], -2.0 * files.dense(tensors, "conv")) < 1e-6


def test_the_file_says_what_it_was_made_of_and_for_which_base(files, operate):
    said = {"ss_base_model_version": "sd_v1", "ss_sd_model_name": "one", "ss_learning_rate": "1"}
    a = files.write("[foo] a", files.plain("to_q", 1), said)
    b = files.write("b", files.plain("to_k", 3, rank=5), said | {"ss_sd_model_name": "two"})
    uses = [{"path": a, "weight": 0.7}, {"path": b, "weight": -0.3}]
    operate("compose", adapters=uses, out=str(files / "out.safetensors"))
    found = read_adapter(files / "out.safetensors").metadata
    assert found["ss_training_comment"] == "composed of [foo] a:0.7, b:-0.3"
    assert found["ss_base_model_version"] == "sd_v1" and found["ss_network_dim"] == "Dynamic"
    assert "ss_sd_model_name" not in found and "ss_learning_rate" not in found
    assert len(found["sshs_model_hash"]) == 64


@pytest.mark.parametrize(
    ("out", "found"),
    [("taken.safetensors", "a file"), ("no/out.safetensors", "no folder"), ("out.ckpt", ".ckpt"), (".", "a folder")],
)
def test_where_nothing_can_be_written_nothing_is_read(files, operate, out, found):
    (files / "taken.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError) as refused:
        operate("compose", adapters=[{"path": "nowhere"}], out=str(files / out))
    assert refused.value.problems[0].found.startswith(found)
    assert (files / "taken.safetensors").read_bytes() == b"mine"


def test_an_adapter_can_be_overwritten_by_what_is_made_of_it(files, operate):
    tensors = files.plain("to_q", 1)
    path = files.write("a", tensors)
    operate("compose", adapters=[{"path": path, "weight": 2.0}], out=path, force=True)
    assert error(files.deltas(path)["to_q"], 2 * files.dense(tensors, "to_q")) < 1e-6


def test_everything_that_is_wrong_with_the_files_is_told_at_once_and_nothing_is_left(files, operate):
    nan = files.plain("to_q", 1)
    next(iter(nan.values()))[0, 0] = float("nan")
    (files / "cut.safetensors").write_bytes((files / files.write("whole", files.plain("to_k", 1))).read_bytes()[:-8])
    uses = [
        {"path": str(files / "cut.safetensors")},
        {"path": files.write("nan", nan)},
        {"path": "missing.safetensors"},
    ]
    before = digests(files.folder)
    with pytest.raises(UserError) as refused:
        operate("compose", adapters=uses, out=str(files / "out.safetensors"))
    assert [problem.where for problem in refused.value.problems] == [use["path"] for use in uses]
    assert digests(files.folder) == before


def test_weights_of_nothing_but_zero_are_refused(files, operate):
    uses = [{"path": files.write("a", files.plain("to_q", 1)), "weight": 0.0}]
    with pytest.raises(UserError, match="not 0"):
        operate("compose", adapters=uses, out=str(files / "out.safetensors"))


def test_resize_keeps_what_is_asked_for(files, operate):
    tensors = files.plain("to_q", 1, rank=12) | files.lokr("to_k", 5)
    path, out = files.write("a", tensors), str(files / "out.safetensors")
    for measure in ({"rank": 4}, {"energy": 0.9}):
        answer = operate("resize", path=path, out=out, force=True, **measure)
        found = files.deltas(out)
        for layer in answer.layers:
            name = layer.path.rpartition(".")[2]
            reached = error(found[name], files.dense(tensors, name))
            assert math.isclose(layer.error, reached, rel_tol=1e-4)
            assert layer.rank == 4 if "rank" in measure else reached**2 <= 0.1 + 1e-6


def test_interpolation_goes_straight_from_one_to_the_other(files, operate):
    tensors = [files.plain("to_q", 1) | files.plain("conv", 3), files.plain("to_q", 5, rank=4)]
    first, second = (files.write(name, each) for name, each in zip("ab", tensors, strict=True))
    answer = operate("interpolate", first=first, second=second, steps=5, out=str(files / "line"))
    assert list(answer.files.values()) == [0.0, 0.25, 0.5, 0.75, 1.0]
    for path, t in answer.files.items():
        found = files.deltas(path)
        for name in ("to_q", "conv"):
            exact = (1 - t) * files.dense(tensors[0], name) + t * files.dense(tensors[1], name)
            if name in found:
                assert error(found[name], exact) < 1e-6
            else:
                assert name == "conv" and t == 1.0
    with pytest.raises(UserError) as refused:
        operate("interpolate", first=first, second=second, steps=5, out=str(files / "line"))
    assert len(refused.value.problems) == 5


def test_interpolation_that_is_refused_leaves_no_folder(files, operate):
    first, second = files.write("a", files.lokr("to_q", 1)), files.write("b", files.plain("to_q", 5))
    with pytest.raises(UserError):
        operate("interpolate", first=first, second=second, out=str(files / "line"))
    assert not (files / "line").exists()


def test_a_dora_for_a_layer_that_its_base_does_not_have_is_refused(files, operate):
    uses = [{"path": files.write("a", files.dora("to_q", 1))}]
    with pytest.raises(UserError):
        operate("compose", adapters=uses, out=str(files / "out.safetensors"), how="svd", rank=4, base="tiny")
    assert not (files / "out.safetensors").exists()


def test_the_files_beside_an_adapter_are_composed_with_it(files, operate):
    for source, name in (("lora_illust.pt", "cat.pt"), ("lora_kiriko.text_encoder.pt", "cat.text_encoder.pt")):
        shutil.copyfile(REAL / source, files / name)
    torch.save({"<cat>": files.rand(1024, seed=1)}, files / "cat.ti.pt")
    out = files / "out.safetensors"
    answer = operate("compose", adapters=[{"path": str(files / "cat.pt"), "weight": 0.5}], out=str(out))
    found, text = read_adapter(out), read_adapter(REAL / "lora_kiriko.text_encoder.pt")
    assert {part: len(modules) for part, modules in found.parts.items()} == {"unet": 128, "text_encoder": 92}
    for path, layer in text.parts["text_encoder"].items():
        assert error(found.parts["text_encoder"][path].delta(), 0.5 * layer.delta()) < 1e-3
    assert torch.equal(
        read_adapter(Path(answer.tokens["<cat>"])).tokens["<cat>"]["text_encoder"][0], files.rand(1024, seed=1)
    )
    said = [event.text for event in operate.events if isinstance(event, protocol.Notice)]
    assert said == ["cat.pt: cat.text_encoder.pt is a part of it", "cat.pt: cat.ti.pt is a part of it"]
