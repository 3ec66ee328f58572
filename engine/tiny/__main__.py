"""Makes the embedded bases from nothing but emoji drawings.

    python -m engine.tiny --emoji emoji-datasource-twitter-16.0.0.tgz --noto emoji-datasource-google-16.0.0.tgz \\
        --work tiny-work

Cut off, it goes on where it was. The folders `base`, `scorer`, `inpaint` and `xl` of the working folder are what ships
in engine/tiny; `preview-*.png` show how the drawing comes along.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from engine.errors import UserError


def main() -> int:
    from engine.worker import ALLOCATOR

    if any(os.environ.get(name) is None for name in ALLOCATOR):
        os.execve(sys.executable, [sys.executable, "-m", "engine.tiny", *sys.argv[1:]], {**ALLOCATOR, **os.environ})
    parser = argparse.ArgumentParser(prog="python -m engine.tiny", description=__doc__.partition("\n")[0])
    parser.add_argument("--emoji", type=Path, required=True, help="folder or .tgz of emoji-datasource-twitter 16.0.0")
    parser.add_argument("--noto", type=Path, help="the same of emoji-datasource-google; only the autoencoder sees it")
    parser.add_argument("--work", type=Path, required=True, help="folder for states, previews and results")
    parser.add_argument("--device", default="", help="cuda or cpu; the first GPU where there is one")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual steps: 0.01 shows that all stages run")
    chosen = parser.parse_args()
    if not 0 < chosen.share <= 10:
        parser.error(f"--share: expected more than 0 and at most 10, found {chosen.share}")

    from engine.tiny.drawings import Emoji

    try:
        emoji = Emoji.read(chosen.emoji)
        noto = Emoji.read(chosen.noto) if chosen.noto else None
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    import torch

    if not hasattr(torch.optim, "Muon"):
        parser.error(f"expected torch 2.9 or newer, which has Muon; found {torch.__version__}")
    from engine.tiny.recipe.stages import Recipe

    device = torch.device(chosen.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    chosen.work.mkdir(parents=True, exist_ok=True)
    Recipe(emoji, noto, chosen.work, device, chosen.share, _say).make()
    return 0


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
