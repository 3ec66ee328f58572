"""diff of adapter files against dense float64, layer by layer and in all."""

from __future__ import annotations

import math

import pytest
import torch

from engine.errors import UserError


@pytest.fixture
def compared(files, operate):
    """The answer of `diff` for two files of these tensors."""

    def call(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], **more):
        return operate("diff", first=files.write("first", first), second=files.write("second", second), **more)

    return call


def test_norms_distances_and_cosines_are_those_of_the_dense_updates(files, compared):
    first = files.plain("to_q", 1) | files.plain("to_k", 3) | files.lokr("to_v", 5)
    second = files.plain("to_q", 7, rank=5) | files.lokr("to_v", 9) | files.plain("to_out_0", 11)
    found = compared(first, second)
    names = ("to_q", "to_k", "to_v", "to_out_0")
    assert {layer.path for layer in found.layers} == {f"{files.path}.{name.replace('_0', '.0')}" for name in names}
    whole = [torch.cat([files.dense(each, name).flatten() for name in names]) for each in (first, second)]
    rows = [(layer, layer.path.removeprefix(f"{files.path}.").replace(".", "_")) for layer in found.layers]
    pairs = [(layer, files.dense(first, name), files.dense(second, name)) for layer, name in rows]
    for figures, one, other in [*pairs, (found, *whole)]:
        assert math.isclose(figures.first, float(one.norm()), rel_tol=1e-5)
        assert math.isclose(figures.second, float(other.norm()), rel_tol=1e-5)
        assert math.isclose(figures.distance, float((one - other).norm()), rel_tol=1e-5)
        if one.any() and other.any():
            cosine = float((one * other).sum() / one.norm() / other.norm())
            assert math.isclose(figures.cosine, cosine, rel_tol=1e-4, abs_tol=1e-6)
        else:
            assert figures.cosine is None


def test_a_lora_against_a_lokr_of_the_same_layer(files, compared):
    first, second = files.plain("to_q", 1), files.lokr("to_q", 3)
    (layer,) = compared(first, second).layers
    one, other = files.dense(first, "to_q"), files.dense(second, "to_q")
    assert math.isclose(layer.distance, float((one - other).norm()), rel_tol=1e-5)
    assert math.isclose(layer.cosine, float((one * other).sum() / one.norm() / other.norm()), rel_tol=1e-4)


def test_an_adapter_is_at_no_distance_from_itself(files, compared):
    found = compared(files.plain("to_q", 1), files.plain("to_q", 1))
    assert (found.distance, found.cosine) == (0.0, 1.0)


def test_a_1x1_convolution_is_the_linear_layer_that_it_may_be_stored_as(files, compared):
    first = files.plain("to_q", 1)
    second = {key: t[..., None, None] if t.ndim else t for key, t in first.items()}
    assert compared(first, second).distance == 0.0


def test_adapters_of_different_sizes_are_not_compared(files, compared):
    other = files.plain("to_q", 1)
    other[f"{files.block}_to_q.lora_down.weight"] = files.rand(3, 32, seed=1)
    with pytest.raises(UserError) as refused:
        compared(files.plain("to_q", 1), other)
    (problem,) = refused.value.problems
    assert problem.where.endswith("second.safetensors") and "different bases" in problem.advice


def test_a_dora_is_compared_with_its_base_or_not_at_all(files, compared):
    first = files.plain("to_q", 1) | {f"{files.block}_to_q.dora_scale": torch.ones(64, 1)}
    with pytest.raises(UserError, match="--base"):
        compared(first, files.plain("to_q", 1))
