"""How long a library of adapter files takes to be listed from its headers.

    python -m benchmarks.library [--files 5000] [--modules 264] [--json]

The files have real headers, of kohya's naming with three tensors a module, and holes for tensors. No two have the same
metadata; ranks, precisions and numbers of modules differ as in a library that has grown, in 60 ways. A host of its own
is asked as the app asks it: for the first page, for every page, for words among all of them, and again.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import tempfile
import time
from pathlib import Path

from engine.protocol.browse import AdaptersRef
from loratui.client import Host, connect

RANKS, DTYPES, SHARES = (4, 8, 16, 32, 64, 128), {"F16": 2, "F32": 4}, (1.0, 0.9, 0.75, 0.6, 0.5)
"""What files differ in: their ranks, their precisions with bytes, and the share of the modules that they hold."""
PAGE, ALL = 200, 1000


def header(number: int, modules: int) -> tuple[bytes, int]:
    """The header of one of the files, and the bytes of its tensors."""
    rank, (dtype, width), share = RANKS[number % 6], list(DTYPES.items())[number // 6 % 2], SHARES[number // 12 % 5]
    said = {"ss_network_dim": str(rank), "ss_base_model_version": "sd_v1", "ss_output_name": f"adapter-{number}"}
    table: dict[str, dict] = {"__metadata__": said}
    end = 0
    for module in range(round(modules * share)):
        block, layer = divmod(module, 8)
        name = f"lora_unet_down_blocks_{block}_attentions_0_transformer_blocks_{layer}_attn1_to_q"
        for key, shape in (("alpha", []), ("lora_down.weight", [rank, 320]), ("lora_up.weight", [320, rank])):
            size = width
            for side in shape:
                size *= side
            table[f"{name}.{key}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
    content = json.dumps(table).encode()
    return struct.pack("<Q", len(content)) + content, end


def write(folder: Path, files: int, modules: int) -> None:
    for number in range(files):
        content, end = header(number, modules)
        path = folder / f"{number // 500:02}" / f"adapter-{number:05}.safetensors"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.truncate(len(content) + end)


def ask(host: Host, **params) -> tuple[float, int]:
    """Seconds until the reply, and how many match."""
    began = time.perf_counter()
    found = host.call("adapters.list", AdaptersRef(**params))
    return time.perf_counter() - began, found.total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.library", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--modules", type=int, default=264)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loratui-library-") as place:
        os.environ["LORATUI_WORKSPACE"] = f"{place}/workspace"
        folder = Path(place) / "library"
        folder.mkdir()
        write(folder, options.files, options.modules)
        folders = [str(folder)]
        rows = {}
        with connect() as host:
            rows["first page of 200"], total = ask(host, folders=folders, limit=PAGE)
            assert total == options.files
            offsets = range(0, options.files, ALL)
            rows["every page, 1,000 at a time"] = sum(
                ask(host, folders=folders, offset=offset, limit=ALL)[0] for offset in offsets
            )
            rows["the first page once more"], _ = ask(host, folders=folders, limit=PAGE)
            rows["words among all"], _ = ask(host, folders=folders, limit=PAGE, find="adapter-04999")
            rows["other words"], _ = ask(host, folders=folders, limit=PAGE, find="adapter-00007")
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"| {options.files:,} files of {options.modules} modules | seconds |\n|---|---|")
        print("\n".join(f"| {what} | {seconds:.2f} |" for what, seconds in rows.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
