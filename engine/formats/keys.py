"""What the keys of adapter files mean: which module of which part, and which of its tensors. No torch.

A key is a stem, which names a module, and a suffix, which names a tensor. Programs differ in both: kohya's flatten the
path of a module with underscores (`lora_unet_down_blocks_0_…`), the others keep its dots; SDXL's UNet goes by the names
that its first program had (`input_blocks.4.1.…`). Everything comes out as part, module path in diffusers and role.
Before adding a spelling: a stem must lead to one path or to none, since what is misread is another adapter.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

SGM_LAYERS = 2
"""Resnets of a level on the way down in every UNet whose blocks are numbered through: SD1, SD2 and SDXL."""


class Key(NamedTuple):
    """One key, understood."""

    spelling: str
    """kohya, peft, diffusers (its older forms) or comfyui."""
    part: str
    """unet, text_encoder or text_encoder_2; empty where the stem names no module known here."""
    path: str
    """Of the module, as diffusers has it; empty likewise."""
    role: str
    """The tensor, as LyCORIS names it: lora_down, lora_up, lora_mid, alpha, dora_scale, hada_…, lokr_…, diff."""
    stem: str


# ---- suffixes

LYCORIS = {
    ".lora_mid.weight": "lora_mid", ".dora_scale": "dora_scale", ".diff": "diff",
    **{f".hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_{name}": f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
}  # fmt: skip
"""Suffixes of what is no plain pair of factors, in kohya's naming → role."""
KOHYA = {".lora_down.weight": "lora_down", ".lora_up.weight": "lora_up", ".alpha": "alpha", **LYCORIS}
"""Suffixes in kohya's naming → role."""

_PEFT = re.compile(r"\.lora_(A|B|magnitude_vector)(?:\.(?!weight$)\w+)?(?:\.weight)?$")
_PEFT_ROLES = {"A": "lora_down", "B": "lora_up", "magnitude_vector": "magnitude"}
_COMMON = {".lora_A.weight": "lora_down", ".lora_B.weight": "lora_up"}
"""What nearly all of PEFT's keys end in."""
_OLD = re.compile(r"(?:\.lora|\.lora_linear_layer|_lora)\.(down|up)\.weight$")


def split(key: str) -> tuple[str, str, str] | None:
    """Stem, role and the spelling that the suffix is of; None for no suffix known here."""
    last = key.rfind(".")
    at = key.rfind(".", 0, last) if key.endswith(".weight") else last
    suffix = key[at:] if at >= 0 else ""
    if role := KOHYA.get(suffix):
        return key[:at], role, "kohya"
    if role := _COMMON.get(suffix):
        return key[:at], role, "peft"
    if found := _PEFT.search(key):
        return key[: found.start()], _PEFT_ROLES[found[1]], "peft"
    if found := _OLD.search(key):
        return key[: found.start()], f"lora_{found[1]}", "diffusers"
    return None


def parse(key: str) -> Key | None:
    """What a key means; None where its suffix is none of an adapter's."""
    if (found := split(key)) is None:
        return None
    stem, role, spelling = found
    own, part, path = _module(stem)
    return Key(own or spelling, part, path, role, stem)


# ---- stems

_FLAT = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lycoris_": "",
}
"""Prefix of a flattened stem → part; empty where the path has to tell."""
_DOTTED = {
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "diffusion_model.": "unet",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_h.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "": "",
}
COMFYUI = ("diffusion_model.", "text_encoders.")
_PEFT_MODEL = "base_model.model."
"""What PEFT's own files have in front, alone or behind the part."""

_ATTENTION = r"transformer_blocks\.\d+\.(attn[12]\.to_([qkv]|out\.0)|ff\.net\.(0\.proj|2))"
_UNET = re.compile(
    r"((down|up)_blocks\.\d+|mid_block)\."
    rf"(attentions\.\d+\.(proj_in|proj_out|{_ATTENTION})"
    r"|resnets\.\d+\.(conv1|conv2|time_emb_proj|conv_shortcut)|(down|up)samplers\.0\.conv)"
    r"|conv_in|conv_out|(time|add)_embedding\.linear_[12]"
)
_TEXT = re.compile(r"encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])|text_projection")
_WORDS = re.compile(
    r"(?:down_blocks|up_blocks|mid_block|transformer_blocks|input_blocks|middle_block|output_blocks|proj_in|proj_out"
    r"|to_q|to_k|to_v|to_out|time_emb_proj|conv_shortcut|conv_in|conv_out|time_embedding|add_embedding|linear_[12]"
    r"|in_layers|out_layers|emb_layers|skip_connection|time_embed|label_emb|text_model|self_attn|q_proj|k_proj|v_proj"
    r"|out_proj|text_projection|[^_]+)(?=_|$)"
)
"""The words of module paths that have underscores of their own, before all others."""


@lru_cache(maxsize=1 << 14)
def _module(stem: str) -> tuple[str, str, str]:
    """A spelling that the stem gives away, or nothing; part and module path, both empty where it leads nowhere."""
    flat = next((prefix for prefix in _FLAT if stem.startswith(prefix)), None)
    if flat is not None:
        path = ".".join(_WORDS.findall(stem.removeprefix(flat)))
        return "", *_placed(_FLAT[flat], path)
    stem = stem.removeprefix(_PEFT_MODEL)
    prefix = next(prefix for prefix in _DOTTED if stem.startswith(prefix))
    path = stem.removeprefix(prefix).removeprefix(_PEFT_MODEL)
    old = ".processor." in path or (re.search(r"\.to_(q|k|v|out)$", path) is not None and "self_attn" in path)
    spelling = "comfyui" if prefix.startswith(COMFYUI) else "diffusers" if old else ""
    return spelling, *_placed(_DOTTED[prefix], _modern(path))


def _modern(path: str) -> str:
    """A path as it is now, where it is spelled as older versions of diffusers had it.

    They hung the factors of an attention below its processor, as `to_out` too, and called those of a text encoder's
    attention like those of a UNet's.
    """
    path = path.replace(".processor.", ".")
    if "self_attn" in path:
        return re.sub(r"\.to_(q|k|v|out)$", r".\1_proj", path)
    return re.sub(r"\.to_out$", ".to_out.0", path)


def _placed(part: str, path: str) -> tuple[str, str]:
    """Part and path, once they are known to name a module."""
    if part != "unet":
        text = path.removeprefix("text_model.")
        if _TEXT.fullmatch(text):
            return part or "text_encoder", text
        if part:
            return "", ""
    path = from_sgm(path)
    return ("unet", path) if _UNET.fullmatch(path) else ("", "")


# ---- the names that UNets had before diffusers

_RESNET = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_NUMBERED = re.compile(r"(input_blocks|output_blocks)\.(\d{1,3})\.(\d)\.(.+)|middle_block\.([012])\.(.+)")


def from_sgm(path: str) -> str:
    """The path in diffusers of a UNet's module that is named as in SDXL's first program; other paths as they are."""
    if path in _ENDS:
        return _ENDS[path]
    found = _NUMBERED.fullmatch(path)
    if found is None:
        return path
    side, number, slot, rest, middle, middle_rest = found.groups()
    if side is None:
        if middle == "1":
            return f"mid_block.attentions.0.{middle_rest}"
        return f"mid_block.resnets.{int(middle) // 2}.{_RESNET.get(middle_rest, middle_rest)}"
    down = side == "input_blocks"
    if down and number == "0":
        return path
    level, index = divmod(int(number) - down, SGM_LAYERS + 1)
    block = f"{'down' if down else 'up'}_blocks.{level}"
    if rest in ("op", "conv"):
        return f"{block}.{'down' if down else 'up'}samplers.0.conv" if (rest == "op") == down else path
    if slot == "0":
        return f"{block}.resnets.{index}.{_RESNET.get(rest, rest)}"
    return f"{block}.attentions.{index}.{rest}" if slot == "1" else path


def to_sgm(path: str, attends: frozenset[int]) -> str:
    """The other way round. attends: levels of the way up that have attentions, before which their upsampler comes."""
    for sgm, ends in _ENDS.items():
        if ends == path:
            return sgm
    block, _, rest = path.partition(".")
    if block == "mid_block":
        kind, index, rest = rest.split(".", 2)
        return (
            f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * int(index)}.{_sgm_resnet(rest)}"
        )
    level, kind, index, rest = rest.split(".", 3)
    down = block == "down_blocks"
    side, first = ("input_blocks", 1) if down else ("output_blocks", 0)
    number = (SGM_LAYERS + 1) * int(level) + first
    if kind == "downsamplers":
        return f"{side}.{number + SGM_LAYERS}.0.op"
    if kind == "upsamplers":
        return f"{side}.{number + SGM_LAYERS}.{2 if int(level) in attends else 1}.conv"
    if kind == "resnets":
        return f"{side}.{number + int(index)}.0.{_sgm_resnet(rest)}"
    return f"{side}.{number + int(index)}.1.{rest}"


def _sgm_resnet(rest: str) -> str:
    return next(sgm for sgm, name in _RESNET.items() if name == rest)
