"""What there is to say of a training run, in this project's own terms: the input of `engine.formats.metadata`.

Plain data without a clock or a file behind it, so that the same run always writes the same metadata: whoever fills it
passes the times in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model file or folder that the training used."""

    name: str
    """Hub id, or the name of the file or folder without the path to it; written as it is."""
    legacy_hash: str | None = None
    """`hashes.file_legacy_hash` of a single file; None for a folder or a hub id."""
    sha256: str | None = None
    """`hashes.file_sha256` of a single file; None for a folder or a hub id."""


@dataclass(frozen=True, kw_only=True)
class BaseFacts(ModelFacts):
    """The base model."""

    version: str = "sd_v1"
    """`ss_base_model_version`, by which readers tell families: `sd_v1[_v]`, `sd_v2[_v]`, `sdxl_base_v1-0` …"""
    architecture: str = "stable-diffusion-v1"
    """The modelspec id of the architecture, without `/lora`."""
    implementation: str = "diffusers"
    prediction: str | None = "epsilon"
    """`epsilon` or `v`; None for a flow-matching model, which has no entry for it."""
    vae: ModelFacts | None = None
    """A VAE that took the place of the base's own."""


@dataclass(frozen=True, kw_only=True)
class SubsetFacts:
    """One folder of images."""

    folder: str
    """Its name; a path is cut to its last part."""
    captions: tuple[str, ...]
    """The caption of every image, without prefix and suffix."""
    repeats: int = 1
    class_tokens: str = ""
    caption_prefix: str = ""
    caption_suffix: str = ""
    caption_dropout: float = 0.0
    is_reg: bool = False
    flip: bool = False
    random_crop: bool = False


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """The images as they were batched."""

    subsets: tuple[SubsetFacts, ...]
    batch: int
    resolution: Size
    buckets: Mapping[Size, int] | None = None
    """Images, with their repeats, of each bucket; None without buckets."""
    aspect_error: float = 0.0
    """Mean absolute difference between the aspect ratios of images and their buckets."""
    validation_images: int = 0


@dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """The adapter's size. What differs from set to set goes into `arguments`, as in `{"conv_dim": "8"}`."""

    rank: int
    alpha: float
    dropout: float = 0.0
    arguments: Mapping[str, str] = field(default_factory=dict)
    module: str = "networks.lora"
    """The sd-scripts module whose file format this is."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """How it was trained, and how far. Times are seconds since 1970."""

    name: str
    session_id: int
    """A number that all files of one run share."""
    seed: int
    started_at: float
    finished_at: float
    steps: int
    """Optimizer steps done when the file was saved."""
    epoch: int
    max_steps: int
    epochs: int
    batches_per_epoch: int
    lr_unet: float
    lr_text: float
    """0, as for `lr_unet`: that part was not trained."""
    optimizer: str
    """Class and arguments: `torch.optim.adamw.AdamW(weight_decay=0.01)`."""
    schedule: str
    warmup: int
    accumulate: int = 1
    clip_norm: float = 1.0
    precision: str = "fp32"
    """fp32, fp16 or bf16."""
    gradient_checkpointing: bool = False
    cache_latents: bool = True
    clip_skip: int = 1
    token_length: int = 75
    prior_weight: float = 1.0
    snr_gamma: float = 0.0
    noise_offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the author says of the adapter; empty texts are left out."""

    title: str = ""
    """Empty: the run's name."""
    description: str = ""
    author: str = ""
    license: str = ""
    usage_hint: str = ""
    trigger_phrase: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """Everything that an adapter's metadata is made from."""

    base: BaseFacts
    dataset: DatasetFacts
    adapter: AdapterFacts
    run: RunFacts
    card: CardFacts = CardFacts()
    program: str
    """Name and version of the program that trained: `loratui/0.1.0`."""
