"""Low-rank adapters: layers, injection, algebra, and the flat buffer that training works on. Knows no trainer.

`apply` puts an adapter on a diffusers pipeline; see `engine.lora.pipeline`.
"""

from engine.lora.pipeline import apply

__all__ = ["apply"]
