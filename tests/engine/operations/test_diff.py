"""diff of adapter files against dense float64, layer by layer and in all."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from engine.config.operations import checked
from engine.errors import UserError
from engine.operate import Reporter
from engine.operations.diff import diff

BLOCK = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1"
PATH = "mid_block.attentions.0.transformer_blocks.0.attn1"


def rand(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(name: str, seed: int, rank: int = 3) -> dict[str, torch.Tensor]:
    return {
        f"{BLOCK}_{name}.lora_down.weight": rand(rank, 20, seed=seed),
        f"{BLOCK}_{name}.lora_up.weight": rand(16, rank, seed=seed + 1),
        f"{BLOCK}_{name}.alpha": torch.tensor(2.0),
    }


def lokr(name: str, seed: int) -> dict[str, torch.Tensor]:
    return {f"{BLOCK}_{name}.lokr_w1": rand(4, 4, seed=seed), f"{BLOCK}_{name}.lokr_w2": rand(4, 5, seed=seed + 1)}


def dense(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """ΔW of a module, from its definition."""
    own = {key.partition(".")[2]: tensor.double() for key, tensor in tensors.items() if f"_{name}." in key}
    if "lokr_w1" in own:
        return torch.kron(own["lokr_w1"], own["lokr_w2"])
    if not own:
        return torch.zeros(16, 20, dtype=torch.float64)
    return own["alpha"] / len(own["lora_down.weight"]) * own["lora_up.weight"] @ own["lora_down.weight"]


def compared(tmp_path, first, second, **more):
    for name, tensors in (("first", first), ("second", second)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    request = {name: str(tmp_path / f"{name}.safetensors") for name in ("first", "second")}
    return diff(checked("diff", request | more), Reporter(lambda event: None))


def test_norms_distances_and_cosines_are_those_of_the_dense_updates(tmp_path):
    first = plain("to_q", 1) | plain("to_k", 3) | lokr("to_v", 5)
    second = plain("to_q", 7, rank=5) | lokr("to_v", 9) | plain("to_out_0", 11)
    found = compared(tmp_path, first, second)
    names = ("to_q", "to_k", "to_v", "to_out_0")
    assert {layer.path for layer in found.layers} == {f"{PATH}.{name.replace('_0', '.0')}" for name in names}
    whole = [torch.cat([dense(each, name).flatten() for name in names]) for each in (first, second)]
    rows = [(layer, layer.path.removeprefix(f"{PATH}.").replace(".", "_")) for layer in found.layers]
    pairs = [(layer, dense(first, name), dense(second, name)) for layer, name in rows]
    for figures, one, other in [*pairs, (found, *whole)]:
        assert math.isclose(figures.first, float(one.norm()), rel_tol=1e-5)
        assert math.isclose(figures.second, float(other.norm()), rel_tol=1e-5)
        assert math.isclose(figures.distance, float((one - other).norm()), rel_tol=1e-5)
        if one.any() and other.any():
            cosine = float((one * other).sum() / one.norm() / other.norm())
            assert math.isclose(figures.cosine, cosine, rel_tol=1e-4, abs_tol=1e-6)
        else:
            assert figures.cosine is None


def test_a_lora_against_a_lokr_of_the_same_layer(tmp_path):
    first, second = plain("to_q", 1), lokr("to_q", 3)
    (layer,) = compared(tmp_path, first, second).layers
    one, other = dense(first, "to_q"), dense(second, "to_q")
    assert math.isclose(layer.distance, float((one - other).norm()), rel_tol=1e-5)
    assert math.isclose(layer.cosine, float((one * other).sum() / one.norm() / other.norm()), rel_tol=1e-4)


def test_an_adapter_is_at_no_distance_from_itself(tmp_path):
    found = compared(tmp_path, plain("to_q", 1), plain("to_q", 1))
    assert (found.distance, found.cosine) == (0.0, 1.0)


def test_a_1x1_convolution_is_the_linear_layer_that_it_may_be_stored_as(tmp_path):
    first = plain("to_q", 1)
    second = {key: t[..., None, None] if t.ndim else t for key, t in first.items()}
    assert compared(tmp_path, first, second).distance == 0.0


def test_adapters_of_different_sizes_are_not_compared(tmp_path):
    other = {
        key: tensor[..., :10].contiguous() if "down" in key else tensor for key, tensor in plain("to_q", 1).items()
    }
    with pytest.raises(UserError) as refused:
        compared(tmp_path, plain("to_q", 1), other)
    (problem,) = refused.value.problems
    assert problem.where.endswith("second.safetensors") and "different bases" in problem.advice


def test_a_dora_is_compared_with_its_base_or_not_at_all(tmp_path):
    first = plain("to_q", 1) | {f"{BLOCK}_to_q.dora_scale": torch.ones(16, 1)}
    with pytest.raises(UserError, match="--base"):
        compared(tmp_path, first, plain("to_q", 1))
