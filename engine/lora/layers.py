"""Low-rank layers: `W x + (alpha / r) · U (D x)` around a Linear or Conv2d that is left alone (Hu et al. 2021).

`down` (D, also A) is r×in, Kaiming-uniform; `up` (U, also B) is out×r, zero, so a fresh layer changes nothing. Factors
are float32; the products run in the precision of the layer's input. Dropout falls on the bottleneck, in training alone.

Linear layers have their own backward: one saved copy of x, no gradient for the base, the adapter's sum accumulated into
the base's product in place of two more passes over the output, and one product for the downs of layers with one input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class LoRALayer(nn.Module):
    """What both kinds share. `scale` is alpha / rank; `train()` and `eval()` switch the dropout."""

    base: nn.Module

    def __init__(self, base: nn.Module, down: tuple[int, ...], up: tuple[int, ...], alpha: float, dropout: float):
        super().__init__()
        self.base = base
        self.rank, self.alpha, self.dropout = down[0], float(alpha), dropout
        self.scale = self.alpha / self.rank
        device = base.weight.device
        self.down = nn.Parameter(torch.zeros(down, device=device))
        self.up = nn.Parameter(torch.zeros(up, device=device))
        self.compute: tuple[Tensor, Tensor] | None = None
        """Copies of (down, up) in the compute precision, kept up to date by their owner; None: cast when needed."""

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw `down` from U(-1/√fan_in, 1/√fan_in) with a CPU generator and zero `up`."""
        bound = self.down[0].numel() ** -0.5
        self.down.copy_(torch.rand(self.down.shape, generator=generator).mul_(2 * bound).sub_(bound))
        self.up.zero_()

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(down, up) for a product in `dtype`, connected to the float32 factors."""
        return self.down.to(dtype), self.up.to(dtype)

    def mask(self, shape: torch.Size, like: Tensor) -> Tensor | None:
        """A dropout mask for the bottleneck, already divided by the share that is kept."""
        if not self.training or not self.dropout:
            return None
        keep = 1.0 - self.dropout
        return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(keep).div_(keep)

    def delta(self) -> Tensor:
        """ΔW = scale · up @ down, in the shape of the base's weight, float32."""
        product = self.up.flatten(1) @ self.down.flatten(1)
        return (self.scale * product).view(self.base.weight.shape)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}"


class LoRALinear(LoRALayer):
    """A Linear with a low-rank update; x is [..., in], the result [..., out]."""

    base: nn.Linear

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__(base, (rank, base.in_features), (base.out_features, rank), alpha, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return together((self,), x)[0]

    def copies(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(down, up) for a product in `dtype`, without gradients."""
        if self.compute is not None and self.compute[0].dtype == dtype:
            return self.compute
        return self.down.detach().to(dtype), self.up.detach().to(dtype)


def together(layers: Sequence[LoRALinear], x: Tensor) -> tuple[Tensor, ...]:
    """The results of layers that are given the same x, [..., in], such as an attention's q, k and v."""
    return _LowRankLinears.apply(x, layers, *(factor for layer in layers for factor in (layer.down, layer.up)))


class _LowRankLinears(torch.autograd.Function):
    """yᵢ = x Wᵢᵀ + bᵢ + sᵢ (x Dᵢᵀ ∘ maskᵢ) Uᵢᵀ. Gradients go to x and to the float32 factors, never to Wᵢ or bᵢ.

    The bottleneck is held upright, [Σ rank, rows]: BLAS takes up to three times as long for products that are only a
    few columns wide.
    """

    @staticmethod
    def forward(ctx, x, layers, *factors):
        rows = x.reshape(-1, x.shape[-1])
        downs, ups = zip(*(layer.copies(x.dtype) for layer in layers), strict=True)
        ctx.layers, ctx.shape, ctx.ranks = layers, x.shape, [layer.rank for layer in layers]
        hidden = _stack(downs) @ rows.t()
        masks, results = [], []
        for layer, up, part in zip(layers, ups, hidden.split(ctx.ranks), strict=True):
            mask = layer.mask(part.shape, part)
            if mask is not None:
                part *= mask
            y = functional.linear(rows, layer.base.weight, layer.base.bias)
            y.addmm_(part.t(), up.t(), alpha=layer.scale)
            results.append(y.view(*x.shape[:-1], y.shape[-1]))
            masks.append(mask)
        ctx.save_for_backward(rows, hidden, *downs, *ups, *masks)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        rows, hidden, *saved = ctx.saved_tensors
        count = len(ctx.layers)
        downs, ups, masks = saved[:count], saved[count : 2 * count], saved[2 * count :]
        hidden_gradient = torch.empty_like(hidden)
        parts = zip(hidden.split(ctx.ranks), hidden_gradient.split(ctx.ranks), ups, masks, strict=True)
        x_gradient = None
        up_gradients = []
        for layer, gradient, (part, part_gradient, up, mask) in zip(ctx.layers, gradients, parts, strict=True):
            gradient = gradient.reshape(len(rows), -1)
            up_gradients.append((part @ gradient).t().to(layer.up.dtype).mul_(layer.scale))
            part_gradient.addmm_(up.t(), gradient.t(), beta=0, alpha=layer.scale)
            if mask is not None:
                part_gradient *= mask
            if x_gradient is not None:
                x_gradient.addmm_(gradient, layer.base.weight)
            elif ctx.needs_input_grad[0]:
                x_gradient = gradient @ layer.base.weight
        if x_gradient is not None:
            x_gradient = x_gradient.addmm_(hidden_gradient.t(), _stack(downs)).view(ctx.shape)
        down_gradients = (hidden_gradient @ rows).to(ctx.layers[0].down.dtype).split(ctx.ranks)
        return x_gradient, None, *(each for pair in zip(down_gradients, up_gradients, strict=True) for each in pair)


def _stack(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices on top of each other, [Σ rows, columns]."""
    return matrices[0] if len(matrices) == 1 else torch.cat(matrices)


class LoRAConv2d(LoRALayer):
    """A Conv2d with a low-rank update: `down` has the base's kernel, stride and padding, `up` is 1×1 (LoCon)."""

    base: nn.Conv2d

    def __init__(self, base: nn.Conv2d, rank: int, alpha: float, dropout: float = 0.0):
        if base.groups != 1 or base.padding_mode != "zeros":
            raise ValueError(
                f"only plain convolutions can be adapted, not groups={base.groups}, {base.padding_mode} padding"
            )
        super().__init__(
            base, (rank, base.in_channels, *base.kernel_size), (base.out_channels, rank, 1, 1), alpha, dropout
        )

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.factors(x.dtype)
        hidden = functional.conv2d(x, down, None, self.base.stride, self.base.padding, self.base.dilation)
        mask = self.mask(hidden.shape, hidden)
        if mask is not None:
            hidden = hidden * mask
        return self.base(x).add_(functional.conv2d(hidden, up), alpha=self.scale)


def wrap(base: nn.Module, rank: int, alpha: float, dropout: float = 0.0) -> LoRALayer:
    """The low-rank layer for a base layer."""
    if isinstance(base, nn.Linear):
        return LoRALinear(base, rank, alpha, dropout)
    if isinstance(base, nn.Conv2d):
        return LoRAConv2d(base, rank, alpha, dropout)
    raise TypeError(f"{type(base).__name__} can't be adapted, only Linear and Conv2d")
