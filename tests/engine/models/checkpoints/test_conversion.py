"""Whole models from one layout into the other: bit for bit as diffusers reads them, with every loss told."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from engine import tiny
from engine.config.operations import checked
from engine.errors import UserError
from engine.formats.container import read_header
from engine.formats.streams import LazyTensor
from engine.formats.weights import open_weights
from engine.models.checkpoints.layout import LAYOUTS
from engine.operate import Reporter
from engine.operations.checkpoints import convert

PIPELINES = {"sd1": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
CLASSES = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
LOST = ("logit_scale", "text_projection", ".resblocks.2.")
"""What a folder of the small SD2 (whose encoder has three layers) and SDXL can't hold."""


def run(source, out, **options):
    request = {"path": str(source), "out": str(out), **options}
    return convert(checked("convert_checkpoint", request), Reporter(lambda event: None))


def refusal(source, out, **options) -> str:
    with pytest.raises(UserError) as caught:
        run(source, out, **options)
    return str(caught.value)


def bits(tensor: torch.Tensor) -> tuple:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def contents(path: Path) -> dict[str, tuple]:
    return {name: bits(tensor) for name, tensor in open_weights(path).load()}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A small model as a folder. Not to be changed."""

    @cache
    def make(family: str, path: Path) -> Path:
        out = tmp_path_factory.mktemp(family) / "folder"
        result = run(path, out)
        assert (result.out, result.family) == (str(out), family)
        assert list(result.tensors) == list(LAYOUTS[family].places)
        return out

    return lambda model: make(model.family, model.path)


@pytest.fixture
def folder(small_model, folder_of) -> Path:
    return folder_of(small_model)


def loaded(folder: Path, family: str):
    return PIPELINES[family].from_pretrained(folder, local_files_only=True, dtype=torch.float16)


def test_diffusers_loads_the_folder_to_what_it_makes_of_the_file_itself(small_model, folder):
    ours = loaded(folder, small_model.family)
    theirs = PIPELINES[small_model.family].from_single_file(
        str(small_model.path), config=str(folder), local_files_only=True, dtype=torch.float16
    )
    for part in LAYOUTS[small_model.family].places:
        one, other = getattr(ours, part).state_dict(), getattr(theirs, part).state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), part


def test_every_part_of_the_folder_loads_without_a_key_missing_or_left(small_model, folder):
    for part in LAYOUTS[small_model.family].places:
        _, info = CLASSES[part].from_pretrained(folder / part, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], part


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_there_and_back_every_number_and_the_metadata_are_the_same(small_model, folder, tmp_path, suffix):
    back = tmp_path / f"back{suffix}"
    run(folder, back)
    original = contents(small_model.path)
    lost = {name for name in original if any(mark in name for mark in LOST) and small_model.family != "sd1"}
    if small_model.family == "sdxl":
        lost = {name for name in lost if "logit_scale" in name}
    found = contents(back)
    assert found == {name: value for name, value in original.items() if name not in lost}
    marked = {"modelspec.prediction_type": "epsilon"} if small_model.family == "sd2" else {}
    assert open_weights(back).metadata == {"modelspec.title": "a small one", "format": "pt"} | marked


def test_from_a_folder_and_back_is_the_same_folder(small_model, folder, tmp_path):
    run(folder, tmp_path / "one.safetensors")
    run(tmp_path / "one.safetensors", tmp_path / "again")
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert names == sorted(str(file.relative_to(tmp_path / "again")) for file in (tmp_path / "again").rglob("*.*"))
    for name in names:
        one, other = (folder / name).read_bytes(), (tmp_path / "again" / name).read_bytes()
        if small_model.family == "sd2" and name.startswith("unet/diffusion"):  # the mark is in its metadata
            assert contents(folder / name) == contents(tmp_path / "again" / name)
        else:
            assert one == other, name


def test_losses_are_told(small_model, folder, tmp_path):
    notes = run(small_model.path, tmp_path / "again").notes
    told = {
        "sd1": [],
        "sd2": ["left out 1 buffers and marks: cond_stage_model.model.logit_scale"],
        "sdxl": ["left out 1 buffers and marks: conditioner.embedders.1.model.logit_scale"],
    }
    if small_model.family == "sd2":
        assert any("the text encoder's last layer and projection, which SD2 does not read" in note for note in notes)
    assert [note for note in notes if "last layer" not in note] == told[small_model.family]
    assert run(folder, tmp_path / "one.safetensors").notes == []


def test_a_file_becomes_another_file_with_everything_in_it(small_model, tmp_path):
    run(small_model.path, tmp_path / "a.ckpt")
    run(tmp_path / "a.ckpt", tmp_path / "b.safetensors")
    assert contents(tmp_path / "b.safetensors") == contents(small_model.path) == contents(tmp_path / "a.ckpt")
    assert read_header(tmp_path / "b.safetensors") == read_header(small_model.path)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_is_that_of_all_floating_point_numbers(small_sd1, tmp_path, precision):
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    tensors = small_sd1.tensors | {"model_ema.num_updates": torch.tensor(7)}
    save_file(tensors, tmp_path / "in.safetensors")
    run(tmp_path / "in.safetensors", tmp_path / "out.safetensors", precision=precision)
    found = load_file(tmp_path / "out.safetensors")
    for name, tensor in tensors.items():
        assert bits(found[name]) == bits(tensor.to(dtype) if tensor.is_floating_point() else tensor)


# ---- marks and configs


def write(tmp_path, small_sd1, changed=None, metadata=None, name="in.safetensors") -> Path:
    save_file(small_sd1.tensors | (changed or {}), tmp_path / name, metadata)
    return tmp_path / name


def scheduler_of(folder: Path) -> dict:
    return json.loads((folder / "scheduler" / "scheduler_config.json").read_text())


def test_what_a_file_predicts_goes_into_the_folder_and_back(small_model, tmp_path):
    path = write(tmp_path, small_model, {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)})
    run(path, tmp_path / "folder")
    schedule = scheduler_of(tmp_path / "folder")
    assert schedule["prediction_type"] == "v_prediction"
    assert (schedule["rescale_betas_zero_snr"], schedule["timestep_spacing"]) == (True, "trailing")
    result = run(tmp_path / "folder", tmp_path / "back.safetensors")
    header = read_header(tmp_path / "back.safetensors")
    assert header.metadata["modelspec.prediction_type"] == "v"
    if small_model.family == "sd2":
        assert "v_pred" not in header.tensors
        assert any("rescale_betas_zero_snr" in note for note in result.notes)
    else:
        assert {"v_pred", "ztsnr"} <= header.tensors.keys()
    run(tmp_path / "back.safetensors", tmp_path / "again")
    assert scheduler_of(tmp_path / "again")["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(("spread", "prediction"), [(0.05, "epsilon"), (0.2, "v_prediction")])
def test_an_sd2_without_a_mark_is_told_by_a_bias(small_models, tmp_path, spread, prediction):
    small_model = small_models("sd2")
    name = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    run(write(tmp_path, small_model, {name: torch.tensor([-spread, spread] * 32).half()}), tmp_path / "folder")
    assert scheduler_of(tmp_path / "folder")["prediction_type"] == prediction
    unet = json.loads((tmp_path / "folder" / "unet" / "config.json").read_text())
    assert unet["sample_size"] == (96 if prediction[0] == "v" else 64)


def test_what_a_config_says_beyond_the_shapes_is_a_loss(small_sd1, folder_of, tmp_path):
    folder = folder_of(small_sd1)
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    for part, fields in {"unet": {"attention_head_dim": 2, "sample_size": 48}, "vae": {"scaling_factor": 0.5}}.items():
        path = changed / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    path = changed / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_end": 0.02}))
    path = changed / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"safety_checker": ["stable_diffusion", "Checker"]}))
    notes = "\n".join(run(changed, tmp_path / "out.safetensors").notes)
    for told in (
        "attention_head_dim = 2",
        "sample_size = 48",
        "scaling_factor = 0.5",
        "beta_end = 0.02",
        "safety_check",
    ):
        assert told in notes


def test_the_embedded_base_becomes_a_file_that_tells_what_it_lost(tmp_path):
    result = run(tiny.FOLDER, tmp_path / "tiny.ckpt")
    assert result.family == "sd1"
    torch.load(tmp_path / "tiny.ckpt", weights_only=True)


def test_a_vae_attention_under_old_names_comes_out_under_those_of_now(small_sd1, tmp_path):
    old = {"q": "query", "k": "key", "v": "value", "proj_out": "proj_attn", "norm": "group_norm"}
    tensors = {}
    for name, tensor in small_sd1.tensors.items():
        for new, former in old.items():
            name = name.replace(f".attn_1.{new}.", f".attn_1.{former}.")
        tensors[name] = tensor[:, :, 0, 0].contiguous() if ".attn_1." in name and tensor.ndim == 4 else tensor
    save_file(tensors, tmp_path / "old.safetensors")
    run(tmp_path / "old.safetensors", tmp_path / "old")
    run(small_sd1.path, tmp_path / "new")
    name = "vae/diffusion_pytorch_model.safetensors"
    assert contents(tmp_path / "old" / name) == contents(tmp_path / "new" / name)


def test_a_sharded_folder_with_old_names_and_pickles_is_read(small_sd1, folder_of, tmp_path):
    folder = folder_of(small_sd1)
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    unet = load_file(old / "unet" / "diffusion_pytorch_model.safetensors")
    (old / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    names = sorted(unet)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: unet[key] for key in keys}, old / "unet" / file)
    weight_map = {key: file for file, keys in shards.items() for key in keys}
    index = old / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    text = load_file(old / "text_encoder" / "model.safetensors")
    (old / "text_encoder" / "model.safetensors").unlink()
    text = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    torch.save(text | {"embeddings.position_ids": torch.arange(77)}, old / "text_encoder" / "pytorch_model.bin")
    result = run(old, tmp_path / "out.safetensors")
    run(folder, tmp_path / "same.safetensors")
    assert contents(tmp_path / "out.safetensors") == contents(tmp_path / "same.safetensors")
    assert result.notes == ["left out 1 buffers and marks: text_encoder.embeddings.position_ids"]


# ---- what is refused, and leaves nothing behind


def test_a_number_beyond_the_precision_stops_it_and_nothing_is_written(small_sd1, tmp_path):
    name = "model.diffusion_model.out.2.bias"
    path = write(tmp_path, small_sd1, {name: torch.tensor([1.0, 7e4, 0.0, 0.0])})
    text = refusal(path, tmp_path / "out.ckpt", precision="fp16")
    assert name in text and "70000" in text and "nothing was written" in text
    assert [file.name for file in tmp_path.iterdir()] == ["in.safetensors"]


def test_nan_in_a_model_is_kept_and_told(small_sd1, tmp_path):
    name = "first_stage_model.quant_conv.bias"
    path = write(tmp_path, small_sd1, {name: torch.full((8,), float("nan")).half()})
    result = run(path, tmp_path / "out")
    assert result.notes[-1] == "1 tensors hold NaN or infinity, as they did before: vae.quant_conv.bias"


@pytest.mark.parametrize("out", ["model.safetensors", "model.ckpt", "model"])
def test_what_is_there_is_overwritten_only_by_force(small_sd1, folder_of, tmp_path, out):
    folder = folder_of(small_sd1)
    source = small_sd1.path if out == "model" else folder
    run(source, tmp_path / out)
    assert "--force overwrites it" in refusal(source, tmp_path / out)
    run(source, tmp_path / out, force=True)


def test_force_removes_no_folder_but_a_model(small_sd1, folder_of, tmp_path):
    folder = folder_of(small_sd1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "only a folder that holds a model is overwritten" in refusal(small_sd1.path, tmp_path / "mine", force=True)
    run(small_sd1.path, tmp_path / "model")
    inside = tmp_path / "model" / "in.safetensors"
    inside.write_bytes(small_sd1.path.read_bytes())
    assert "it would be lost with the folder" in refusal(inside, tmp_path / "model", force=True)
    assert "a place outside the model" in refusal(folder, folder / "out.safetensors")
    assert (tmp_path / "mine" / "letter.txt").exists() and inside.exists()


@pytest.mark.parametrize("out", ["x/y.safetensors", "x/y"])
def test_a_result_needs_a_folder_to_be_in(small_sd1, tmp_path, out):
    assert "make the folder first" in refusal(small_sd1.path, tmp_path / out)


def damaged(path: Path, small_sd1, how: str) -> Path:
    raw = small_sd1.path.read_bytes()
    if how == "truncated":
        path.write_bytes(raw[:-100])
    elif how == "terabytes":
        header = {
            "model.diffusion_model.input_blocks.0.0.weight": {
                "dtype": "F32",
                "shape": [1 << 40],
                "data_offsets": [0, 1 << 42],
            }
        }
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    elif how == "header of terabytes":
        path.write_bytes(struct.pack("<Q", 1 << 42) + raw[8:])
    elif how == "incomplete":
        save_file(
            {name: t for name, t in small_sd1.tensors.items() if ".output_blocks.2.0.in_layers" not in name}, path
        )
    elif how == "without text":
        save_file({name: tensor for name, tensor in small_sd1.tensors.items() if "cond_stage" not in name}, path)
    elif how == "no model":
        save_file({"../../x": torch.zeros(1)}, path)
    elif how == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("truncated", "cut short"),
        ("terabytes", "cut short"),
        ("header of terabytes", "a safetensors file"),
        ("incomplete", "missing"),
        ("without text", "text_encoder"),
        ("no model", "1 tensors of no known kind"),
        ("empty", "an empty file"),
    ],
)
def test_a_damaged_file_is_refused_and_nothing_is_written(small_sd1, tmp_path, how, told):
    path = damaged(tmp_path / "in.safetensors", small_sd1, how)
    assert told in refusal(path, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["in.safetensors"]


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_that_asks_for_more_than_tensors_is_refused_by_name(small_sd1, tmp_path, capsys):
    torch.save({"state_dict": small_sd1.tensors, "more": Hostile()}, tmp_path / "in.ckpt")
    assert "builtins.print" in refusal(tmp_path / "in.ckpt", tmp_path / "out.safetensors")
    assert "executed" not in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["in.ckpt"]


def test_names_in_a_file_are_no_paths(small_sd1, tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    tensors = small_sd1.tensors | {"../../../outside": torch.zeros(1), "model.diffusion_model.../x": torch.zeros(1)}
    save_file(tensors, inside / "in.safetensors", {"../x": "../../y"})
    notes = run(inside / "in.safetensors", inside / "out").notes
    assert any("../../../outside" in note for note in notes)
    run(inside / "in.safetensors", inside / "out.ckpt")
    names = zipfile.ZipFile(inside / "out.ckpt").namelist()
    assert all(".." not in name for name in names)
    assert {file.name for file in tmp_path.iterdir()} == {"a"}
    assert {file.name for file in inside.iterdir()} == {"in.safetensors", "out", "out.ckpt"}


def test_an_index_that_points_outside_its_folder_is_refused(small_sd1, folder_of, tmp_path):
    folder = folder_of(small_sd1)
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    weights = bad / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"conv_in.weight": "../../elsewhere.safetensors"}}
    (bad / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "shards that lie beside the index" in refusal(bad, tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("unet/config.json", {"layers_per_block": 10**9}),
        ("unet/config.json", {"up_block_types": None}),
        ("unet/config.json", {"transformer_layers_per_block": [[10**9]]}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}),
        ("text_encoder/config.json", {"max_position_embeddings": []}),
        ("vae/config.json", {"block_out_channels": [32] * 10**5}),
    ],
)
def test_a_config_that_makes_no_module_is_refused_at_once(small_sd1, folder_of, tmp_path, file, fields):
    bad = tmp_path / "bad"
    shutil.copytree(folder_of(small_sd1), bad)
    config = json.loads((bad / file).read_text())
    (bad / file).write_text(json.dumps(config | fields))
    assert "a config of a" in refusal(bad, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_a_failure_while_writing_leaves_nothing(small_sd1, folder_of, tmp_path, monkeypatch):
    folder = folder_of(small_sd1)

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LazyTensor, "bytes", full)
    for source, out in ((small_sd1.path, "out"), (folder, "out.safetensors"), (folder, "out.ckpt")):
        with pytest.raises(OSError, match="No space"):
            run(source, tmp_path / out)
    assert list(tmp_path.iterdir()) == []
