"""What other programs make of an adapter file: which of its keys they take, and which they pass over.

Each program finds tensors by names of its own, walked through here without the program: diffusers by prefixes and
suffixes, AUTOMATIC1111 by what stands before the first dot, ComfyUI and Forge by a table of the model's modules in
several spellings. Written from reading their sources; where they disagree with what they say, what they do counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.formats import keys, names
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import listed
from engine.formats.keys import Key
from engine.formats.layers import DoRA

FORGES_PATIENCE = 12
"""Unmatched keys beyond which Forge refuses a file."""


@dataclass(frozen=True)
class Loading:
    """What one program does with a file."""

    program: str
    loads: bool
    """Whether the adapter works there as it should."""
    note: str
    unmatched: tuple[str, ...] = ()
    """Keys that it would pass over."""


def loadings(content: Iterable[str], adapter: Adapter) -> tuple[Loading, ...]:
    """The verdict of every program on a file with these keys, which holds this adapter."""
    content = list(content)
    return tuple(judge(content, adapter) for judge in (_diffusers, _a1111, _forge, _comfyui))


_PLAIN = {"lora_down", "lora_up", "alpha"}
_KINDS = {"hada": "LoHa", "lokr": "LoKr", "diff": "full-rank differences", "lora_mid": "Tucker cores"}
_KOHYA_STARTS = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")


def _diffusers(content: list[str], adapter: Adapter) -> Loading:
    """All or nothing in kohya's naming; a key left over is an error there, and magnitudes are dropped unseen."""
    parsed = {key: keys.parse(key) for key in content}
    if all(key.startswith(_KOHYA_STARTS) for key in content):
        odd = [key for key, found in parsed.items() if found is None or found.role not in {*_PLAIN, "dora_scale"}]
        if odd:
            return Loading("diffusers", False, f"refuses {_kinds(odd)} in kohya's naming", tuple(odd))
        dropped = [key for key in content if key.endswith(".dora_scale")]
        if dropped:
            note = "drops the magnitudes of a DoRA and draws other pictures: convert it to peft"
            return Loading("diffusers", False, note, tuple(dropped))
        if any(key.endswith(".alpha") for key in content) and _muddled(adapter):
            note = "gives layers the alpha of others where alphas differ, and draws other pictures: convert it to peft"
            return Loading("diffusers", False, note)
        return Loading("diffusers", True, "LoRA loads")
    return _verdict("diffusers", content, lambda found: found.stem.startswith(("unet.", "text_encoder")), parsed)


def _muddled(adapter: Adapter) -> bool:
    """Whether diffusers would take another alpha for some layer.

    It gives the commonest alpha of a part to all of its layers, and those that differ back to the layers by name; but
    attentions, and all layers of a text encoder, it doesn't find again by the names that it has for them then.
    """
    for part, modules in adapter.parts.items():
        found = Counter(layer.alpha for layer in modules.values() if isinstance(layer, Factors))
        hidden = {layer.alpha for path, layer in modules.items() if isinstance(layer, Factors)
                  and (part != "unet" or ".to_" in path)}  # fmt: skip
        commonest = {alpha for alpha, count in found.items() if count == max(found.values())}
        if len(found) > 1 and hidden and (len(commonest) > 1 or hidden != commonest):
            return True
    return False


def _a1111(content: list[str], adapter: Adapter) -> Loading:
    """By what stands before a key's first dot, so that names with dots are never found."""
    if _axis(adapter) == 0 and all(key.startswith(_KOHYA_STARTS) for key in content):
        return Loading("AUTOMATIC1111", False, "takes the norms of a DoRA by inputs, and this one's are by outputs: "
                       "other pictures")  # fmt: skip
    return _verdict("AUTOMATIC1111", content, lambda found: found.stem.startswith(_KOHYA_STARTS))


def _comfyui(content: list[str], adapter: Adapter, program: str = "ComfyUI") -> Loading:
    found = _verdict(program, content, _in_comfyui)
    if found.loads and _axis(adapter) == 0:
        note = "DoRA loads, with norms of the bare weights: pictures may differ a little"
        return Loading(program, True, note)
    return found


def _forge(content: list[str], adapter: Adapter) -> Loading:
    """ComfyUI's table, and no patience with files that have much else."""
    found = _comfyui(content, adapter, "Forge")
    if len(found.unmatched) > FORGES_PATIENCE:
        note = f"refuses the file: more than {FORGES_PATIENCE} keys match nothing"
        return Loading("Forge", False, note, found.unmatched)
    return found


def _in_comfyui(found: Key) -> bool:
    """Whether a stem is in ComfyUI's table: attentions of a UNet in diffusers' naming only below a `processor`."""
    if found.stem.startswith((*_KOHYA_STARTS, "diffusion_model.", "text_encoders.")):
        return True
    if found.part != "unet":
        return found.path != "text_projection" and found.stem == names.diffusers_name(found.part, found.path)
    spelled = found.path.replace(".to_", ".processor.to_").removesuffix(".0" if ".to_out" in found.path else "")
    return found.stem in (spelled, f"unet.{spelled}")


def _verdict(
    program: str, content: list[str], takes: Callable[[Key], bool], parsed: dict[str, Key | None] | None = None
) -> Loading:
    parsed = parsed or {key: keys.parse(key) for key in content}
    unmatched = [key for key, found in parsed.items() if found is None or not found.path or not takes(found)]
    if not unmatched:
        return Loading(program, True, "LoRA loads")
    if len(unmatched) == len(content):
        return Loading(program, False, "finds nothing in it", tuple(unmatched))
    note = f"passes over {len(unmatched)} of {len(content)} keys: {listed(unmatched)}"
    return Loading(program, False, note, tuple(unmatched))


def _kinds(odd: Iterable[str]) -> str:
    found = {name for key in odd for mark, name in _KINDS.items() if f".{mark}" in key}
    return " and ".join(sorted(found)) or "other keys"


def _axis(adapter: Adapter) -> int | None:
    """The axis of the adapter's magnitudes; None where it has none."""
    layers = (layer for modules in adapter.parts.values() for layer in modules.values())
    return next((layer.axis for layer in layers if isinstance(layer, DoRA)), None)
