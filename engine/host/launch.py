"""Starting engine processes that outlive whoever starts them: the runner, and workers.

Each is `python -m engine.…` in a session of its own, with no terminal. A job runs with its submitter's interpreter and
those variables of the submitter's that matter; everything else, secrets above all, comes from the runner at hand and is
never written down.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from engine import locks

CHECKOUT = str(Path(__file__).resolve().parents[2])
"""Where the packages lie; a checkout has its pyproject.toml there too."""
RUNNER_LOG, LONGEST_LOG = "runner.log", 1 << 20
CONTROL_OFFSET = "LORATUI_CONTROL_OFFSET"
"""Variable: bytes in control.jsonl when the worker was started. What follows was said to this attempt."""

_MATTERS = re.compile(
    r"(HF|HUGGINGFACE|HUGGING_FACE|TRANSFORMERS|DIFFUSERS|SAFETENSORS|TORCH\w*|PYTORCH|XFORMERS|TRITON|CUDA|CUBLAS|CUDNN"
    r"|NVIDIA|NCCL|HIP|HSA|ROCR|ROCM|MIOPEN|OMP|GOMP|KMP|MKL|OPENBLAS|MALLOC|GLIBC|LORATUI|XDG|LC|CONDA)_\w+"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|PATH|HOME|TMPDIR|LANG|LANGUAGE|VIRTUAL_ENV|PYTHONPATH|PYTHONHOME|PYTHONSAFEPATH"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
)
_SECRET = re.compile(r"\w*(TOKEN|SECRET|PASSWORD|KEY|CREDENTIALS?)")
_OF_ONE_PROCESS = {locks.HANDED, locks.DEVICE, CONTROL_OFFSET}


def _matters(name: str) -> bool:
    return bool(_MATTERS.fullmatch(name)) and not _SECRET.fullmatch(name) and name not in _OF_ONE_PROCESS


def engine_environment() -> dict[str, str]:
    """This process's environment, changed so that a child finds the engine that belongs to this program and no other.

    A Python file in the current folder is not imported (a user's own `engine.py`!), and a checkout that was never
    installed finds its own packages.
    """
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    if Path(CHECKOUT, "pyproject.toml").is_file() and CHECKOUT not in paths:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [CHECKOUT, *paths]))
    return environment


def foreign_environment() -> dict[str, str]:
    """This process's environment for programs that are not ours, without what makes a child find this engine."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    paths = environment.pop("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in paths if path and path != CHECKOUT]
    return environment | ({"PYTHONPATH": os.pathsep.join(others)} if others else {})


def freeze() -> dict[str, str]:
    """What of this process's environment a job must find again, whoever starts it and when."""
    return {name: value for name, value in sorted(engine_environment().items()) if _matters(name)}


def thaw(frozen: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job: where a variable matters, as it was for the submitter, set or not set."""
    own = {name: value for name, value in os.environ.items() if not _matters(name) and name not in _OF_ONE_PROCESS}
    return own | dict(frozen)


def runner_lock(workspace: Path) -> Path:
    return workspace / "runner"


def runner_alive(workspace: Path) -> bool:
    return locks.held(runner_lock(workspace))


def ensure_runner(workspace: Path) -> bool:
    """Start the workspace's runner unless it is there; whether one was started. Raises OSError where none can be.

    A runner that is about to end lets go of its lock before it looks at the queue for the last time: so what was queued
    before this call is seen by the one that is there, or by the one that is started.
    """
    _started[:] = [process for process in _started if process.poll() is None]
    if runner_alive(workspace):
        return False
    log = workspace / RUNNER_LOG
    if log.exists() and log.stat().st_size > LONGEST_LOG:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.runner", str(workspace)],
            env=engine_environment(),
            cwd=workspace,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _started.append(process)
    return True


_started: list[subprocess.Popen] = []
"""Runners that this process has started and not yet buried."""


def start_worker(
    interpreter: str, directory: Path, log: Path, environment: dict[str, str], taken: list[locks.Lock], cwd: Path
) -> subprocess.Popen:
    """Start the worker of a job, with its locks. What it prints goes to `log`. Raises OSError."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [interpreter, "-m", "engine.worker", str(directory)],
            env=environment | locks.hand_over(*taken),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[lock.descriptor for lock in taken],
        )
