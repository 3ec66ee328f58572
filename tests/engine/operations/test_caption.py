"""Captions by the small scorer: what is written and what never is. Its weights are random: any words will do."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

from engine import tiny
from engine.config.operations import checked
from engine.errors import UserError
from engine.operate import Reporter
from engine.operations.caption import caption
from engine.tiny import scorer
from engine.tiny.scorer import Scorer, Tower
from engine.tiny.tagger import Tagger

NAMES = ["cat", "[/foo]", "hot dog", "squid"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scorer of random weights."""
    folder = tmp_path_factory.mktemp("scorer")
    entries = len(json.loads((tiny.FOLDER / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"])
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=entries, hidden_size=32, intermediate_size=64, projection_dim=128, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=entries - 2, eos_token_id=entries - 1,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).half().save_pretrained(folder / "text_encoder")
    save_file(
        {name: tensor.half() for name, tensor in Tower().state_dict().items()}, folder / "image_encoder.safetensors"
    )
    (folder / "image_encoder.json").write_text('{"widths": [32, 64, 96, 128], "dimensions": 128, "scale": 20.0}')
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    return folder


@pytest.fixture
def shipped(folder, monkeypatch):
    monkeypatch.setattr(Scorer, "load", classmethod(lambda cls, read=Scorer.load: read(folder)))


@pytest.fixture
def pictures(tmp_path):
    """Three images: one with a caption, one with an empty one, one without."""
    for name in ("a", "b", "[best]"):
        Image.new("RGB", (80, 64), (200, len(name) * 40, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("mine\n")
    (tmp_path / "b.txt").write_text("\n")
    return tmp_path


def captioned(path, events=None, **more):
    events = [] if events is None else events
    return caption(checked("caption", {"path": str(path)} | more), Reporter(events.append))


def texts(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.glob("*.txt"))}


def test_both_towers_give_unit_vectors_whatever_a_batch_is_made_of(folder):
    scored = Scorer.load(folder)
    captions = ["a cat", "a hot dog on a red background, at the top left of it all", "cat"]
    together = scored.text(captions)
    assert together.shape == (3, 128) and torch.allclose(together.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(together[0], scored.text(captions[:1])[0], atol=1e-5)
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    pixels = torch.tensor([1.0, -1, -1])[None, :, None, None].expand(1, 3, 64, 64)
    assert torch.allclose(scored.images([image]), scored.images(pixels), atol=1e-5)


def test_the_tower_is_small_and_sees_where_things_are():
    tower = Tower().eval()
    assert sum(parameter.numel() for parameter in tower.parameters()) < 800_000
    left = torch.zeros(1, 3, 64, 64)
    left[..., 20:40, :20] = 1
    assert not torch.allclose(tower.encode(left), tower.encode(left.flip(-1)), atol=1e-3)


def test_a_picture_gets_names_best_first_and_a_caption_of_the_best(folder):
    (tags,) = Tagger(Scorer.load(folder)).tags(torch.zeros(1, 3, 64, 64), top=3)
    scores = [tag.score for tag in tags.names]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert tags.names[0].text in tags.caption and f"on a {tags.colour.text} background" in tags.caption


def test_nothing_is_written_unless_that_is_asked_for(shipped, pictures):
    before, events = texts(pictures), []
    answer = captioned(pictures, events, top=2)
    assert texts(pictures) == before
    assert [(image.before, image.written, len(image.names)) for image in answer.images] == [
        ("", False, 2), ("mine", False, 2), ("", False, 2),
    ]  # fmt: skip
    assert events[-1].done == events[-1].total == 3


def test_captions_that_are_there_stay_unless_forced(shipped, pictures):
    answer = captioned(pictures, write=True)
    captions = {image.path: image.caption for image in answer.images}
    assert texts(pictures) == {
        "[best].txt": captions[str(pictures / "[best].png")] + "\n",
        "a.txt": "mine\n",
        "b.txt": captions[str(pictures / "b.png")] + "\n",
    }
    assert [image.written for image in captioned(pictures, write=True).images] == [False] * 3
    assert [image.written for image in captioned(pictures, write=True, force=True).images] == [True] * 3
    assert texts(pictures)["a.txt"] == captions[str(pictures / "a.png")] + "\n"


def test_captions_beside_images_in_other_places_are_not_put_in_the_shade(shipped, pictures):
    (pictures / "b.caption").write_text("there")
    (pictures / "metadata.jsonl").write_text('{"file_name": "[best].png", "text": "known"}\n')
    answer = captioned(pictures, write=True)
    assert [image.before for image in answer.images] == ["known", "mine", "there"]
    assert not any(image.written for image in answer.images)


def test_an_image_that_cannot_be_read_is_told_of_and_the_others_are_captioned(shipped, pictures):
    (pictures / "c.png").write_bytes(b"no picture")
    events = []
    answer = captioned(pictures, events)
    assert answer.unreadable == [str(pictures / "c.png")] and len(answer.images) == 3
    assert any(getattr(event, "where", "") == str(pictures / "c.png") for event in events)


@pytest.mark.parametrize("request_", [{"top": 0}, {"scorer": "wd14"}, {"force": True}])
def test_odd_requests_are_refused(request_):
    with pytest.raises(UserError):
        checked("caption", {"path": "a"} | request_)


def test_a_folder_without_images_and_a_scorer_without_weights_are_refused(pictures, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="nowhere"):
        captioned(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"image_encoder\.json"):
        Scorer.load(tmp_path / "nowhere")
    assert scorer.FOLDER.parent == tiny.FOLDER.parent


def test_a_tower_of_another_shape_is_refused(folder, tmp_path):
    (tmp_path / "text_encoder").symlink_to(folder / "text_encoder")
    (tmp_path / "image_encoder.safetensors").symlink_to(folder / "image_encoder.safetensors")
    (tmp_path / "image_encoder.json").write_text('{"widths": [32, 64], "dimensions": 128, "scale": 20.0}')
    with pytest.raises(UserError, match=r"image_encoder\.safetensors"):
        Scorer.load(tmp_path)
