"""Starting points for a method on a family of bases, as practitioners set them; embedded ones have values of their own.

A preset holds only what differs from the schema's defaults, which are those of DreamBooth on Stable Diffusion 1.
"""

from __future__ import annotations

from typing import Any

_TINY = {
    "adapter": {"rank": 8, "alpha": 8, "targets": "attention"},
    "dataset": {"buckets": False},
    "prior": {"images": 32, "guidance_scale": 4.0},
    "training": {"steps": 300, "batch": 4},
    "optimizer": {"lr_unet": 1e-3, "lr_text": 0.0},
    "sampling": {"guidance_scale": 4.0},
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "dreambooth": {
        "sd1": {},
        "sdxl": {
            "adapter": {"rank": 32, "alpha": 16},
            "training": {"steps": 1500},
            "optimizer": {"lr_text": 0.0},
        },
        "tiny": _TINY,
    },
    "style": {
        "sd1": {
            "adapter": {"rank": 32, "alpha": 16},
            "prior": {"weight": 0.0},
            "training": {"steps": 3000, "batch": 4},
            "optimizer": {"lr_text": 2e-5},
        },
        "sdxl": {
            "adapter": {"rank": 32, "alpha": 16},
            "prior": {"weight": 0.0},
            "training": {"steps": 3000, "batch": 4},
            "optimizer": {"lr_text": 0.0},
        },
        "tiny": {**_TINY, "prior": {"weight": 0.0}, "adapter": {"rank": 16, "alpha": 16, "targets": "transformer"}},
    },
}
"""Method → family, or `tiny` for the embedded bases of any → tables to lay over the defaults."""

CAPTION_DROPOUT = {"style": 0.1}
"""What a method sets in each of the user's own subsets."""
