"""A model as a diffusers folder, which loads by `from_pretrained` without a network.

Configs are those that shapes and marks imply, the tokenizers CLIP's own; text encoders keep the `text_model.` in their
names, which transformers of all versions read. The metadata of the model goes into the UNet's file, where `opening`
finds it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.errors import Problem, UserError
from engine.formats.streams import LazyTensor, Wrote, write_safetensors
from engine.models.checkpoints.casting import Casting
from engine.models.checkpoints.opening import Checkpoint
from engine.models.tokenizer import VOCABULARY, write_clip_tokenizer

CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
}
_WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
_TEXT = {
    "model_type": "clip_text_model",
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 2,  # as the published folders have it: read as "the highest id", which the end mark is
    "layer_norm_eps": 1e-05,
    "pad_token_id": 1,
}

Tensors = dict[str, dict[str, LazyTensor]]
"""Part → name in its file → tensor."""


def plan_folder(checkpoint: Checkpoint, casting: Casting) -> Tensors:
    """The tensors of the folder that a model makes. Raises UserError where its tokenizer can't be CLIP's."""
    for part, held in checkpoint.parts.items():
        words = held.config.get("vocab_size", VOCABULARY)
        if words < VOCABULARY:
            raise UserError(
                Problem(
                    where=str(checkpoint.path),
                    field=part,
                    expected=f"CLIP's vocabulary of {VOCABULARY} tokens",
                    found=f"one of {words}",
                    advice="a single file brings no tokenizer, and none is known for this one",
                )
            )
    plan: Tensors = {}
    for part, held in checkpoint.parts.items():
        read = held.reader()
        plan[part] = {
            _spelled(part, name): casting.lazy(f"{part}.{name}", info, lambda read=read, name=name: read(name))
            for name, info in held.header.items()
        }
    return plan


def _spelled(part: str, name: str) -> str:
    inside = part.startswith("text_encoder") and not name.startswith("text_projection")
    return f"text_model.{name}" if inside else name


def write_folder(folder: Path, checkpoint: Checkpoint, tensors: Tensors, wrote: Wrote) -> None:
    """Write the files into an empty folder."""
    layout = checkpoint.layout
    index: dict[str, Any] = {"_class_name": _pipeline(checkpoint), "_diffusers_version": version("diffusers")}
    for part, content in tensors.items():
        library, name = CLASSES[part]
        index[part] = [library, name]
        (folder / part).mkdir()
        _write_json(folder / part / "config.json", _config(part, checkpoint.parts[part].config))
        metadata = (checkpoint.metadata if part == "unet" else {}) | {"format": "pt"}
        write_safetensors(folder / part / _WEIGHTS[library], content, metadata, wrote)
    for tokenizer, pad in layout.pads.items():
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
        (folder / tokenizer).mkdir()
        encoder = checkpoint.parts[tokenizer.replace("tokenizer", "text_encoder")]
        write_clip_tokenizer(folder / tokenizer, pad, encoder.config["max_position_embeddings"])
    index["scheduler"] = ["diffusers", checkpoint.scheduler["_class_name"]]
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", checkpoint.scheduler)
    unused = ["feature_extractor", "image_encoder", *([] if "text_encoder_2" in tensors else ["safety_checker"])]
    index |= {name: [None, None] for name in unused}
    special = "force_zeros_for_empty_prompt" if "text_encoder_2" in tensors else "requires_safety_checker"
    index[special] = special.startswith("force")
    _write_json(folder / "model_index.json", dict(sorted(index.items())))


def _pipeline(checkpoint: Checkpoint) -> str:
    inpaints = checkpoint.parts["unet"].config["in_channels"] == 9
    return checkpoint.layout.pipeline.replace("Pipeline", "InpaintPipeline") if inpaints else checkpoint.layout.pipeline


def _config(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    library, name = CLASSES[part]
    if library == "diffusers":
        return {"_class_name": name, "_diffusers_version": version("diffusers"), **config}
    return {"architectures": [name], **_TEXT, **config}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
