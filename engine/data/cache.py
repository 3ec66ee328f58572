"""Encoded images on disk and in memory, so that the autoencoder runs once per picture and not once per step.

An entry is keyed by everything that its bits depend on (the file's content, shape, crop, mirroring, background and the
encoder) and by nothing else: no path, no time. It holds the mean and the standard deviation of the latent posterior in
float32, from which each step draws anew. Pictures are encoded one at a time, whatever the training batch is, because
the composition of a batch changes the last bits of a convolution and resuming promises the same ones.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from engine.data.buckets import Size
from engine.data.check import Progress
from engine.data.images import Colour
from engine.data.items import Variant
from engine.data.notes import shown
from engine.errors import Problem, UserError
from engine.files import replace_file

FORMAT = 1
"""Part of every key: to be raised when anything before the encoder changes how a picture becomes pixels."""

Encode = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Pixels [1, 3, h, w] in -1..1 (float32, on the CPU) to mean and standard deviation, each [1, c, h/8, w/8] or so."""


class Latents:
    """Means and standard deviations in memory: for each bucket two tensors [n, c, h, w], and each variant's row."""

    def __init__(self, mean: dict[Size, torch.Tensor], std: dict[Size, torch.Tensor], rows: dict[Variant, int]):
        self.mean = mean
        self.std = std
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, variants: Sequence[Variant]) -> torch.Tensor:
        """Where the variants lie in the tensors of their bucket: int64 [n]. KeyError for one that was not encoded."""
        return torch.tensor([self._rows[variant] for variant in variants], dtype=torch.int64)

    def lookup(self, variants: Sequence[Variant]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation, each [n, c, h, w], of variants that share one bucket."""
        (bucket,) = {variant.bucket for variant in variants}
        rows = self.rows(variants).to(self.mean[bucket].device)
        return self.mean[bucket][rows], self.std[bucket][rows]

    def to(self, device: torch.device | str) -> Latents:
        """The same on another device."""
        mean = {bucket: tensor.to(device) for bucket, tensor in self.mean.items()}
        std = {bucket: tensor.to(device) for bucket, tensor in self.std.items()}
        return Latents(mean, std, self._rows)


class LatentCache:
    """The entries in one folder that belong to one encoder (named by its fingerprint) and one background."""

    def __init__(self, folder: Path, fingerprint: str, background: Colour):
        self.folder = folder
        self.fingerprint = fingerprint
        self.background = background

    def key(self, variant: Variant) -> str:
        """The name of an entry: a SHA-256, in hex, over all that its bits depend on."""
        crop = [place.hex() for place in variant.crop]
        parts = [FORMAT, variant.sha256, variant.bucket, crop, variant.flip, self.background, self.fingerprint]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def path(self, variant: Variant) -> Path:
        key = self.key(variant)
        return self.folder / key[:2] / f"{key}.safetensors"

    def ensure(self, variants: Iterable[Variant], encode: Encode, progress: Progress | None = None) -> Latents:
        """All of these in memory: read where there is a sound entry, else encoded and written.

        `progress` is called after each with (done, total) and may raise to end the work; what is written stays good.
        UserError if a picture can't be read any more or its latents are not finite.
        """
        variants = list(dict.fromkeys(variants))
        counts = Counter(variant.bucket for variant in variants)
        mean: dict[Size, torch.Tensor] = {}
        std: dict[Size, torch.Tensor] = {}
        rows: dict[Variant, int] = {}
        filled: Counter[Size] = Counter()
        for done, variant in enumerate(variants, start=1):
            entry = self._read(variant) or self._make(variant, encode)
            bucket = variant.bucket
            if bucket not in mean:
                mean[bucket], std[bucket] = (torch.empty(counts[bucket], *part.shape) for part in entry)
            rows[variant] = filled[bucket]
            mean[bucket][filled[bucket]], std[bucket][filled[bucket]] = entry
            filled[bucket] += 1
            if progress:
                progress(done, len(variants))
        return Latents(mean, std, rows)

    def _make(self, variant: Variant, encode: Encode) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.from_numpy(variant.pixels(self.background))
        with torch.no_grad():
            mean, std = (part[0].to("cpu", torch.float32).contiguous() for part in encode(pixels[None]))
        if not (mean.isfinite().all() and std.isfinite().all()):
            raise UserError(
                Problem(
                    where=shown(variant.path),
                    expected="latents of finite numbers",
                    found="infinity or NaN from the autoencoder",
                    advice="set runtime.precision to fp32, or model.vae to one that is made for half precision",
                )
            )
        path = self.path(variant)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary:
            save_file({"mean": mean, "std": std}, temporary, metadata={"sha256": _digest(path, mean, std)})
        return mean, std

    def _read(self, variant: Variant) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The entry, or None if there is none or it is damaged: it costs a moment to make, so damage is no error."""
        path = self.path(variant)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                mean, std = file.get_tensor("mean"), file.get_tensor("std")
                expected = (file.metadata() or {}).get("sha256")
        except (SafetensorError, OSError):
            return None
        sound = mean.dtype == std.dtype == torch.float32 and expected == _digest(path, mean, std)
        return (mean, std) if sound else None


def _digest(path: Path, mean: torch.Tensor, std: torch.Tensor) -> str:
    """Over the entry's name, shapes and numbers: safetensors notices a short file, not a changed bit or wrong name."""
    digest = hashlib.sha256(f"{path.name} {list(mean.shape)} {list(std.shape)}".encode())
    for part in (mean, std):
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()
