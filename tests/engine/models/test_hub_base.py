"""Bases named by a hub id: the cache first, the network where there is one, and words where there is none."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from engine import tiny
from engine.errors import UserError
from engine.models.hub import files_to_fetch, is_hub_id
from engine.models.load import load_family, resolve_base


class Hub:
    """A hub of one repository, `someone/tiny`, that downloads by copying and keeps count."""

    def __init__(self, snapshot):
        self.snapshot = snapshot
        self.online = True
        self.asked = 0
        self.names = [str(path.relative_to(tiny.FOLDER)) for path in tiny.FOLDER.rglob("*") if path.is_file()]
        self.names += ["README.md", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors"]

    def model_info(self, repository):
        self.asked += 1
        if not self.online:
            raise ConnectionError("no route to host")
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.names])

    def snapshot_download(self, repository, allow_patterns):
        for name in allow_patterns:
            (self.snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny.FOLDER / name, self.snapshot / name)
        return str(self.snapshot)

    def try_to_load_from_cache(self, repository, filename):
        path = self.snapshot / filename
        return str(path) if path.is_file() else None


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "snapshot")
    monkeypatch.chdir(tmp_path)
    # a class, as the library's own is: diffusers, where it is imported only now, makes type hints of it
    monkeypatch.setattr(huggingface_hub, "HfApi", type("HfApi", (), {"model_info": staticmethod(hub.model_info)}))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", hub.try_to_load_from_cache)
    return hub


def load(base):
    return load_family(base, dtype=torch.float32, device="cpu")


def test_a_hub_id_is_resolved_from_its_configs_alone(hub):
    facts = resolve_base("someone/tiny")
    assert (facts.kind, facts.path, facts.default_resolution) == ("hub", hub.snapshot, 64)
    assert not list(hub.snapshot.rglob("*.safetensors"))


def test_a_hub_id_is_fetched_once_and_then_needs_no_network(hub):
    first = load("someone/tiny")
    hub.online = False
    second = load("someone/tiny")
    assert hub.asked == 1
    assert first.fingerprint == second.fingerprint == load("tiny").fingerprint
    assert second.metadata()["ss_sd_model_name"] == "someone/tiny"


def test_configs_in_the_cache_without_weights_are_completed(hub):
    resolve_base("someone/tiny")
    load("someone/tiny")
    assert (hub.snapshot / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_a_cached_base_with_two_text_encoders_is_whole_only_with_both(hub, gather):
    hub.snapshot = gather("tiny-xl")
    hub.online = False
    assert resolve_base("someone/xl").family == "sdxl"
    assert load("someone/xl").parts.keys() == {"unet", "text_encoder", "text_encoder_2"}
    (hub.snapshot / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="expected a base in the local cache"):
        resolve_base("someone/xl")


def test_without_a_network_the_user_is_told_to_point_at_a_folder(hub):
    hub.online = False
    with pytest.raises(UserError) as caught:
        load("someone/tiny")
    said = str(caught.value)
    assert "someone/tiny: model.base: expected a base in the local cache, or a network" in said
    assert "no route to host" in said and "give the path of its folder or .safetensors file as model.base" in said


def test_a_repository_of_single_files_says_to_download_one(hub):
    hub.names = ["v1-5-pruned.safetensors", "README.md"]
    with pytest.raises(UserError, match=r"download v1-5-pruned\.safetensors and give its path"):
        resolve_base("someone/tiny")


def test_a_folder_here_comes_before_a_hub_id_of_the_same_name(hub):
    shutil.copytree(tiny.FOLDER, "someone/tiny")
    assert resolve_base("someone/tiny").kind == "folder"
    assert hub.asked == 0


def test_only_what_is_read_is_fetched():
    names = [
        "model_index.json", "README.md", "v1.ckpt", "scheduler/scheduler_config.json", "tokenizer/merges.txt",
        "tokenizer/vocab.json", "unet/config.json", "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors.index.json", "unet/a-00001-of-00002.safetensors",
        "unet/a-00002-of-00002.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors", "safety_checker/config.json", "tokenizer_2/merges.txt",
        "text_encoder_2/config.json", "text_encoder_2/model.fp16.safetensors", "text_encoder_2/model.safetensors",
    ]  # fmt: skip
    configs = {
        "model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt", "tokenizer/vocab.json",
        "unet/config.json", "vae/config.json", "tokenizer_2/merges.txt", "text_encoder_2/config.json",
    }  # fmt: skip
    assert set(files_to_fetch(names, weights=False)) == configs
    assert set(files_to_fetch(names, weights=True)) - configs == {
        "unet/diffusion_pytorch_model.safetensors.index.json", "unet/a-00001-of-00002.safetensors",
        "unet/a-00002-of-00002.safetensors", "vae/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base", "is_id"),
    [("runwayml/stable-diffusion-v1-5", True), ("a/b.c", True), ("a/b/c", False), ("/a/b", False), ("./b", False),
     ("tiny", False), ("../x", False), ("a\\b", False)],
)  # fmt: skip
def test_a_hub_id_is_an_owner_and_a_name(base, is_id):
    assert is_hub_id(base) is is_id
