"""What `loratui doctor` knows: the facts of this installation, and what they mean for the user.

`gather` looks, `findings` judges. The judging is a pure function of the facts (plain JSON), so that any machine's
trouble can be tested on any other. Torch is asked in a process of its own, which may be slow, missing or crash.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import loratui
from loratui import disks, machine, terminal, themes, workspace
from loratui.child import engine_command, engine_environment

PACKAGES = ("diffusers", "transformers", "safetensors", "numpy", "pillow", "msgspec", "rich", "textual", "typer")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "LD_PRELOAD",
    "HF_HUB_OFFLINE",
)
ENGINE_SECONDS = 120
GIB = 1024**3
TIGHT_BYTES = 10 * GIB
FULL_BYTES = GIB // 2


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    group: str
    name: str
    level: str
    """"ok"; "absent": not there and not needed; "note": worth a look; "broken": loratui can't work like this."""
    value: str
    advice: str = ""


def gather() -> dict[str, Any]:
    """All facts, as JSON can carry them."""
    return {
        "loratui": loratui.__version__,
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "system": platform.platform(terse=True),
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "engine": ask_engine(),
        "machine": asdict(machine.look()),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "terminal": asdict(terminal.look(os.environ)),
        "paths": {
            "package": str(Path(loratui.__file__).parent),
            "themes": str(themes.themes_folder()),
            "workspace": str(workspace.workspace_path()),
            "model_cache": str(model_cache()),
        },
        "disks": {
            "workspace": asdict(disks.look(workspace.workspace_path())),
            "model_cache": asdict(disks.look(model_cache())),
        },
    }


def model_cache() -> Path:
    """Where models from the hub are kept, by the hub's own variables."""
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(general, "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser().absolute()


def ask_engine() -> dict[str, Any]:
    """The last report of `engine.doctor`, with `trouble`: why there is no later one, or None."""
    try:
        child = subprocess.run(
            engine_command("doctor"),
            env=engine_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ENGINE_SECONDS,
            check=False,
        )
        output, errors, trouble = child.stdout, child.stderr, _ending(child.returncode)
    except subprocess.TimeoutExpired as late:
        output, errors, trouble = late.stdout or b"", late.stderr or b"", f"no answer in {ENGINE_SECONDS} s"
    report = last_report(output.decode(errors="replace"))
    if trouble:
        said = errors.decode(errors="replace").strip().splitlines()
        trouble = f"{trouble} at the stage “{report['stage']}”" + (f": {said[-1]}" if said else "")
    return report | {"trouble": trouble}


def last_report(output: str) -> dict[str, Any]:
    """The last whole line of the engine's output."""
    for line in reversed(output.splitlines()):
        try:
            return json.loads(line)
        except ValueError:
            continue  # torn: the process died while writing it
    return {"stage": "start", "driver": None, "torch": None, "devices": []}


def findings(facts: dict[str, Any]) -> Iterator[Finding]:
    """What the facts mean, group by group."""
    yield from _installation(facts)
    yield from _torch(facts["engine"], facts["environment"])
    yield from _devices(facts["engine"])
    yield from _machine(facts["machine"], facts["environment"])
    for name, disk in facts["disks"].items():
        yield from _disk(name, disk)
    yield from _settings(facts["engine"])
    yield from _terminal(facts["terminal"])


def _installation(facts: dict[str, Any]) -> Iterator[Finding]:
    python = facts["python"]
    yield Finding("installation", "loratui", "ok", f"{facts['loratui']} in {facts['paths']['package']}")
    yield Finding("installation", "python", "ok", f"{python['version']} ({python['executable']}), {python['system']}")
    missing = [name for name, version in facts["packages"].items() if version is None]
    if missing:
        advice = "install loratui again: ./setup install"
        yield Finding("installation", "packages", "broken", f"missing: {', '.join(missing)}", advice)
    else:
        versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
        yield Finding("installation", "packages", "ok", versions)


def _torch(engine: dict[str, Any], environment: dict[str, str]) -> Iterator[Finding]:
    torch, driver = engine["torch"], engine["driver"]
    if torch is None:
        value = engine["trouble"] or "no report"
        yield Finding("torch", "torch", "broken", value, "install loratui again: ./setup install")
        return
    if torch["error"]:
        yield Finding("torch", "torch", "broken", torch["error"], "install torch again, or loratui: ./setup install")
        return
    runtime = f"CUDA {torch['cuda']}" if torch["cuda"] else f"HIP {torch['hip']}" if torch["hip"] else "no GPU runtime"
    yield Finding("torch", "torch", "ok", f"{torch['version']}, {runtime}, in {torch['path']}")
    if driver:
        cards = ", ".join(f"{card['name']} ({_size(card['memory_bytes'])})" for card in driver["cards"]) or "no card"
        value = f"NVIDIA {driver['version']}, CUDA up to {driver['cuda']}: {cards}"
        unused = bool(driver["cards"]) and not any("uuid" in device for device in engine["devices"])
        level = "note" if unused else "ok"
        yield Finding("torch", "driver", level, value, _why_unused(torch, environment) if unused else "")
    if engine["trouble"]:
        yield Finding("torch", "report", "note", f"cut short: {engine['trouble']}")


def _why_unused(torch: dict[str, Any], environment: dict[str, str]) -> str:
    if not torch["cuda"]:
        return "this torch is built without CUDA: install a CUDA build of it"
    if "CUDA_VISIBLE_DEVICES" in environment:
        return f"CUDA_VISIBLE_DEVICES={environment['CUDA_VISIBLE_DEVICES']} may hide the cards"
    return f"torch can't use the cards: does the driver support CUDA {torch['cuda']}?"


def _devices(engine: dict[str, Any]) -> Iterator[Finding]:
    for device in engine["devices"]:
        parts = [device["name"]]
        if "memory_bytes" in device:
            parts.append(f"{_size(device['free_bytes'])} of {_size(device['memory_bytes'])} free")
            parts.append(f"capability {device['capability']}")
            parts.append(device["uuid"])
        yield Finding("devices", device["device"], "ok", ", ".join(part for part in parts if part))
        for name, reason in device.get("attention", {}).items():
            level = "ok" if reason is None else "absent" if reason == "not installed" else "note"
            value = reason or f"ran, forward and backward, in {device['dtype']}"
            yield Finding("devices", f"  attention {name}", level, value)
        reasons = device.get("attention", {}).values()
        if reasons and None not in reasons:
            advice = "nothing can be trained on this device: install torch again"
            yield Finding("devices", "  attention", "broken", "no back end ran", advice)


def _machine(facts: dict[str, Any], environment: dict[str, str]) -> Iterator[Finding]:
    cores, usable = facts["cores"], facts["usable_cores"]
    limited = f" of {cores}; this process is limited to them" if usable < cores else ""
    yield Finding("machine", "cores", "ok", f"{usable}{limited}")
    limit = facts["memory_limit_bytes"]
    value = f"{_size(facts['available_bytes'])} of {_size(facts['memory_bytes'])} free"
    yield Finding("machine", "memory", "ok", value + (f", limited to {_size(limit)}" if limit else ""))
    if environment:
        pairs = ", ".join(f"{name}={value}" for name, value in environment.items())
        yield Finding("machine", "environment", "ok", pairs)


def _settings(engine: dict[str, Any]) -> Iterator[Finding]:
    for problem in engine.get("settings", []):
        yield Finding("disks", "settings", "note", problem, "until then its part, `[app]` or all else, is left aside")


def _disk(name: str, disk: dict[str, Any]) -> Iterator[Finding]:
    advice = {
        "workspace": f"set {workspace.VARIABLE} to a folder on another disk",
        "model_cache": "set HF_HOME to a folder on another disk",
    }[name]
    broken = "broken" if name == "workspace" else "note"
    where = disk["path"] + ("" if disk["exists"] else " (made when it is first needed)")
    yield Finding("disks", name.replace("_", " "), "ok", where)
    if not disk["writable"]:
        yield Finding("disks", "  writing", broken, "no permission, or mounted read-only", advice)
    level = "ok" if disk["lasts"] else "note"
    answer = {True: "yes", False: "no", None: "can't be told"}[disk["lasts"]]
    yield Finding("disks", "  lasts", level, f"{answer}: {disk['lasting_reason']}", "" if disk["lasts"] else advice)
    if disk["writable"]:
        value = "yes: a second process was refused" if disk["locks"] else f"no: {disk['lock_reason']}"
        yield Finding("disks", "  locks", "ok" if disk["locks"] else "note", value, "" if disk["locks"] else advice)
    free = disk["free_bytes"]
    level = broken if free < FULL_BYTES else "note" if free < TIGHT_BYTES else "ok"
    value = f"{_size(free)} of {_size(disk['total_bytes'])}"
    yield Finding("disks", "  free", level, value, "" if level == "ok" else f"make room, or {advice}")


def _terminal(facts: dict[str, Any]) -> Iterator[Finding]:
    if not facts["interactive"]:
        yield Finding("terminal", "terminal", "ok", "none: the output is a pipe or a file")
        return
    through = " through ".join(["", *filter(None, [facts["multiplexer"], "SSH" if facts["remote"] else ""])])
    program = f", {facts['program']}" if facts["program"] not in ("", facts["multiplexer"]) else ""
    size = f"{facts['columns']}×{facts['rows']}"
    small = facts["columns"] < 80 or facts["rows"] < 24
    advice = "make the window at least 80×24" if small else ""
    value = f"{facts['term'] or 'TERM is not set'}{program}, {size}{through}"
    yield Finding("terminal", "terminal", "note" if small else "ok", value, advice)
    rich = facts["colours"] == "truecolor"
    advice = "" if rich else "if the terminal can do more: export COLORTERM=truecolor"
    yield Finding("terminal", "colours", "ok" if rich else "note", facts["colours"], advice)
    advice = "" if facts["unicode"] else "use a UTF-8 locale, such as LC_ALL=C.UTF-8"
    value = f"{facts['encoding']}, locale {facts['locale']}"
    yield Finding("terminal", "characters", "ok" if facts["unicode"] else "note", value, advice)
    yield Finding("terminal", "pictures", "ok", f"{facts['pictures_guess']} (a guess from the environment)")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _ending(code: int) -> str | None:
    if code == 0:
        return None
    return f"the engine was killed by signal {-code}" if code < 0 else f"the engine ended with code {code}"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 1024**2:.0f} MiB"
