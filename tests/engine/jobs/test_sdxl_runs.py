"""SDXL and a base that inpaints through the whole of a job: trained, resumed, drawn with, and loaded by diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import protocol
from engine.config import Request, to_toml
from engine.formats.reading import read_adapter
from engine.jobs.generate import read_adapter as read_for
from engine.lora.compose import compose
from engine.lora.inject import apply
from engine.models.load import load_family
from engine.models.stable import MASKED
from engine.sampling import sampler
from engine.sampling.sampler import Request as Picture

PICTURE = Picture("ohwx cat", "blurry", 42, 64, 64, 5, 4.0)
STRONG = {"adapter": {"rank": 4, "alpha": 6.0, "targets": "locon"}, "optimizer": {"lr_unet": 2e-2, "lr_text": 5e-3}}
SHORT = {"training": {"steps": 3, "validate_every": 0}, "prior": {"weight": 0.0}, "sampling": {"prompts": []}}


@pytest.fixture
def places(miniatures, tmp_path, monkeypatch):
    """A workspace of its own, and miniatures for the embedded bases without weights."""
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "workspace"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_resumed_run_on_sdxl_ends_in_the_bits_of_one_that_was_not_interrupted(places, submit, tmp_path):
    run = submit(tmp_path / "job", {"model": {"base": "tiny-xl"}})
    assert run.start() == protocol.DONE, run.events()[-3:]
    again = type(run)(shutil.copytree(run.directory, tmp_path / "again"))
    (again.directory / "oct.safetensors").unlink()
    shutil.rmtree(again.checkpoints / "oct-step000004.state")
    (again.checkpoints / "oct-step000004.safetensors").unlink()
    assert again.start() == protocol.DONE
    assert again.resumed == [2]
    assert again.equals(run)
    told = read_adapter(run.directory / "oct.safetensors")
    assert {part: len(paths) for part, paths in told.parts.items()} == {
        "unet": 8 * 2 * 6, "text_encoder": 18, "text_encoder_2": 18
    }  # fmt: skip
    assert told.metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert told.metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert run.events(protocol.Sample) and run.events(protocol.Validation)


@pytest.mark.parametrize("layers", [2, 1], ids=["numbered as SDXL", "of another depth"])
def test_a_file_trained_on_sdxl_gives_the_same_picture_in_diffusers(layers, places, gather, submit, tmp_path):
    from diffusers import StableDiffusionXLPipeline
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    folder = gather("tiny-xl")
    if layers != 2:
        shape = json.loads((folder / "unet" / "config.json").read_text()) | {"layers_per_block": layers}
        shutil.rmtree(folder / "unet")
        UNet2DConditionModel.from_config(shape).save_pretrained(folder / "unet")
    run = submit(tmp_path / "job", SHORT, STRONG, {"model": {"base": str(folder)}})
    assert run.start() == protocol.DONE, run.events()[-3:]
    file = run.directory / "oct.safetensors"
    family = load_family(str(folder), dtype=torch.float32, device="cpu")
    bare = sampler.denoise(family, [PICTURE])
    adapter = read_for(family, file)
    assert adapter.parts.keys() == family.parts.keys()
    apply(family.parts, compose([(adapter, 0.8)]))
    ours = sampler.denoise(family, [PICTURE])
    assert not torch.allclose(ours, bare, atol=1e-2)
    pipeline = StableDiffusionXLPipeline.from_pretrained(str(folder), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(file))
    theirs = pipeline(
        PICTURE.prompt,
        negative_prompt=PICTURE.negative,
        generator=torch.Generator().manual_seed(PICTURE.seed),
        num_inference_steps=PICTURE.steps,
        guidance_scale=PICTURE.guidance_scale,
        width=PICTURE.width,
        height=PICTURE.height,
        output_type="latent",
        cross_attention_kwargs={"scale": 0.8},
    ).images
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("base", ["tiny-xl", "tiny-inpaint"])
def test_pictures_are_drawn_with_an_adapter_that_was_trained_on_the_base(base, places, submit, tmp_path):
    run = submit(tmp_path / "job", SHORT, STRONG, {"model": {"base": base}})
    assert run.start() == protocol.DONE, run.events()[-3:]
    told = [event.text for event in run.events(protocol.Notice)]
    assert (MASKED in told) == (base == "tiny-inpaint")
    pictures = [drawn(tmp_path, base, used, run.directory / "oct.safetensors") for used in (False, True)]
    assert not np.array_equal(*pictures)


def drawn(folder: Path, base: str, adapted: bool, file: Path) -> np.ndarray:
    from engine import worker

    directory = folder / f"picture-{adapted}"
    request = Request()
    request.lay(
        {"kind": "generate", "model": {"base": base}, "runtime": {"precision": "fp32", "device": "cpu"}}, "test"
    )
    asked = {"prompt": "ohwx cat", "steps": 3, "width": 32, "height": 32, "out": str(directory / "a.png")}
    request.lay({"picture": asked, "adapters": [{"path": str(file)}] if adapted else []}, "test")
    directory.mkdir()
    (directory / protocol.CONFIG).write_text(to_toml(request.checked()))
    assert worker.run_job(directory) == protocol.DONE
    return np.asarray(Image.open(directory / "a.png"))


@pytest.mark.parametrize("base", ["tiny-xl", "tiny-inpaint"])
def test_a_run_on_a_base_whose_weights_are_not_here_is_refused(base, monkeypatch, submit, tmp_path):
    from engine import tiny

    absent = {name: dict.fromkeys(places, tmp_path / "absent") for name, places in tiny.BASES.items()}
    monkeypatch.setattr(tiny, "BASES", tiny.BASES | {base: absent[base]})
    run = submit(tmp_path / "job", {"model": {"base": base}})
    assert run.start() == protocol.REFUSED
    (refused,) = run.events(protocol.Refused)
    assert f"no weights for {base}" in refused.found
