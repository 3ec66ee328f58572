"""Choosing the code that computes attention: by what ran, with both outcomes made to happen."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.errors import UserError
from engine.models import attention
from engine.models.load import load_family


def works(query, key, value):
    return scaled_dot_product_attention(query[None], key[None], value[None])[0]


def broken(query, key, value):
    raise NotImplementedError("No operator found for `memory_efficient_attention_forward`\nwith inputs: …")


def absent(query, key, value):
    raise ImportError("No module named 'xformers'")


def choose(monkeypatch, requested, dtype=torch.float32, **kernels):
    for name, kernel in kernels.items():
        monkeypatch.setitem(attention.KERNELS, name, kernel)
    return attention.choose(requested, "cpu", dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchs_own_and_plain_attention_run_on_the_cpu(dtype):
    found = attention.probe("cpu", dtype)
    assert found["sdpa"] is None and found["plain"] is None


def test_a_back_end_that_imports_and_raises_is_reported_with_its_first_line(monkeypatch):
    monkeypatch.setitem(attention.KERNELS, "xformers", broken)
    reason = attention.probe("cpu", torch.float32)["xformers"]
    assert reason == "No operator found for `memory_efficient_attention_forward`"


def test_a_back_end_that_is_not_there_is_called_not_installed(monkeypatch):
    monkeypatch.setitem(attention.KERNELS, "xformers", absent)
    assert attention.probe("cpu", torch.float32)["xformers"] == "not installed"


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (lambda q, k, v: works(q, k, v) * torch.nan, "not finite"),
        (lambda q, k, v: works(q, k, v) + 1, "off by 1"),
        (lambda q, k, v: works(q, k, v).detach().requires_grad_(), "not finite"),
    ],
    ids=["nan", "wrong", "no gradient"],
)
def test_a_back_end_that_runs_and_lies_is_found_out(monkeypatch, kernel, said):
    monkeypatch.setitem(attention.KERNELS, "xformers", kernel)
    assert said in attention.probe("cpu", torch.float32)["xformers"]


def test_auto_takes_torchs_own_and_says_so(monkeypatch):
    backend, note = choose(monkeypatch, "auto", xformers=works)
    assert backend == "sdpa" and note == "attention: sdpa; it ran on cpu in float32"


def test_auto_goes_on_to_xformers_and_then_to_plain_where_torchs_own_fails(monkeypatch):
    assert choose(monkeypatch, "auto", sdpa=broken, xformers=works)[0] == "xformers"
    assert choose(monkeypatch, "auto", sdpa=broken, xformers=absent)[0] == "plain"


def test_xformers_is_taken_where_it_is_asked_for_and_ran(monkeypatch):
    backend, note = choose(monkeypatch, "xformers", xformers=works)
    assert backend == "xformers" and "as asked" in note


def test_xformers_gives_way_to_torchs_own_where_it_can_not_run_and_says_why(monkeypatch):
    backend, note = choose(monkeypatch, "xformers", xformers=broken)
    assert backend == "sdpa"
    assert note.startswith("attention: sdpa; xformers was asked for but can't be used: No operator found")


def test_where_nothing_runs_every_reason_is_given(monkeypatch):
    with pytest.raises(UserError) as caught:
        choose(monkeypatch, "auto", sdpa=broken, xformers=absent, plain=broken)
    assert "xformers: not installed" in str(caught.value) and "plain: No operator" in str(caught.value)


def test_a_family_gives_the_same_prediction_with_either_back_end():
    family = load_family("tiny", dtype=torch.float32, device="cpu")
    ids = family.tokenize(["a cat on a red background"])
    latents, timesteps = torch.randn(1, 4, 16, 16), torch.tensor([400])
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    results = {}
    for backend in ("sdpa", "plain"):
        family.set_attention(backend)
        text = family.encode_text(ids)
        results[backend] = (family.predict(latents, timesteps, text), family.encode_images(pixels)[0])
    for one, other in zip(*results.values(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_torchs_own_attention_runs_on_the_gpu_in_half_precision():
    assert attention.probe("cuda", torch.bfloat16)["sdpa"] is None
