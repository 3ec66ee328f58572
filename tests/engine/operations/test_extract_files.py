"""extract from whole models, the embedded base and tuned copies of it, against dense float64."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import protocol, tiny
from engine.errors import UserError
from engine.formats.reading import read_adapter

UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
LINEAR = "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"
CONV = "mid_block.resnets.0.conv1"
FC = "encoder.layers.0.mlp.fc1"


Change = tuple[str, str, torch.Tensor]
"""File, key, new weight."""


class Models:
    """The embedded base as a folder in float32, and copies of it with other weights."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.base = folder / "base"
        shutil.copytree(Path(str(tiny.FOLDER)), self.base)
        self.weights = {file: {k: t.float() for k, t in load_file(self.base / file).items()} for file in (UNET, TEXT)}
        for file, tensors in self.weights.items():
            save_file(tensors, self.base / file)

    def tuned(self, name: str, *changes: Change) -> Path:
        """A copy with these weights."""
        path = self.folder / name
        shutil.copytree(self.base, path)
        for file in {file for file, _, _ in changes}:
            tensors = self.weights[file] | {key: tensor for other, key, tensor in changes if other == file}
            save_file(tensors, path / file)
        return path

    def moved(
        self, file: str, path: str, seed: int, decay: float = 0.8
    ) -> tuple[tuple[str, str, torch.Tensor], torch.Tensor]:
        """A change of one layer whose spectrum falls by this factor, and the ΔW that it makes in float32."""
        key = next(key for key in self.weights[file] if key.removeprefix("text_model.") == f"{path}.weight")
        weight = self.weights[file][key]
        generator = torch.Generator().manual_seed(seed)
        rank = min(weight.shape[0], weight[0].numel())
        left = torch.linalg.qr(torch.randn(weight.shape[0], rank, generator=generator))[0]
        right = torch.linalg.qr(torch.randn(weight[0].numel(), rank, generator=generator))[0]
        change = (left * (0.1 * decay ** torch.arange(rank)) @ right.t()).reshape(weight.shape)
        tuned = weight + change
        return (file, key, tuned), (tuned - weight).double()


@pytest.fixture
def models(tmp_path) -> Models:
    return Models(tmp_path)


def least(update: torch.Tensor, rank: int) -> float:
    values = torch.linalg.svdvals(update.flatten(1))
    return float(values[rank:].norm() / values.norm())


def reached(out: Path, part: str, path: str, update: torch.Tensor) -> float:
    found = read_adapter(out).parts[part][path].delta().reshape(update.shape)
    return float((found - update).norm() / update.norm())


def test_every_changed_layer_is_approximated_as_well_as_its_rank_can(models, operate, tmp_path):
    moved = {
        ("unet", LINEAR): models.moved(UNET, LINEAR, 1),
        ("unet", CONV): models.moved(UNET, CONV, 2),
        ("text_encoder", FC): models.moved(TEXT, FC, 3),
    }
    tuned = models.tuned("tuned", *(change for change, _ in moved.values()))
    out = tmp_path / "out.safetensors"
    request = {"tuned": str(tuned), "base": str(models.base), "out": str(out), "precision": "fp32"}
    answer = operate("extract", **request, rank=4)
    assert {(layer.part, layer.path) for layer in answer.layers} == set(moved)
    for layer in answer.layers:
        _, update = moved[layer.part, layer.path]
        error = reached(out, layer.part, layer.path, update)
        assert layer.rank == 4 and math.isclose(error, least(update, 4), rel_tol=1e-3)
        assert math.isclose(layer.error, error, rel_tol=1e-3)
        assert math.isclose(layer.energy, 1 - error**2, rel_tol=1e-4)
        assert math.isclose(layer.sv_fro, math.sqrt(layer.energy))


@pytest.mark.parametrize(("measure", "bound"), [({"energy": 0.99}, 0.1), ({"error": 0.05}, 0.05)], ids=str)
def test_energy_and_error_give_each_layer_the_least_rank_that_will_do(models, operate, tmp_path, measure, bound):
    flat, steep = models.moved(UNET, LINEAR, 1, decay=0.95), models.moved(UNET, CONV, 2, decay=0.5)
    tuned = models.tuned("tuned", flat[0], steep[0])
    out = tmp_path / "out.safetensors"
    answer = operate("extract", tuned=str(tuned), base=str(models.base), out=str(out), precision="fp32", **measure)
    ranks = {layer.path: layer.rank for layer in answer.layers}
    assert ranks[LINEAR] > ranks[CONV]
    for path, update in ((LINEAR, flat[1]), (CONV, steep[1])):
        assert reached(out, "unet", path, update) <= bound * (1 + 1e-3)
        assert least(update, ranks[path] - 1) > bound


def test_the_difference_is_taken_in_float32_of_halves(models, operate, tmp_path):
    """In float16 a change of a ten-thousandth would drown in the spacing of the numbers around 1."""
    key = f"{LINEAR}.weight"
    base, tuned = (models.folder / name for name in ("half", "half-tuned"))
    weight = torch.ones_like(models.weights[UNET][key])
    steps = torch.randint(0, 3, weight.shape, generator=torch.Generator().manual_seed(1)).float() * 2.0**-10
    for path, content in ((base, weight), (tuned, weight + steps)):
        shutil.copytree(models.base, path)
        save_file({k: t.half() for k, t in (models.weights[UNET] | {key: content}).items()}, path / UNET)
    out = tmp_path / "out.safetensors"
    (layer,) = operate("extract", tuned=str(tuned), base=str(base), out=str(out), energy=1.0, precision="fp32").layers
    assert layer.path == LINEAR and reached(out, "unet", LINEAR, steps.double()) < 1e-4


def test_clamping_is_told_in_the_error(models, operate, tmp_path):
    change, update = models.moved(UNET, LINEAR, 1)
    tuned = str(models.tuned("tuned", change))
    out = tmp_path / "out.safetensors"
    request = {"tuned": tuned, "base": str(models.base), "out": str(out), "rank": 8, "force": True}
    errors = [operate("extract", **request, clamp=clamp).layers[0].error for clamp in (1.0, 0.99)]
    assert errors[0] < errors[1] and math.isclose(errors[1], reached(out, "unet", LINEAR, update), rel_tol=1e-3)


def test_what_no_adapter_holds_and_what_is_the_same_is_said(models, operate, tmp_path):
    change, _ = models.moved(UNET, LINEAR, 1)
    norm = (UNET, "conv_norm_out.weight", models.weights[UNET]["conv_norm_out.weight"] + 1)
    tuned = models.tuned("tuned", change, norm)
    operate("extract", tuned=str(tuned), base=str(models.base), out=str(tmp_path / "out.safetensors"), rank=2)
    told = [event.text for event in operate.events if isinstance(event, protocol.Notice)]
    assert any("unet.conv_norm_out.weight" in text and text.startswith("1 norms") for text in told)
    assert any("the same in both models" in text for text in told)


def test_a_single_file_and_a_folder_are_the_same_model(models, operate, tmp_path):
    change, _ = models.moved(UNET, LINEAR, 1)
    tuned, single = models.tuned("tuned", change), tmp_path / "tuned.safetensors"
    operate("convert_checkpoint", path=str(tuned), out=str(single))
    outs = [tmp_path / f"{name}.safetensors" for name in ("a", "b")]
    for source, out in zip((tuned, single), outs, strict=True):
        operate("extract", tuned=str(source), base=str(models.base), out=str(out), rank=2)
    first, second = (read_adapter(out).parts["unet"] for out in outs)
    assert list(first) == list(second) == [LINEAR]
    assert torch.equal(first[LINEAR].down, second[LINEAR].down)


def test_the_file_says_what_it_was_extracted_from(models, operate, tmp_path):
    change, _ = models.moved(UNET, LINEAR, 1)
    out = tmp_path / "out.safetensors"
    operate("extract", tuned=str(models.tuned("tuned", change)), base=str(models.base), out=str(out), rank=2)
    said = read_adapter(out).metadata
    assert said["ss_training_comment"] == "extracted: tuned - base"
    assert said["ss_base_model_version"] == "sd_v1_v" and said["ss_network_dim"] == "2"


@pytest.mark.parametrize("wrong", ["same", "nan", "other sizes", "missing", "no measure"])
def test_what_can_not_be_extracted_is_refused_and_nothing_is_written(models, operate, tmp_path, wrong):
    change, _ = models.moved(UNET, LINEAR, 1)
    file, key, tensor = change
    broken = tensor.clone()
    broken[0, 0] = float("nan")
    tuned = {
        "same": lambda: models.base,
        "nan": lambda: models.tuned("tuned", (file, key, broken)),
        "other sizes": lambda: models.tuned("tuned", (file, key, tensor[:-1].contiguous())),
        "missing": lambda: tmp_path / "nowhere",
        "no measure": lambda: models.tuned("tuned", change),
    }[wrong]()
    measure = {} if wrong == "no measure" else {"rank": 2}
    with pytest.raises(UserError) as refused:
        operate("extract", tuned=str(tuned), base=str(models.base), out=str(tmp_path / "out.safetensors"), **measure)
    (problem,) = refused.value.problems
    assert (
        problem.expected
        == {
            "same": "a model that differs from its base",
            "nan": "finite weights",
            "other sizes": "the layers of the base, of the same sizes",
            "missing": "a diffusers folder, a hub id (owner/name), or a .safetensors or .ckpt file",
            "no measure": "one of rank, energy, error",
        }[wrong]
    )
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".*"))
