"""The SDXL-shaped sibling: two text encoders, pooled text and size conditioning, no attention at the finest level.

It begins as the base wherever the two have a tensor in common: the text states of its first encoder are the base's, and
those of the second, the scorer's, come in through weights that begin at zero. The second encoder gives the pooled text.
Sizes say nothing here, and it learns to draw the same whatever they are.
"""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

from engine import tiny
from engine.tiny.recipe import denoiser
from engine.tiny.recipe.fitting import Plan
from engine.tiny.recipe.pair import HIDDEN

PLAN = Plan(steps=4_000, rate=1e-3, batch=32, muon="unet.")
TIME = 32
"""Width of the embedding of each of the six numbers of the size conditioning."""
SHAPE: dict[str, Any] = denoiser.SHAPE | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (0, 1, 1),
    # one transformer less on the way up from the coarsest level, so that the file stays below 14 MB
    "reverse_transformer_layers_per_block": ((1, 0), (1, 1), (0, 0)),
    "cross_attention_dim": 2 * HIDDEN,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIME,
    "projection_class_embeddings_input_dim": 6 * TIME + HIDDEN,
}
LARGEST = 1024
"""Side of the largest picture that a drawing is said to come from, in pixels."""


class DenoiserXL(nn.Module):
    """The UNet alone learns: both text encoders are kept."""

    def __init__(self, base: UNet2DConditionModel, text: CLIPTextModel, text_2: CLIPTextModelWithProjection):
        super().__init__()
        self.unet = grown(base)
        self.unet.set_attn_processor(AttnProcessor())
        object.__setattr__(self, "_texts", (text, text_2))

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor, sizes: Tensor) -> Tensor:
        """The v of latents [n, 4, 16, 16]. sizes: [n, 6], as diffusers' `time_ids`."""
        states, pooled = conditioning(*self._texts, ids)
        added = {"text_embeds": pooled, "time_ids": sizes}
        return self.unet(noisy, timesteps, states, added_cond_kwargs=added, return_dict=False)[0].float()


@torch.no_grad()
def conditioning(text: CLIPTextModel, text_2: CLIPTextModelWithProjection, ids: Tensor) -> tuple[Tensor, Tensor]:
    """States before the last layer of both encoders, side by side, and the pooled text of the second."""
    second = text_2(ids, output_hidden_states=True)
    first = text(ids, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds


def grown(base: UNet2DConditionModel) -> UNet2DConditionModel:
    """The UNet with the base's weights wherever both have the same place."""
    unet = UNet2DConditionModel(**SHAPE)
    state = unet.state_dict()
    for name, tensor in base.state_dict().items():
        place = state.get(name)
        if place is None:
            continue
        if tensor.dim() == 4 and place.dim() == 2:
            tensor = tensor[..., 0, 0]
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) and tensor.shape != place.shape:
            tensor = torch.cat([tensor, tensor.new_zeros(len(tensor), HIDDEN)], 1)
        if tensor.shape == place.shape:
            state[name] = tensor
    for name in ("add_embedding.linear_2.weight", "add_embedding.linear_2.bias"):
        state[name] = torch.zeros_like(state[name])
    unet.load_state_dict(state)
    return unet


def batch(task: denoiser.Task, chance: Random) -> tuple[Tensor, ...]:
    """As the base's last ones, with sizes: half of the pictures whole, half as if cut from larger ones."""
    drawn = task.noised(task.freer_scenes(chance), chance)
    sizes = torch.tensor([_sizes(chance) for _ in range(len(drawn[0]))], dtype=torch.float32)
    return *drawn, sizes.to(drawn[0].device)


def _sizes(chance: Random) -> tuple[int, ...]:
    """Original height and width, top and left of the cut, and the size of what was cut out."""
    side = tiny.RESOLUTION
    if chance.random() < 0.5:
        return side, side, 0, 0, side, side
    height, width = (chance.randint(side, LARGEST) for _ in range(2))
    spare = (max(0, side * longer // min(height, width) - side) for longer in (height, width))
    return height, width, *(chance.randint(0, room) for room in spare), side, side
