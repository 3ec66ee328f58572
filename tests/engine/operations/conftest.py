"""Small adapter files and what they mean, for the operations on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.config.operations import checked
from engine.operate import Reporter, run

BLOCK = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1"
PATH = "mid_block.attentions.0.transformer_blocks.0.attn1"
CONV = "lora_unet_mid_block_resnets_0_conv1"


def rand(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense(tensors: dict[str, torch.Tensor], name: str, base: torch.Tensor | None = None) -> torch.Tensor:
    """ΔW of a layer in float64, written down from the definition of each kind."""
    stem = CONV if name == "conv" else f"{BLOCK}_{name}"
    own = {key.removeprefix(f"{stem}."): t.double() for key, t in tensors.items() if key.startswith(f"{stem}.")}
    if "lokr_w1" in own:
        return torch.kron(own["lokr_w1"], own["lokr_w2"])
    if "hada_w1_a" in own:
        first, second = (own[f"hada_w{half}_a"] @ own[f"hada_w{half}_b"] for half in (1, 2))
        return own["alpha"] / len(own["hada_w1_b"]) * first * second
    if not own:
        return torch.zeros(16, 8, 3, 3) if name == "conv" else torch.zeros(64, 64, dtype=torch.float64)
    down, up = own["lora_down.weight"], own["lora_up.weight"]
    update = (
        own.get("alpha", len(down)) / len(down) * (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])
    )
    if "dora_scale" in own:
        moved = base.double() + update
        return own["dora_scale"] * moved / moved.norm(dim=1, keepdim=True) - base.double()
    return update


class Files:
    """Adapter files of a few layers, in kohya's naming."""

    block, path, rand, dense = BLOCK, PATH, staticmethod(rand), staticmethod(dense)

    def __init__(self, folder: Path):
        self.folder = folder

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> str:
        path = self.folder / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
        return str(path)

    def deltas(self, path: str | Path) -> dict[str, torch.Tensor]:
        """What a file in kohya's naming means, by the definition: layer → ΔW, float64."""
        tensors = load_file(path)
        stems = {key.partition(".")[0] for key in tensors}
        names = {"conv" if stem.endswith("conv1") else stem.rpartition("attn1_")[2] for stem in stems}
        return {name: dense(tensors, name) for name in names}

    @staticmethod
    def plain(name: str, seed: int, rank: int = 3, dtype=torch.float32) -> dict[str, torch.Tensor]:
        """A LoRA of one layer of the middle block: `to_q` and the like, 64 x 64, or `conv`, 16 x 8 x 3 x 3."""
        stem = CONV if name == "conv" else f"{BLOCK}_{name}"
        down, up = ((rank, 8, 3, 3), (16, rank, 1, 1)) if name == "conv" else ((rank, 64), (64, rank))
        return {
            f"{stem}.lora_down.weight": rand(*down, seed=seed).to(dtype),
            f"{stem}.lora_up.weight": rand(*up, seed=seed + 1).to(dtype),
            f"{stem}.alpha": torch.tensor(2.0, dtype=dtype),
        }

    @staticmethod
    def loha(name: str, seed: int, rank: int = 2) -> dict[str, torch.Tensor]:
        halves = {f"hada_w{half}_{side}": half * 2 + (side == "b") for half in (1, 2) for side in "ab"}
        shapes = {"a": (64, rank), "b": (rank, 64)}
        return {f"{BLOCK}_{name}.{key}": rand(*shapes[key[-1]], seed=seed + add) for key, add in halves.items()} | {
            f"{BLOCK}_{name}.alpha": torch.tensor(1.0)
        }

    @staticmethod
    def lokr(name: str, seed: int) -> dict[str, torch.Tensor]:
        return {
            f"{BLOCK}_{name}.lokr_w1": rand(8, 8, seed=seed),
            f"{BLOCK}_{name}.lokr_w2": rand(8, 8, seed=seed + 1),
        }

    @staticmethod
    def dora(name: str, seed: int) -> dict[str, torch.Tensor]:
        return Files.plain(name, seed) | {f"{BLOCK}_{name}.dora_scale": rand(64, 1, seed=seed + 2).abs() + 0.5}


@pytest.fixture
def files(tmp_path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def operate() -> Callable[..., Any]:
    """Do an operation in this process: `operate("compose", out=…)`. What it says is in `operate.events`."""

    def call(name: str, **request: Any):
        call.events = []
        return run(checked(name, request), name, Reporter(call.events.append))

    return call
