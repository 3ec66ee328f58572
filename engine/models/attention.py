"""Which code computes attention: torch's own kernels (`sdpa`), xformers', or plain matrix products.

Being installed says nothing: xformers imports beside any torch and then raises in every call, and a kernel may lack the
device's precision. So each is tried with one tiny call, forward and backward, before it is chosen, and what was chosen
is said. `auto` takes torch's own where it runs: they are as fast, take one call without copies, and can be captured in
a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from engine.errors import Problem, UserError

ORDER = ("sdpa", "xformers", "plain")
"""What `auto` tries, best first."""

_HEADS, _QUERIES, _KEYS, _WIDTH = 4, 64, 77, 40
"""Of the trial: SD1's narrowest heads against one window of text."""


def _plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.float().softmax(-1).to(value.dtype) @ value


def _xformers(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention(query, key, value)


def _sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(query[None], key[None], value[None])[0]


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sdpa": _sdpa,
    "xformers": _xformers,
    "plain": _plain,
}
"""The trial's calls: [heads, tokens, width] of query, key and value → [heads, queries, width]."""


def probe(device: torch.device | str, dtype: torch.dtype) -> dict[str, str | None]:
    """Back end → None where it ran and agreed with the definition, else the reason why it can't be used."""
    return {name: _try(kernel, device, dtype) for name, kernel in KERNELS.items()}


def _try(kernel: Callable[..., Tensor], device: torch.device | str, dtype: torch.dtype) -> str | None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(_HEADS, length, _WIDTH, generator=generator) for length in (_QUERIES, _KEYS, _KEYS)]
    wanted = _plain(*(tensor.double() for tensor in inputs))
    try:
        placed = [tensor.to(device, dtype).requires_grad_() for tensor in inputs]
        found = kernel(*placed)
        found.sum().backward()
        results = [found, *(tensor.grad for tensor in placed)]
        # .cpu() waits for the device, so that its errors surface here
        if not all(tensor is not None and tensor.isfinite().all().cpu() for tensor in results):
            return "its results are not finite"
        error = (found.detach().cpu().double() - wanted).abs().max().item()
        return None if error < 0.05 else f"its results are off by {error:.2g}"
    except ImportError:
        return "not installed"
    except Exception as error:  # kernels raise whatever their authors chose
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def choose(requested: str, device: torch.device | str, dtype: torch.dtype) -> tuple[str, str]:
    """The back end to take for `auto` or a name, and a sentence that says which and why.

    One that was asked for and does not run gives way to the first that does. Raises UserError where none runs.
    """
    reasons = probe(device, dtype)
    name_of = str(dtype).removeprefix("torch.")
    if requested != "auto" and reasons[requested] is None:
        return requested, f"attention: {requested}, as asked; it ran on {device} in {name_of}"
    for backend in ORDER:
        if reasons[backend] is None:
            if requested == "auto":
                return backend, f"attention: {backend}; it ran on {device} in {name_of}"
            return backend, f"attention: {backend}; {requested} was asked for but can't be used: {reasons[requested]}"
    raise UserError(
        Problem(
            where=f"device {device}",
            field="runtime.attention",
            expected=f"one back end that runs in {name_of}",
            found="; ".join(f"{name}: {reason}" for name, reason in reasons.items()),
            advice="choose another runtime.precision or runtime.device",
        )
    )


def processor(backend: str) -> Any:
    """The diffusers attention processor of a back end."""
    from diffusers.models import attention_processor

    names = {"sdpa": "AttnProcessor2_0", "xformers": "XFormersAttnProcessor", "plain": "AttnProcessor"}
    return getattr(attention_processor, names[backend])()
