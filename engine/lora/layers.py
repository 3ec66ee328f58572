"""Low-rank layers: `W x + (alpha / r) · U (D x)` around a Linear or Conv2d that is left alone (Hu et al. 2021).

`down` (D, also A) is r×in, Kaiming-uniform; `up` (U, also B) is out×r, zero, so a fresh layer changes nothing. Factors
are float32; the products run in the precision of the layer's input. Dropout falls on the bottleneck, in training alone.

LoRALinear has its own backward: one saved copy of x, no gradient for the base, and the adapter's sum accumulated into
the base's product in place of two more passes over the output.
"""

from __future__ import annotations

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
        copies = self.compute if self.compute is not None and self.compute[0].dtype == x.dtype else None
        down, up = copies or (self.down.detach().to(x.dtype), self.up.detach().to(x.dtype))
        mask = self.mask(torch.Size((*x.shape[:-1], self.rank)), x)
        return _LowRankLinear.apply(x, self.base.weight, self.base.bias, self.down, self.up, down, up, self.scale, mask)


class _LowRankLinear(torch.autograd.Function):
    """y = x Wᵀ + b + s (x Dᵀ ∘ mask) Uᵀ. Gradients go to x and to the float32 factors, never to W or b.

    The bottleneck is held upright, [rank, rows]: BLAS takes far longer for products that are only a few columns wide.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, down, up, down_compute, up_compute, scale, mask):
        rows = x.reshape(-1, x.shape[-1])
        hidden = down_compute @ rows.t()
        if mask is not None:
            mask = mask.view(len(rows), -1).t()
            hidden *= mask
        y = functional.linear(rows, weight, bias)
        y.addmm_(hidden.t(), up_compute.t(), alpha=scale)
        ctx.save_for_backward(rows, hidden, weight, down_compute, up_compute, mask)
        ctx.scale, ctx.shape, ctx.dtypes = scale, x.shape, (down.dtype, up.dtype)
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        rows, hidden, weight, down, up, mask = ctx.saved_tensors
        gradient = gradient.reshape(len(rows), -1)
        up_gradient = (hidden @ gradient).mul_(ctx.scale).t().to(ctx.dtypes[1])
        hidden_gradient = (up.t() @ gradient.t()).mul_(ctx.scale)
        if mask is not None:
            hidden_gradient *= mask
        down_gradient = (hidden_gradient @ rows).to(ctx.dtypes[0])
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = (gradient @ weight).addmm_(hidden_gradient.t(), down).view(ctx.shape)
        return x_gradient, None, None, down_gradient, up_gradient, None, None, None, None


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
