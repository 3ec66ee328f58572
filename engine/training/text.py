"""What the denoiser is told about a picture: its caption, encoded once and kept, or encoded anew while a text encoder
learns, and how it was cut, where the base wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from engine.models.base import Family, Framing

Conditioning = dict[str, Tensor]


class TextStates:
    """Conditioning of captions, each encoded alone so that the company it keeps can't change its bits.

    `live`: the text encoder is being trained, so only token ids are kept and every call encodes, with gradients.
    """

    def __init__(
        self,
        family: Family,
        captions: Iterable[str],
        clip_skip: int,
        live: bool,
        tick: Callable[[int], None] = lambda done: None,
    ):
        self.family, self.clip_skip, self.live = family, clip_skip, live
        unique = sorted(set(captions))
        self._rows = {caption: row for row, caption in enumerate(unique)}
        self._ids = family.tokenize(unique).to(family.device)
        self._states: Conditioning = {}
        if not live:
            encoded = []
            for row in range(len(unique)):
                tick(row)
                with torch.no_grad():
                    encoded.append(family.encode_text(self._ids[row : row + 1], clip_skip))
            self._states = {key: torch.cat([states[key] for states in encoded]) for key in encoded[0]}

    def __call__(self, captions: list[str], framings: Sequence[Framing] = ()) -> Conditioning:
        """Conditioning of a batch, every tensor with the batch in dim 0. Without framings pictures are taken to be
        whole."""
        told = self._told(captions)
        return told | self.family.frame(framings) if framings else told

    def _told(self, captions: list[str]) -> Conditioning:
        rows = torch.tensor([self._rows[caption] for caption in captions], device=self._ids.device)
        if self.live:
            return self.family.encode_text(self._ids[rows], self.clip_skip)
        return {key: states[rows] for key, states in self._states.items()}
