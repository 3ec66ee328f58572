"""What a user can ask for: the one schema behind files, forms, command line and documentation.

Every field here is honoured by the engine or refused by a rule below; a test walks the schema and fails on a field
that nothing reads. Help texts are clauses without a full stop, shown beside ranges and units. Light: no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Auto = Literal["auto"]


def _m(text: str, unit: str = "", advanced: bool = False, expected: str = "", **limits) -> Meta:
    """Help and limits of one field. `advanced` fields are folded away in forms; `expected` puts a pattern in words."""
    return Meta(description=text, extra={"unit": unit, "advanced": advanced, "expected": expected}, **limits)


_END = r"$(?!\n)"
"""The end of a pattern: `$` alone lets a last newline pass."""


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a config file."""


EMBEDDED = ("tiny", "tiny-xl", "tiny-inpaint")
"""The bases that come with the program."""


class Model(Section):
    base: Annotated[
        str,
        _m(
            f"base model: {', '.join(f'`{name}`' for name in EMBEDDED)}, a diffusers folder, a hub id, a .safetensors "
            "or .ckpt file",
            min_length=1,
        ),
    ]
    vae: Annotated[str, _m("folder or file of a VAE that replaces the base's own; empty: its own", advanced=True)] = ""
    prediction: Annotated[
        Literal["auto", "epsilon", "v"], _m("what the base predicts; auto: by its own marks", advanced=True)
    ] = "auto"
    clip_skip: Annotated[
        int, _m("text layer: 1 is the one that the base was made with, 2 the one before it", "", True, ge=1, le=12)
    ] = 1


class TargetSet(Section):
    """Rank and alpha of their own for some of the adapted modules. The last set that matches a module decides."""

    targets: Annotated[
        str, _m("a target set, `text_encoder`, or a pattern over names such as `unet.mid_block.*`", min_length=1)
    ]
    rank: Annotated[int, _m("rank of these modules; 0: leave them alone", ge=0, le=1024)]
    alpha: Annotated[float, _m("alpha of these modules", ge=0, le=4096)]


class Adapter(Section):
    rank: Annotated[
        int, _m("width of the low-rank bottleneck: more holds more, and overfits sooner", ge=1, le=1024)
    ] = 16
    alpha: Annotated[
        float, _m("the update is scaled by alpha / rank; the learning rate depends on it", gt=0, le=4096)
    ] = 16
    targets: Annotated[
        str,
        _m(
            "modules of the denoiser: attention, transformer (and feed-forward), locon (and convolutions), a pattern",
            min_length=1,
        ),
    ] = "transformer"
    dropout: Annotated[float, _m("share of bottleneck channels zeroed in training", advanced=True, ge=0, lt=1)] = 0.0
    sets: Annotated[list[TargetSet], _m("target sets with a rank and alpha of their own", advanced=True)] = []


class Subset(Section):
    path: Annotated[str, _m("folder of images, or of folders named like `10_ohwx cat`", min_length=1)]
    repeats: Annotated[int, _m("times that each image is seen in an epoch", ge=1, le=10_000)] = 1
    class_tokens: Annotated[str, _m("caption of images that have none, such as `ohwx cat`")] = ""
    caption_prefix: Annotated[str, _m("put before every caption")] = ""
    caption_suffix: Annotated[str, _m("put behind every caption")] = ""
    is_reg: Annotated[bool, _m("these are class (regularization) images, for prior preservation")] = False
    flip: Annotated[bool, _m("mirror at random; not for faces, text or anything with a side")] = False
    crops: Annotated[int, _m("1: the centre; more: crops drawn once, one of them taken each time", ge=1, le=16)] = 1
    caption_dropout: Annotated[float, _m("share of draws with an empty caption", ge=0, le=1)] = 0.0


class Dataset(Section):
    subsets: Annotated[list[Subset], _m("folders of images, with how to use each", min_length=1)]
    resolution: Annotated[
        Annotated[int, Meta(ge=16, le=4096)] | Auto,
        _m("side of the training square, or of a bucket's area; auto: the base's", "px"),
    ] = "auto"
    buckets: Annotated[bool, _m("keep aspect ratios, in shapes of equal area; false: squares")] = True
    max_upscale: Annotated[
        float, _m("images that had to be enlarged by more are too small", "times", True, ge=1, le=16)
    ] = 2.0
    background: Annotated[
        str,
        _m(
            "colour put behind transparent images",
            "#rrggbb",
            expected="a colour such as #ffffff",
            pattern="^#[0-9a-fA-F]{6}" + _END,
        ),
    ] = "#ffffff"
    on_problem: Annotated[Literal["stop", "skip"], _m("what to do when images can't be used")] = "stop"
    hold_out: Annotated[
        float,
        _m("share of images kept back to measure the loss on; none of fewer than 20", advanced=True, ge=0, le=0.5),
    ] = 0.1


class Prior(Section):
    weight: Annotated[float, _m("weight of the loss on class images; 0: no prior preservation", ge=0, le=10)] = 1.0
    images: Annotated[int, _m("class images to draw when no subset brings them", "images", ge=1, le=10_000)] = 200
    prompt: Annotated[
        str, _m("what the class images show, such as `a photo of a cat`; read when no subset brings them")
    ] = ""
    steps: Annotated[int, _m("sampler steps of a class image", "steps", True, ge=1, le=1000)] = 25
    guidance_scale: Annotated[float, _m("guidance of a class image", advanced=True, ge=1, le=50)] = 6.0


class Training(Section):
    steps: Annotated[int, _m("length of the run; 0: given in epochs", "steps", ge=0, le=10_000_000)] = 1200
    epochs: Annotated[int, _m("length in passes over the images; 0: given in steps", "epochs", ge=0, le=100_000)] = 0
    batch: Annotated[
        int, _m("instance images in a forward pass; class images come on top", "images", ge=1, le=1024)
    ] = 2
    accumulate: Annotated[int, _m("forward passes whose gradients are averaged into one step", ge=1, le=1024)] = 1
    seed: Annotated[int, _m("decides every draw of the run", ge=0, le=2**63 - 1)] = 42
    ema: Annotated[
        float, _m("decay of averaged weights, which are then saved and sampled; 0: off", advanced=True, ge=0, lt=1)
    ] = 0.0
    validate_every: Annotated[
        Annotated[int, Meta(ge=0)] | Auto,
        _m("steps between fixed-noise losses; auto: 20 in a run; 0: never", "steps", True),
    ] = "auto"


class Optimizer(Section):
    """AdamW (Loshchilov & Hutter 2019) on the adapter's factors."""

    lr_unet: Annotated[float, _m("learning rate of the denoiser's factors; 0: not adapted", ge=0, le=10)] = 1e-4
    lr_text: Annotated[float, _m("learning rate of the text encoder's factors; 0: not adapted", ge=0, le=10)] = 5e-5
    weight_decay: Annotated[float, _m("decoupled weight decay", ge=0, le=10)] = 0.01
    beta1: Annotated[float, _m("decay of the first moment", advanced=True, ge=0, lt=1)] = 0.9
    beta2: Annotated[float, _m("decay of the second moment", advanced=True, ge=0, lt=1)] = 0.999
    eps: Annotated[float, _m("added to the root of the second moment", advanced=True, gt=0, le=1)] = 1e-8
    clip_norm: Annotated[float, _m("largest norm of the whole gradient; 0: not clipped", ge=0)] = 1.0


class Schedule(Section):
    kind: Annotated[Literal["constant", "linear", "cosine"], _m("course of the rates after the warm-up")] = "cosine"
    warmup: Annotated[
        Annotated[int, Meta(ge=0)] | Auto, _m("steps of linear rise; auto: 5 % of the run, at most 100", "steps")
    ] = "auto"


class Loss(Section):
    snr_gamma: Annotated[float, _m("min-SNR weighting (Hang et al. 2023); 0: off", ge=0, le=100)] = 5.0
    noise_offset: Annotated[float, _m("shared offset per channel added to the noise", advanced=True, ge=0, le=1)] = 0.0


class Sampling(Section):
    prompts: Annotated[
        list[str], _m("pictures to draw on the way, one a line; kohya's --n --w --h --d --l --s are read")
    ] = []
    every: Annotated[
        Annotated[int, Meta(ge=0)] | Auto, _m("steps between pictures; auto: 4 times a run; 0: at the ends", "steps")
    ] = "auto"
    epochs: Annotated[int, _m("epochs between pictures, in place of steps; 0: not used", "epochs", True, ge=0)] = 0
    negative: Annotated[str, _m("negative prompt of pictures that have none of their own")] = ""
    steps: Annotated[int, _m("sampler steps of a picture", "steps", ge=1, le=1000)] = 25
    guidance_scale: Annotated[float, _m("classifier-free guidance of a picture; 1: none", ge=1, le=50)] = 7.0
    seed: Annotated[int, _m("seed of a picture's first noise", ge=0, le=2**63 - 1)] = 42


class Saving(Section):
    every: Annotated[
        Annotated[int, Meta(ge=0)] | Auto,
        _m("steps between adapters, all kept; auto: 10 a run; 0: at the end", "steps"),
    ] = "auto"
    states: Annotated[int, _m("training states kept, to resume from", advanced=True, ge=1, le=100)] = 2
    precision: Annotated[Literal["fp16", "bf16", "fp32"], _m("number format of saved adapters")] = "fp16"


class Runtime(Section):
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        _m("number format of the base while training; auto: bf16 on a GPU, else fp32"),
    ] = "auto"
    attention: Annotated[
        Literal["auto", "sdpa", "xformers", "plain"],
        _m("attention kernel; auto: the best that really runs", advanced=True),
    ] = "auto"
    device: Annotated[
        str,
        _m(
            "`auto`, `cpu`, `cuda` or `cuda:1`",
            expected="auto, cpu, cuda or cuda:N",
            pattern="^(auto|cpu|cuda(:[0-9]+)?)" + _END,
        ),
    ] = "auto"
    threads: Annotated[int, _m("CPU threads of torch; 0: as many as it likes", advanced=True, ge=0, le=1024)] = 0
    gradient_checkpointing: Annotated[
        bool, _m("recompute activations in the backward pass: less memory, 30 % slower")
    ] = False


_NAME = "^[^/\\\\\\x00-\\x1f.][^/\\\\\\x00-\\x1f]*" + _END
_PLAIN = "text of 1 to 80 characters, none of them a slash or control character, not starting with a dot"


class Train(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="train", tag_field="kind"):
    """A training run."""

    name: Annotated[str, _m("name of the run and of its file", expected=_PLAIN, pattern=_NAME, max_length=80)] = (
        "adapter"
    )
    project: Annotated[str, _m("project that the run belongs to", expected=_PLAIN, pattern=_NAME, max_length=80)] = (
        "default"
    )
    model: Model
    adapter: Adapter = Adapter()
    dataset: Dataset
    prior: Prior = Prior()
    training: Training = Training()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    sampling: Sampling = Sampling()
    saving: Saving = Saving()
    runtime: Runtime = Runtime()


class AdapterUse(Section):
    path: Annotated[str, _m("adapter file, or a blend (.toml)", min_length=1)]
    weight: Annotated[float, _m("strength; 0 is the base, 1 is as trained", ge=-10, le=10)] = 1.0


class Picture(Section):
    prompt: Annotated[str, _m("what to draw")]
    out: Annotated[str, _m("PNG file; with several pictures, numbered beside it", min_length=1)]
    negative: Annotated[str, _m("what to keep away from")] = ""
    seed: Annotated[int, _m("seed of the first noise; each further picture takes the next", ge=0, le=2**63 - 1)] = 42
    count: Annotated[int, _m("pictures to draw", "images", ge=1, le=10_000)] = 1
    steps: Annotated[int, _m("sampler steps", "steps", ge=1, le=1000)] = 25
    guidance_scale: Annotated[float, _m("classifier-free guidance; 1: none", ge=1, le=50)] = 7.0
    width: Annotated[Annotated[int, Meta(ge=16, le=8192)] | Auto, _m("auto: the base's", "px")] = "auto"
    height: Annotated[Annotated[int, Meta(ge=16, le=8192)] | Auto, _m("auto: the base's", "px")] = "auto"


class Generate(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="generate", tag_field="kind"):
    """Pictures from a base and adapters."""

    name: Annotated[str, _m("name of the job", expected=_PLAIN, pattern=_NAME, max_length=80)] = "generate"
    project: Annotated[str, _m("project that the job belongs to", expected=_PLAIN, pattern=_NAME, max_length=80)] = (
        "default"
    )
    model: Model
    adapters: Annotated[list[AdapterUse], _m("adapters and their strengths")] = []
    picture: Picture
    runtime: Runtime = Runtime()


class Operate(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="operate", tag_field="kind"):
    """An operation on adapter and checkpoint files, as a job."""

    name: Annotated[str, _m("name of the job", expected=_PLAIN, pattern=_NAME, max_length=80)] = "operate"
    project: Annotated[str, _m("project that the job belongs to", expected=_PLAIN, pattern=_NAME, max_length=80)] = (
        "default"
    )
    operation: Annotated[str, _m("what to do, such as `compose`, `extract` or `merge`", min_length=1)]
    request: Annotated[dict[str, Any], _m("fields of the operation, as `loratui adapter` has its options")]


Job = Train | Generate | Operate
KINDS: dict[str, type[Job]] = {"train": Train, "generate": Generate, "operate": Operate}
