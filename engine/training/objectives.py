"""What a denoiser is trained to predict: how latents are corrupted, what the target is, how timesteps are weighted.

The loop knows only `Objective`. All of it is maths on tensors: latents and noise are [n, c, h, w], timesteps [n] int64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Objective(ABC):
    """A corruption process and its regression target."""

    timesteps: int
    """Timesteps are drawn from 0 … timesteps - 1."""

    @abstractmethod
    def corrupt(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noisy latents that the denoiser sees."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should say about them."""

    @abstractmethod
    def weight(self, timesteps: Tensor) -> Tensor:
        """Weight of each image's squared error, [n] float32."""


class Diffusion(Objective):
    """x_t = √ᾱ x + √(1 - ᾱ) ε (Ho et al. 2020), predicting ε or v = √ᾱ ε - √(1 - ᾱ) x (Salimans & Ho 2022).

    `snr_gamma` caps the signal-to-noise ratio in the weight (min-SNR, Hang et al. 2023, sections 3.4 and A): for ε
    min(SNR, γ) / SNR, for v min(SNR, γ) / (SNR + 1). 0 weighs all timesteps alike.
    """

    def __init__(self, alphas_cumprod: Tensor, prediction: str, snr_gamma: float, device: torch.device):
        alphas = alphas_cumprod.to(torch.float64)
        snr = alphas / (1 - alphas)
        divisor = snr if prediction == "epsilon" else snr + 1
        weight = torch.minimum(snr, torch.tensor(snr_gamma, dtype=snr.dtype)) / divisor if snr_gamma else snr * 0 + 1
        self.timesteps = len(alphas)
        self.prediction = prediction
        self._signal = alphas.sqrt().float().to(device)
        self._noise = (1 - alphas).sqrt().float().to(device)
        self._weight = weight.nan_to_num(1.0).float().to(device)

    def corrupt(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return latents * _per_image(self._signal, timesteps) + noise * _per_image(self._noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        return noise * _per_image(self._signal, timesteps) - latents * _per_image(self._noise, timesteps)

    def weight(self, timesteps: Tensor) -> Tensor:
        return self._weight[timesteps]


def _per_image(table: Tensor, timesteps: Tensor) -> Tensor:
    return table[timesteps].view(-1, 1, 1, 1)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each image, [n] float32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
