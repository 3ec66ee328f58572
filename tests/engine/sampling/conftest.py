"""The embedded base twice: as ours, and as diffusers' own pipeline loads the same folder."""

from __future__ import annotations

import pytest
import torch

from engine import tiny
from engine.models.load import load_family


@pytest.fixture(scope="session")
def family():
    return load_family("tiny", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="session")
def pipeline():
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(str(tiny.FOLDER), safety_checker=None, torch_dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded
