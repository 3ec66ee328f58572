"""Adapters on a diffusers pipeline, in three lines:

    added = engine.lora.apply(pipe, "my-cat.safetensors", weight=0.8)
    added.weight = 0.5
    added.remove()

Updates are added to the outputs of the layers that they are for, by forward hooks: the pipeline's modules and weights
stay as they are, any number of adapters can be on at once, and removing one gives the very bits back. Every kind of
layer works; those without a low-rank form are added as dense matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import Problem, UserError
from engine.formats import building
from engine.formats.adapter import Adapter
from engine.formats.container import listed
from engine.formats.layers import Layer
from engine.lora.compose import low_rank

TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""A pipeline's text encoders, and the tokenizers that belong to them."""


class Applied:
    """An adapter on a pipeline. Also a context manager, which removes it at its end."""

    def __init__(self, pipe: Any, adapter: Adapter, weight: float):
        self._pipe, self._weight = pipe, float(weight)
        updates = list(_updates(pipe, adapter))
        self._tokens = list(_add_tokens(pipe, adapter))
        self._handles = [module.register_forward_hook(self._hook(update)) for module, update in updates]

    @property
    def weight(self) -> float:
        """Strength: 0 is the base, 1 is as trained. Of the layers; tokens are there or not."""
        return self._weight

    @weight.setter
    def weight(self, value: float) -> None:
        if not math.isfinite(value):
            raise ValueError(f"a weight of {value}")
        self._weight = float(value)

    def remove(self) -> None:
        """Take the adapter and its tokens off. A second time changes nothing."""
        for handle in self._handles:
            handle.remove()
        for part, words in self._tokens:
            self._pipe.unload_textual_inversion(words, *_encoder(self._pipe, part))
        self._handles, self._tokens = [], []

    def __enter__(self) -> Applied:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _hook(self, update: _Update):
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + self._weight * update(module, inputs[0]) if self._weight else output

        return add


def apply(pipe: Any, adapter: Adapter | str | Path, weight: float = 1.0) -> Applied:
    """Put an adapter, or the one in a file, on a diffusers pipeline of its family. Its layers are on at `weight`.

    pipe: anything with the adapter's parts as attributes: `unet`, `text_encoder`, `text_encoder_2`. Raises UserError
    where the file can't be read or does not fit; the pipeline is then as it was.
    """
    if not isinstance(adapter, Adapter):
        from engine.formats.companions import read_whole

        adapter = read_whole(Path(adapter))
    return Applied(pipe, adapter, weight)


class _Update:
    """ΔW x of one layer, computed in the precision and on the device of its input."""

    def __init__(self, tensors: tuple[Tensor, ...], scale: float):
        self._tensors, self._scale = tensors, scale
        self._placed: tuple[Tensor, ...] = ()

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        if not self._placed or (self._placed[0].dtype, self._placed[0].device) != (x.dtype, x.device):
            self._placed = tuple(tensor.to(x.device, x.dtype) for tensor in self._tensors)
        first, *rest = self._placed
        if first.ndim == 4:
            x = functional.conv2d(x, first, None, module.stride, module.padding, module.dilation)
            x = functional.conv2d(x, rest[0]) if rest else x
        else:
            x = functional.linear(x, first)
            x = functional.linear(x, rest[0]) if rest else x
        return self._scale * x


def _updates(pipe: Any, adapter: Adapter) -> Iterator[tuple[nn.Module, _Update]]:
    """Each layer of the pipeline that the adapter changes, and its update. Raises UserError where some don't fit."""
    found: list[tuple[nn.Module, Layer]] = []
    strange, unlike = [], []
    for part, layers in adapter.parts.items():
        for path, layer in layers.items():
            module = _module(getattr(pipe, part, None), path)
            if module is None:
                strange.append(f"{part}.{path}")
                continue
            try:
                found.append((module, building.shaped(layer, tuple(module.weight.shape))))
            except building.Misfit:
                unlike.append(f"{part}.{path}")
    problems = [
        Problem(where="adapter", field=listed(names), expected=expected, found=f"{count} {what}", advice=advice)
        for names, expected, what in (
            (strange, "layers that the pipeline has", "that it has not"),
            (unlike, "updates of the size of the pipeline's layers", "of other sizes"),
        )
        if (count := len(names))
        for advice in ("take a pipeline of the base that the adapter was trained on",)
    ]
    if problems:
        raise UserError(problems)
    for module, layer in found:
        yield module, _update(module, layer)


def _module(part: nn.Module | None, path: str) -> nn.Module | None:
    """The Linear or Conv2d at a path; some text encoders have a `text_model.` before it."""
    for name in (path, f"text_model.{path}"):
        try:
            module = part.get_submodule(name) if part is not None else None
        except AttributeError:
            continue
        if isinstance(getattr(module, "weight", None), Tensor) and getattr(module, "groups", 1) == 1:
            return module
    return None


@torch.no_grad()
def _update(module: nn.Module, layer: Layer) -> _Update:
    factors = low_rank(layer)
    if factors is not None:
        return _Update((factors.down, factors.up), factors.scale)
    return _Update((layer.delta(module.weight.detach().cpu()).float(),), 1.0)


def _encoder(pipe: Any, part: str) -> tuple[Any, nn.Module]:
    """A text encoder's tokenizer and itself."""
    return getattr(pipe, TOKENIZERS[part]), getattr(pipe, part)


def _add_tokens(pipe: Any, adapter: Adapter) -> Iterator[tuple[str, list[str]]]:
    """Give the pipeline's tokenizers the adapter's tokens: (text encoder, its new words).

    A token of several vectors is written once in a prompt; diffusers has a word for each and spells it out.
    """
    tokens = [(token, part, vectors) for token, parts in adapter.tokens.items() for part, vectors in parts.items()]
    taken = [token for token, part, _ in tokens if token in _encoder(pipe, part)[0].get_vocab()]
    if taken:
        raise UserError(
            Problem(
                where="adapter",
                field=listed(taken),
                expected="tokens that the pipeline does not have yet",
                found="a word of that name",
                advice="remove the adapter that brought it, or rename the token",
            )
        )
    for token, part, vectors in tokens:
        tokenizer, encoder = _encoder(pipe, part)
        pipe.load_textual_inversion(vectors, token, tokenizer=tokenizer, text_encoder=encoder)
        yield part, [token, *(f"{token}_{number}" for number in range(1, len(vectors)))]
