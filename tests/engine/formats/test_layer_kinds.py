"""Every kind of update is what LyCORIS makes of the same tensors, and its plain pair is the same update."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.formats.adapter import Factors
from engine.formats.layers import Dense, DoRA, LoHa, LoKr, Tucker

RANK, ALPHA = 3, 2.0
LINEAR, CONV = nn.Linear(24, 16), nn.Conv2d(24, 16, 3, padding=1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lycoris(algorithm: str, base: nn.Module, **options) -> nn.Module:
    """A module of LyCORIS around `base`, with random tensors."""
    modules = pytest.importorskip("lycoris.modules", reason="the oracle (lycoris-lora) is not installed")
    kinds = {"locon": modules.locon.LoConModule, "loha": modules.loha.LohaModule, "lokr": modules.lokr.LokrModule}
    module = kinds[algorithm]("x", base, lora_dim=RANK, alpha=ALPHA, **options)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if name != "dora_scale" and "org" not in name:
                tensor.copy_(torch.randn(tensor.shape))
    return module.eval()


def update(module: nn.Module, base: nn.Module) -> torch.Tensor:
    """ΔW by what the module adds to the answer of its layer, column by column."""
    with torch.no_grad():
        if isinstance(base, nn.Linear):
            inputs = torch.eye(base.in_features)
            return (module(inputs) - base(inputs)).T.double()
        inputs = torch.zeros(base.in_channels, base.in_channels, 5, 5)
        inputs[torch.arange(base.in_channels), torch.arange(base.in_channels), 2, 2] = 1
        answer = module(inputs) - base(inputs)  # in, out, 5, 5: the kernel, turned round, about the centre
        return answer[:, :, 1:4, 1:4].flip(2, 3).transpose(0, 1).double()


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in module.custom_state_dict().items()}


def plain(found: dict[str, torch.Tensor]) -> Factors:
    return Factors(found["lora_down.weight"], found["lora_up.weight"], float(found["alpha"]))


@pytest.mark.parametrize("base", [LINEAR, CONV], ids=["linear", "conv"])
def test_plain_factors_are_those_of_locon(base):
    module = lycoris("locon", base)
    layer = plain(state(module))
    assert layer.shape == base.weight.shape
    same(layer.delta(), update(module, base))


def test_a_core_is_locons_mid():
    module = lycoris("locon", CONV, use_tucker=True)
    found = state(module)
    layer = Tucker(found["lora_down.weight"], found["lora_mid.weight"], found["lora_up.weight"], float(found["alpha"]))
    assert (layer.shape, layer.rank, layer.scale) == (CONV.weight.shape, RANK, ALPHA / RANK)
    same(layer.delta(), update(module, CONV))
    same(layer.factors().delta(), layer.delta())
    assert layer.factors().rank == RANK


@pytest.mark.parametrize(
    ("base", "options"),
    [(LINEAR, {}), (CONV, {}), (CONV, {"use_tucker": True}), (LINEAR, {"rs_lora": True})],
    ids=["linear", "conv", "tucker", "rslora"],
)
def test_a_hadamard_product_is_loha(base, options):
    module = lycoris("loha", base, **options)
    found = state(module)
    alpha = float(found.pop("alpha"))
    named = {name.removeprefix("hada_"): tensor for name, tensor in found.items()}
    layer = LoHa(**named, alpha=alpha, shape=tuple(base.weight.shape))
    assert layer.rank == RANK
    same(layer.delta(), update(module, base))
    same(layer.factors().delta(), layer.delta())
    assert (layer.factors().rank, layer.factors().shape) == (RANK**2, layer.shape)
    assert layer.tensors() == found


@pytest.mark.parametrize(
    ("base", "options", "tensors"),
    [
        (LINEAR, {"factor": 2}, "w1 w2_a w2_b"),
        (LINEAR, {"factor": 2, "decompose_both": True}, "w1 w2_a w2_b"),
        (LINEAR, {"full_matrix": True}, "w1 w2"),
        (CONV, {"factor": 2}, "w1 w2_a w2_b"),
        (CONV, {"factor": 2, "use_tucker": True}, "w1 w2_a w2_b t2"),
        (CONV, {"full_matrix": True}, "w1 w2"),
        (nn.Linear(256, 128), {"factor": 16, "decompose_both": True}, "w1_a w1_b w2_a w2_b"),
    ],
)
def test_a_kronecker_product_is_lokr(base, options, tensors):
    module = lycoris("lokr", base, **({"factor": 4} | options))
    found = state(module)
    alpha = float(found.pop("alpha"))
    named = {name.removeprefix("lokr_"): tensor for name, tensor in found.items()}
    assert set(named) == set(tensors.split())
    layer = LoKr(alpha, tuple(base.weight.shape), **named)
    assert layer.scale == (1.0 if tensors == "w1 w2" else pytest.approx(ALPHA / RANK))
    same(layer.delta(), update(module, base))
    assert layer.factors() is None
    assert layer.tensors() == found
    assert torch.linalg.matrix_rank(layer.delta().flatten(1)) <= max(layer.rank, RANK * min(named["w1"].shape
                                                                     if "w1" in named else (RANK,)))  # fmt: skip


@pytest.mark.parametrize("base", [LINEAR, CONV], ids=["linear", "conv"])
@pytest.mark.parametrize("axis", [0, 1], ids=["outputs", "inputs"])
def test_magnitudes_on_either_axis_are_lycoriss(base, axis):
    module = lycoris("locon", base, weight_decompose=True, wd_on_out=axis == 0)
    with torch.no_grad():
        module.dora_scale.mul_(torch.rand_like(module.dora_scale) + 0.5)
    layer = DoRA(plain(state(module)), module.dora_scale.detach(), axis)
    same(layer.delta(base.weight.detach()), update(module, base))
    assert layer.factors() is None
    with pytest.raises(ValueError, match="depends on the weight"):
        layer.delta()


@pytest.mark.parametrize("algorithm", ["loha", "lokr"])
def test_magnitudes_go_with_every_kind(algorithm):
    module = lycoris(algorithm, LINEAR, weight_decompose=True)
    found = state(module)
    alpha, magnitude = float(found.pop("alpha")), found.pop("dora_scale")
    named = {name[5:]: tensor for name, tensor in found.items()}
    kind = {"loha": LoHa, "lokr": LoKr}[algorithm]
    layer = DoRA(kind(alpha=alpha, shape=(16, 24), **named), magnitude, 0)
    same(layer.delta(LINEAR.weight.detach()), update(module, LINEAR))


def test_a_difference_is_itself():
    layer = Dense(torch.randn(4, 6, 3, 3))
    assert (layer.rank, layer.scale, layer.shape) == (4, 1.0, (4, 6, 3, 3))
    assert torch.equal(layer.delta(), layer.diff.double())


@pytest.mark.parametrize(
    "made",
    [
        lambda: Tucker(torch.zeros(2, 8, 1, 1), torch.zeros(2, 3, 3, 3), torch.zeros(4, 2, 1, 1), 1),
        lambda: Tucker(torch.zeros(2, 8), torch.zeros(2, 2, 3, 3), torch.zeros(4, 2), 1),
        lambda: LoHa(*(torch.zeros(4, 2), torch.zeros(2, 8)) * 2, 1.0, (4, 9)),
        lambda: LoHa(*(torch.zeros(4, 2), torch.zeros(3, 8)) * 2, 1.0, (4, 8)),
        lambda: LoHa(*(torch.zeros(2, 4), torch.zeros(2, 8)) * 2, 1.0, (4, 8, 3, 3), torch.zeros(2, 2, 3, 3)),
        lambda: LoKr(1.0, (4, 8), torch.zeros(2, 2)),
        lambda: LoKr(1.0, (4, 8), torch.zeros(2, 2), w2=torch.zeros(2, 3)),
        lambda: LoKr(1.0, (4, 8), torch.zeros(2, 2), w2_a=torch.zeros(2, 1), w2_b=torch.zeros(2, 4)),
        lambda: LoKr(1.0, (4, 8), torch.zeros(2, 2), w1_a=torch.zeros(2, 1), w2=torch.zeros(2, 4)),
        lambda: DoRA(Dense(torch.zeros(4, 8)), torch.zeros(8), 0),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_no_layer(made):
    with pytest.raises(ValueError):
        made()
