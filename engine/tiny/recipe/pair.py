"""The contrastive pair: a CLIP text encoder and a small image tower that agree which caption belongs to which picture.

The text encoder is where the denoiser's own begins, and the pair is kept as the image-text scorer (Radford et al.
2021). Captions are cut to the longest of their batch: the encoder is causal, so what follows a caption's end changes
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.models.tokenizer import WINDOW
from engine.tiny import scenes
from engine.tiny.recipe.autoencoder import levels
from engine.tiny.recipe.fitting import Plan
from engine.tiny.scorer import Tower

PLAN = Plan(steps=2200, rate=1e-3, batch=256, average=0.995, preview=500)
HIDDEN = 128
NOISE = 0.15
"""Deviation of the noise on half of the pictures: drawn ones are less clean than composited ones."""
EXAMINED = 256
"""Pictures among which the right caption is looked for."""


class Pair(nn.Module):
    """The two towers and the scale of their cosines."""

    def __init__(self, tokenizer: CLIPTokenizer):
        super().__init__()
        self.text = CLIPTextModelWithProjection(text_config(tokenizer))
        self.image = Tower()
        self.log_scale = nn.Parameter(torch.tensor(2.66))

    def texts(self, ids: Tensor) -> Tensor:
        """[n, tokens] → unit vectors [n, HIDDEN]."""
        return F.normalize(self.text(ids).text_embeds.float(), dim=-1)

    def pictures(self, pixels: Tensor) -> Tensor:
        """[n, 3, 64, 64] in -1..1 → unit vectors [n, HIDDEN]."""
        return F.normalize(self.image.encode(pixels).float(), dim=-1)


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """A small CLIP text encoder for this tokenizer."""
    ends: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        projection_dim=HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=WINDOW,
        **ends,
    )


def ids_of(tokenizer: CLIPTokenizer, captions: Sequence[str], whole: bool = False) -> Tensor:
    """Captions as ids, padded to the longest of them, or to the whole window."""
    padded = tokenizer(list(captions), padding="max_length" if whole else "longest", truncation=True, max_length=WINDOW)
    return torch.tensor(padded.input_ids)


def batch(
    tokenizer: CLIPTokenizer, painter: scenes.Painter, names: Sequence[str], chance: Random
) -> tuple[Tensor, Tensor]:
    """Ids and pictures of fresh scenes, in other wordings too."""
    drawn = [scenes.draw(names, chance, freely=scenes.FREELY) for _ in range(PLAN.batch)]
    pixels = levels(np.stack([painter.paint(scene) for scene in drawn]))
    noisy = torch.rand(len(pixels), 1, 1, 1) < 0.5
    return ids_of(tokenizer, [scene.caption for scene in drawn]), pixels + noisy * NOISE * torch.randn_like(pixels)


def loss(pair: Pair, ids: Tensor, pixels: Tensor) -> Tensor:
    """Symmetric cross entropy of who belongs to whom."""
    device = pair.log_scale.device
    with torch.autocast(device.type, torch.bfloat16):
        words, shown = pair.texts(ids.to(device)), pair.pictures(pixels.to(device))
    scores = words @ shown.T * pair.log_scale.clamp(max=4.6).exp()
    own = torch.arange(len(scores), device=device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


@torch.no_grad()
def retrieval(
    pair: Pair, tokenizer: CLIPTokenizer, painter: scenes.Painter, names: Sequence[str], kind: str | None = None
) -> float:
    """Share of pictures whose own caption is the nearest of EXAMINED, on scenes that no step has drawn."""
    chance = Random(f"retrieval {kind}")
    drawn: list[scenes.Scene] = []
    while len(drawn) < EXAMINED:
        scene = scenes.draw(names, chance)
        if kind in (None, scene.kind) and scene.colour in scene.caption:
            drawn.append(scene)
    device = pair.log_scale.device
    words = pair.texts(ids_of(tokenizer, [scene.caption for scene in drawn]).to(device))
    shown = pair.pictures(levels(np.stack([painter.paint(scene) for scene in drawn])).to(device))
    return float(((shown @ words.T).argmax(1) == torch.arange(EXAMINED, device=device)).float().mean())
