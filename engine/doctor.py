"""`python -m engine.doctor`: what torch sees on this machine, as JSON lines on stdout.

Each line is the whole report so far, so that a reader takes the last one: if an attention back end takes the process
down with it, all that was found before is still there. Nothing else may reach stdout.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any


def reports() -> Iterator[dict[str, Any]]:
    """The report, again after each stage. `stage` names what is about to be tried, "done" when nothing is left."""
    report: dict[str, Any] = {"stage": "driver", "driver": None, "torch": None, "devices": [], "settings": settings()}
    yield report
    report |= {"driver": driver(), "stage": "torch"}
    yield report
    try:
        import torch
    except Exception as error:  # a broken installation raises anything: ImportError, OSError of a library, ValueError …
        yield report | {"stage": "done", "torch": {"error": f"{type(error).__name__}: {error}"}}
        return
    report["torch"] = {
        "error": None,
        "version": torch.__version__,
        "path": os.path.dirname(torch.__file__),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
    }
    report["stage"] = "devices"
    yield report
    report["devices"] = devices()
    for device in report["devices"]:
        report["stage"] = f"attention on {device['device']}"
        yield report
        device["attention"] = attention(device)
    yield report | {"stage": "done"}


def settings() -> list[str]:
    """What is wrong with the workspace's settings."""
    from engine.config.settings import read_settings
    from engine.protocol import workspace

    return [str(problem) for problem in read_settings(workspace())[1]]


def driver() -> dict[str, Any] | None:
    """The NVIDIA driver and its cards, whatever torch can do with them; None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        cards = [
            {
                "name": pynvml.nvmlDeviceGetName(handle),
                "uuid": pynvml.nvmlDeviceGetUUID(handle),
                "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
            }
            for handle in handles
        ]
        return {
            "version": pynvml.nvmlSystemGetDriverVersion(),
            "cuda": _dotted(pynvml.nvmlSystemGetCudaDriverVersion_v2()),
            "cards": cards,
        }
    except pynvml.NVMLError:
        return None


def devices() -> list[dict[str, Any]]:
    """The devices that torch can compute on: its cards, then Apple's, then the processor, which is always there."""
    import torch

    found = [_card(index) for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU", "dtype": "float32"})
    return [*found, {"device": "cpu", "name": torch.backends.cpu.get_cpu_capability(), "dtype": "float32"}]


def attention(device: dict[str, Any]) -> dict[str, str | None]:
    """Attention back end → None if one small call really ran on `device`, forward and backward, else the reason."""
    import torch

    from engine.models.attention import probe

    return probe(torch.device(device["device"]), getattr(torch, device["dtype"]))


def _card(index: int) -> dict[str, Any]:
    import torch

    facts = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "device": f"cuda:{index}",
        "name": facts.name,
        "uuid": str(getattr(facts, "uuid", "")),
        "capability": f"{facts.major}.{facts.minor}",
        "memory_bytes": total,
        "free_bytes": free,
        "dtype": "bfloat16" if facts.major >= 8 else "float16",
    }


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def main() -> None:
    """Print the reports. Whatever a library prints meanwhile goes to stderr, also if it is written in C."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for report in reports():
        print(json.dumps(report, allow_nan=False), file=out, flush=True)


if __name__ == "__main__":
    main()
