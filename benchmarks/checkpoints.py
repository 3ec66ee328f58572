"""How long it takes to convert whole models and to merge adapters into them, and how much memory.

    python -m benchmarks.checkpoints [--family sd1 sdxl] [--only to-folder to-file merge-1 merge-4] [--json]

The models have the structure of SD 1.5 and SDXL in fp16, random inside; the adapters are of rank 32 and change every
attention and text layer. Each case is one `python -m engine.operate` of its own, measured as in `benchmarks.adapters`.
An SDXL takes 7 GB of disk and every case writes as much again; everything is removed at the end unless `--keep` names a
folder. Copying the file is measured too: it is what a disk needs for the bytes alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.adapters import ROOT, Memory, write_adapter_file

CASES = ("copy", "to-folder", "to-file", "merge-1", "merge-4")

_UNET = {"in_channels": 4, "out_channels": 4, "layers_per_block": 2}
_XL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
}
_CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_BIG = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {"unet": _UNET | {"cross_attention_dim": 768}, "vae": _VAE, "text_encoder": _CLIP},
    "sdxl": {
        "unet": _UNET | _XL,
        "vae": _VAE,
        "text_encoder": _CLIP,
        "text_encoder_2": _BIG | {"projection_dim": 1280},
    },
}


@dataclass(frozen=True)
class Result:
    """One case, measured."""

    family: str
    case: str
    seconds: float
    peak_bytes: int
    """Largest private memory of the process; none is measured of a copy."""
    file_bytes: int
    """Of the model."""
    tensors: int
    """Written, or changed by a merge."""


def write_model(path: Path, family: str) -> None:
    """A single file with the structure of a family, its numbers from one random pool."""
    import torch

    from engine.formats.container import TensorInfo
    from engine.formats.streams import LazyTensor, write_safetensors
    from engine.models.build import tensors_of
    from engine.models.checkpoints.layout import LAYOUTS

    pool = (torch.randn(1 << 26, generator=torch.Generator().manual_seed(1)) * 0.02).half()
    tensors = {}
    for part, place in LAYOUTS[family].places.items():
        config = CONFIGS[family][part]
        header = {name: TensorInfo("F16", shape) for name, shape in tensors_of(part, config).items()}
        full = {"up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3]} | config
        for key, recipe in place.kind.write(header, full).items():
            shape = recipe.info.shape
            count = recipe.info.size // 2
            make = lambda count=count, shape=shape: pool[:count].view(shape)  # noqa: E731
            tensors[place.prefix + key] = LazyTensor(recipe.info, make)
    write_safetensors(path, tensors, {"modelspec.title": f"random {family}"})


def measure(family: str, case: str, folder: Path, rank: int) -> Result:
    """Do one case on the files in `folder`, which are made if they are not there."""
    model, out = folder / f"{family}.safetensors", folder / f"{family}-out.safetensors"
    directory = folder / f"{family}-folder"
    if not model.exists():
        write_model(model, family)
    size = model.stat().st_size
    if case == "copy":
        started = time.monotonic()
        with model.open("rb") as source, out.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 24)
            copy.flush()
            os.fsync(copy.fileno())
        return Result(family, case, time.monotonic() - started, 0, size, 0)
    if case == "to-file" and not directory.exists():
        _operate(family, "to-folder", "convert_checkpoint", {"path": str(model), "out": str(directory)}, size)
    if case.startswith("merge"):
        uses = [folder / f"{family}-{number}.safetensors" for number in range(int(case[-1]))]
        for number, path in enumerate(uses):
            if not path.exists():
                write_adapter_file(path, family, rank, number)
        adapters = [{"path": str(path), "weight": 1 / len(uses)} for path in uses]
        request = {"base": str(model), "adapters": adapters, "out": str(out), "force": True}
        return _operate(family, case, "merge", request, size)
    source, target = (model, directory) if case == "to-folder" else (directory, out)
    request = {"path": str(source), "out": str(target), "force": True}
    return _operate(family, case, "convert_checkpoint", request, size)


def _operate(family: str, case: str, name: str, request: dict[str, Any], size: int) -> Result:
    """Run one operation. Raises SystemExit with its last words where it fails."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.operate", name],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    memory = Memory(process.pid)
    said, _ = process.communicate(json.dumps(request).encode())
    seconds = time.monotonic() - started
    memory.join()
    events = [json.loads(line) for line in said.splitlines()]
    if process.returncode:
        raise SystemExit(f"{family} {case}: {events[-1]}")
    answer = next(event["result"] for event in events if event["event"] == "answer")
    return Result(family, case, seconds, memory.peak, size, sum(answer["tensors"].values()))


def table(results: list[Result]) -> Table:
    shown = Table("family", "case", "tensors", "model", "seconds", "peak memory")
    for result in results:
        shown.add_row(
            result.family,
            result.case,
            str(result.tensors or ""),
            f"{result.file_bytes / 1e9:.1f} GB",
            f"{result.seconds:.1f}",
            f"{result.peak_bytes / 1e6:,.0f} MB" if result.peak_bytes else "",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", choices=tuple(CONFIGS), default=["sd1", "sdxl"])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--keep", type=Path, help="folder for the files, which stay there")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="checkpoints-"))
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    try:
        for family in options.family:
            for case in options.only:
                results.append(measure(family, case, folder, options.rank))
                print(f"{family} {case}: {results[-1].seconds:.1f} s", file=sys.stderr)
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    if options.json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        Console().print(table(results))


if __name__ == "__main__":
    main()
