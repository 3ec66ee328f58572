"""The recipe on a few drawings and steps: what must hold of any weights that it makes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
import torch
from torch import nn
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

from engine.models.load import load_family
from engine.tiny import scenes
from engine.tiny.recipe import autoencoder, denoiser, fitting, inpaint, pair, previews, stages, tokens, xl
from engine.tiny.recipe.fitting import Plan, fit
from engine.tiny.scorer import Scorer

PLAN = Plan(steps=8, rate=1e-2, batch=8)
GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))


@pytest.fixture(scope="module")
def tokenizer(emoji):
    return tokens.learn(list(emoji.names))


@pytest.fixture(scope="module")
def base(tokenizer):
    torch.manual_seed(0)
    return denoiser.Denoiser(CLIPTextModel(pair.text_config(tokenizer))).eval()


def silence(_: str) -> None:
    pass


def draw(step: int, chance: Random) -> tuple[torch.Tensor, ...]:
    given = torch.randn(PLAN.batch, 5)
    return given, given.flip(1) + chance.random()


def loss(module: nn.Module, given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return (module(given) - wanted).square().mean()


def fitted(work, plan=PLAN, shares=1, preview=None) -> torch.Tensor:
    torch.manual_seed(1)
    module = nn.Linear(5, 5)
    work.mkdir(exist_ok=True)
    return fit("line", module, draw, loss, plan, work, silence, preview, shares).weight.clone()


class Cut(Exception):
    pass


@pytest.mark.parametrize("muon", ["", "weight"])
def test_a_stage_that_was_cut_off_goes_on_to_the_same_weights(tmp_path, monkeypatch, muon):
    def cut() -> None:
        raise Cut

    monkeypatch.setattr("engine.tiny.recipe.fitting.SAVED_EVERY", -1.0)
    with pytest.raises(Cut):
        fitted(tmp_path / "cut", replace(PLAN, preview=5, muon=muon), preview=cut)
    plan = replace(PLAN, muon=muon)
    assert torch.equal(fitted(tmp_path / "cut", plan), fitted(tmp_path / "whole", plan))


def test_muon_steps_are_as_long_in_every_direction():
    kernel, bias = nn.Parameter(torch.zeros(4, 2, 3, 3)), nn.Parameter(torch.zeros(4))
    kernel.grad = (
        torch.linalg.qr(torch.randn(18, 4))[0].mT.reshape(4, 2, 3, 3) * torch.logspace(0, -1, 4)[:, None, None, None]
    )
    with ThreadPoolExecutor(1) as threads:
        fitting.Optimizer({"kernel": kernel, "bias": bias}, replace(PLAN, muon="k", decay=0), threads, 1).step(0.5)
    lengths = torch.linalg.svdvals(kernel.detach().flatten(1))
    expected = 0.5 * fitting.MUON_RATE * PLAN.rate * 0.2 * 18**0.5
    assert expected * 0.6 < lengths.min() and lengths.max() < expected * 1.3


def test_what_has_learned_before_learns_slowly(tmp_path):
    torch.manual_seed(1)
    before = nn.Linear(5, 5).weight
    moved = [(fitted(tmp_path / slow, replace(PLAN, slow=slow)) - before).abs().max() for slow in ("bias", "weight")]
    assert 0 < 5 * moved[1] < moved[0]


def test_a_stage_that_is_done_is_loaded_as_it_was(tmp_path):
    assert torch.equal(fitted(tmp_path), fitted(tmp_path))


def test_shares_of_a_batch_learn_what_the_whole_batch_does(tmp_path):
    assert torch.allclose(fitted(tmp_path / "two", shares=2), fitted(tmp_path / "one"), atol=1e-5)


def test_a_preview_sees_averaged_weights_and_leaves_no_trace(tmp_path):
    seen = []
    fitted(tmp_path / "seen", replace(PLAN, preview=2), preview=lambda: seen.append(1))
    assert len(seen) == 3
    assert torch.equal(fitted(tmp_path / "seen"), fitted(tmp_path / "unseen"))


def test_the_tokenizer_encodes_any_text_and_gives_it_back(tokenizer):
    assert len(tokenizer) <= tokens.ENTRIES and tokenizer.model_max_length == 77
    for text in ("a blob c on a red background", "ohwx 猫 😀 ünï\x07", "x" * 300):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
    assert len(tokenizer("a blob c on a red background", add_special_tokens=False).input_ids) == 7


def test_timesteps_are_spread_over_a_batch():
    drawn = denoiser.spread(Random(1), 10, 1000)
    assert [int(step) // 100 for step in drawn] == list(range(10))


@torch.no_grad()
def test_the_inpainting_unet_begins_as_the_base_whatever_the_mask(base):
    widened = inpaint.widened(base.unet).eval()
    noisy, states = torch.randn(2, 4, 16, 16), torch.randn(2, 77, pair.HIDDEN)
    steps = torch.tensor([10, 900])
    expected = base.unet(noisy, steps, states).sample
    found = widened(torch.cat([noisy, torch.randn(2, 5, 16, 16)], 1), steps, states).sample
    assert torch.allclose(found, expected, atol=1e-5)


def test_masks_cover_from_a_corner_to_everything(emoji):
    painter, chance = scenes.Painter(emoji), Random(2)
    shares = [inpaint.mask(scenes.draw(emoji.names, chance), painter, chance).mean() for _ in range(100)]
    assert min(shares) < 0.2 and shares.count(1.0) > 5 and all(share > 0 for share in shares)


def test_the_xl_unet_has_the_bases_weights_where_both_have_a_place(base, tokenizer):
    grown = xl.grown(base.unet)
    theirs = base.unet.state_dict()
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    mine = grown.state_dict()
    assert torch.equal(mine[name][:, : pair.HIDDEN], theirs[name]) and not mine[name][:, pair.HIDDEN :].any()
    shared = [name for name in theirs if name in mine and mine[name].shape == theirs[name].shape]
    assert len(shared) > 200 and all(torch.equal(mine[name], theirs[name]) for name in shared)
    model = xl.DenoiserXL(base.unet, base.text, CLIPTextModelWithProjection(pair.text_config(tokenizer)))
    ids, sizes = torch.ones(2, 77, dtype=torch.long), torch.ones(2, 6)
    assert model(torch.randn(2, 4, 16, 16), torch.tensor([1, 2]), ids, sizes).shape == (2, 4, 16, 16)


def test_every_stage_learns_something_in_a_few_steps(emoji, tokenizer, tmp_path):
    names, painter = list(emoji.names), scenes.Painter(emoji)
    vae = autoencoder.model()
    crops = autoencoder.crops([painter], [names], Random(1), 16), autoencoder.shaking(16)
    before = float(autoencoder.loss(vae, *crops).detach())
    fit("a", vae, lambda step, chance: crops, autoencoder.loss, Plan(12, 2e-3, 16, warm_up=2), tmp_path, silence)
    assert float(autoencoder.loss(vae, *crops)) < 0.9 * before
    towers = pair.Pair(tokenizer)
    batch = tuple(tensor[:32] for tensor in pair.batch(tokenizer, painter, names, Random(1)))
    before = float(pair.loss(towers, *batch).detach())
    fit("p", towers, lambda step, chance: batch, pair.loss, Plan(12, 1e-3, 32, warm_up=2), tmp_path, silence)
    assert float(pair.loss(towers, *batch)) < 0.9 * before
    task = denoiser.Task(tokenizer, denoiser.Latents(vae, painter), names, 8)
    model = denoiser.Denoiser(CLIPTextModel(pair.text_config(tokenizer)))
    noised = task.batch(0, Random(1))
    before = float(denoiser.loss(model, *noised).detach())
    fit("d", model, lambda step, chance: noised, denoiser.loss, Plan(12, 1e-3, 8, warm_up=2), tmp_path, silence)
    assert float(denoiser.loss(model, *noised)) < 0.9 * before


def test_names_come_little_by_little_and_none_goes(tokenizer):
    names = [f"name {number}" for number in range(1000)]
    task = denoiser.Task(tokenizer, None, names, 4)
    shown = [task.first_names(round(share * denoiser.ALL_FROM)) for share in (0, 1 / 3, 2 / 3, 1, 10)]
    assert [len(some) for some in shown] == [200, 342, 585, 1000, 1000] and set(shown[-1]) == set(names)
    assert all(more[: len(some)] == some for some, more in pairwise(shown))


def batch_of(module, few: int = 8, name: str = "PLAN"):
    return module, name, replace(getattr(module, name), batch=few)


SMALL = (
    *(batch_of(module) for module in (autoencoder, pair, denoiser, inpaint, xl)),
    batch_of(denoiser, name="WORDING"),
    (stages, "EXAMINED", 8),
    (pair, "EXAMINED", 8),
    (tokens, "LINES", 500),
    (previews, "PLAIN", 4),
    (previews, "STEPS", 2),
)
"""What keeps the stages small, beside few steps."""


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_all_stages_leave_folders_that_load(emoji, tmp_path, monkeypatch, device):
    for module, name, few in SMALL:
        monkeypatch.setattr(module, name, few)
    said = []
    for _ in range(2):
        stages.Recipe(emoji, emoji, tmp_path, torch.device(device), 1e-4, said.append).make()
    assert sum("goes on after step 2" in line for line in said) == 6
    assert load_family(str(tmp_path / "base"), dtype=torch.float32, device="cpu").unet.config.in_channels == 4
    known = Scorer.load(tmp_path / "scorer", tmp_path / "base" / "tokenizer")
    assert known.names == tuple(emoji.learned()) and known.text(["a blob c"]).shape == (1, pair.HIDDEN)
    for part, channels in (("inpaint", 9), ("xl", 4)):
        assert json.loads((tmp_path / part / "unet" / "config.json").read_text())["in_channels"] == channels
