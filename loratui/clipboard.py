"""Copying from a terminal that may be far away: OSC 52 tells the terminal at the user's end to take the text.

A copying program on this machine is not asked: over SSH it succeeds into the wrong clipboard. tmux passes OSC 52 on
only where it is told to, so there its own buffer is loaded, with `-w`, which sends it out by tmux's own knowledge.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable, Mapping

LONGEST = 74_994
"""Bytes of base64 that terminals take; xterm's limit, which others have taken over."""


def copy(text: str, environ: Mapping[str, str], write: Callable[[str], None]) -> str:
    """Copy; `write` writes to the terminal. Returns which way was taken, for the user. ValueError: too long."""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode()
    if len(encoded) > LONGEST:
        raise ValueError(f"too long for a terminal's clipboard: {len(encoded):,} of {LONGEST:,} bytes")
    if environ.get("TMUX") and shutil.which("tmux") and _tmux(text):
        return "tmux"
    write(f"\x1b]52;c;{encoded}\a")
    return "OSC 52"


def _tmux(text: str) -> bool:
    try:
        done = subprocess.run(
            ["tmux", "load-buffer", "-w", "-"],
            input=text.encode("utf-8", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
