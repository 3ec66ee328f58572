"""How long operations on adapters take, and how much memory: files shaped like those of SD 1.5 and SDXL, random inside.

    python -m benchmarks.adapters [--family sd1 sdxl] [--only compose-2 extract …] [--rank 32] [--json]

Each case is one `python -m engine.operate` of its own: seconds from its start to its end (the engine's start, about
two seconds, included), and the peak of its private memory, mapped files not counted. The files are made first, in a
folder that is removed at the end unless `--keep` names one; an SDXL base takes 5 GB of disk, and so does its tuned
twin.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CASES = ("compose-2", "compose-4", "compose-8", "recompress-8", "diff", "resize", "extract")
CONFIGS = {
    "sd1": {"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768},
    "sdxl": {"_class_name": "UNet2DConditionModel", "cross_attention_dim": 2048, "addition_embed_type": "text_time"},
}


@dataclass(frozen=True)
class Result:
    """One case, measured."""

    family: str
    case: str
    seconds: float
    peak_bytes: int
    """Largest private memory of the process."""
    input_bytes: int
    layers: int


def write_adapter_file(path: Path, family: str, rank: int, seed: int) -> None:
    """A random LoRA in fp16 of every attention and text layer of a family."""
    import torch

    from engine.formats import writing
    from engine.formats.adapter import Adapter, Factors
    from engine.formats.names import modules

    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, dict] = {}
    for part, layers in modules(family).items():
        for name, (out, *inside) in layers.items():
            if ".attentions." not in name and part == "unet":
                continue
            ones = (1, 1) if len(inside) == 3 else ()
            down = torch.randn(rank, *inside, generator=generator) * inside[0] ** -0.5
            up = torch.randn(out, rank, *ones, generator=generator) * 0.01
            parts.setdefault(part, {})[name] = Factors(down.half(), up.half(), float(rank))
    writing.write_adapter(path, Adapter(parts, format="kohya", family=family))


def write_models(folder: Path, family: str, rank: int) -> tuple[Path, Path]:
    """A UNet's folder of random fp16 weights, and its twin, tuned: a low-rank change with a tail of noise."""
    import torch
    from safetensors.torch import save_file

    from engine.formats.names import modules

    generator = torch.Generator().manual_seed(1)
    weights: dict[str, dict[str, torch.Tensor]] = {"base": {}, "tuned": {}}
    for name, shape in modules(family)["unet"].items():
        weight = torch.randn(shape, generator=generator) * 0.02
        inside = weight[0].numel()
        change = torch.randn(shape[0], 2 * rank, generator=generator) * 0.9 ** torch.arange(2 * rank)
        change = change @ torch.randn(2 * rank, inside, generator=generator) * inside**-0.5 * 0.005
        weights["base"][f"{name}.weight"] = weight.half()
        weights["tuned"][f"{name}.weight"] = (weight + change.reshape(shape)).half()
    for side, tensors in weights.items():
        unet = folder / f"{family}-{side}" / "unet"
        unet.mkdir(parents=True, exist_ok=True)
        (unet / "config.json").write_text(json.dumps(CONFIGS[family]))
        save_file(tensors, unet / "diffusion_pytorch_model.safetensors")
    return folder / f"{family}-tuned", folder / f"{family}-base"


def requests(folder: Path, family: str, rank: int, cases: list[str]) -> Iterator[tuple[str, str, dict[str, Any], int]]:
    """(case, operation, request, bytes of its input), its files made."""
    adapters = [folder / f"{family}-{number}.safetensors" for number in range(8)]
    needed = max(
        (int(case.split("-")[1]) for case in cases if "-" in case), default=2 if set(cases) - {"extract"} else 0
    )
    for number, path in enumerate(adapters[:needed]):
        if not path.exists():
            write_adapter_file(path, family, rank, number)
    size = lambda paths: sum(file.stat().st_size for file in paths)  # noqa: E731
    for case in cases:
        out = {"out": str(folder / f"{family}-{case}.safetensors"), "force": True}
        if case == "extract":
            tuned, base = write_models(folder, family, rank)
            request = {"tuned": str(tuned), "base": str(base), "rank": rank} | out
            yield case, "extract", request, size(file for side in (tuned, base) for file in side.rglob("*.safetensors"))
        elif case == "diff":
            yield case, "diff", {"first": str(adapters[0]), "second": str(adapters[1])}, size(adapters[:2])
        elif case == "resize":
            yield case, "resize", {"path": str(adapters[0]), "rank": max(1, rank // 4)} | out, size(adapters[:1])
        else:
            count = int(case.split("-")[1])
            uses = [{"path": str(path), "weight": 1 / count} for path in adapters[:count]]
            more = {"rank": rank} if case.startswith("recompress") else {}
            yield case, "compose", {"adapters": uses} | more | out, size(adapters[:count])


class Memory(threading.Thread):
    """Watches the private memory of a process until it ends."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0
        self.start()

    def run(self) -> None:
        path = Path(f"/proc/{self.pid}/statm")
        page = os.sysconf("SC_PAGE_SIZE")
        while True:
            try:
                _, resident, shared, *_ = map(int, path.read_text().split())
            except (OSError, ValueError):
                return
            self.peak = max(self.peak, (resident - shared) * page)
            time.sleep(0.005)


def measure(family: str, case: str, name: str, request: dict[str, Any], input_bytes: int) -> Result:
    """Run one operation. Raises SystemExit with its last words where it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.operate", name],
        cwd=ROOT,
        env=environment,
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
    return Result(family, case, seconds, memory.peak, input_bytes, len(answer["layers"]))


def table(results: list[Result]) -> Table:
    shown = Table("family", "case", "layers", "input", "seconds", "peak memory")
    for result in results:
        shown.add_row(
            result.family,
            result.case,
            str(result.layers),
            f"{result.input_bytes / 1e6:,.0f} MB",
            f"{result.seconds:.1f}",
            f"{result.peak_bytes / 1e6:,.0f} MB",
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
    folder = options.keep or Path(tempfile.mkdtemp(prefix="adapters-"))
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    try:
        for family in options.family:
            for case, name, request, size in requests(folder, family, options.rank, options.only):
                results.append(measure(family, case, name, request, size))
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
