"""What came of an operation on files, in words: functions of its answer alone."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine import protocol
from engine.protocol.base import Message
from engine.protocol.operations import (
    ANSWERS,
    CheckpointWritten,
    Composed,
    Converted,
    Difference,
    Fitted,
    Inspected,
    Interpolated,
    Loading,
)
from loratui import figures

NOTABLE = 1e-5
"""Relative error of a layer from which on it is told; below it is the rounding of float32."""


def decoded(answer: protocol.Answer) -> Message | None:
    """The struct that an answer holds; None for one of a newer version."""
    kind = ANSWERS.get(answer.operation)
    try:
        return msgspec.json.decode(answer.result, type=kind) if kind else None
    except ValueError:
        return None


def in_a_line(told: Message | None) -> str:
    """The gist of an answer; empty where nothing is known of it."""
    match told:
        case Composed():
            error = max((layer.error for layer in told.layers), default=0.0)
            lost = f", error up to {error:.2%}" if error > NOTABLE else ""
            tokens = f", {len(told.tokens)} tokens in files of their own" if told.tokens else ""
            spanned = ranks(layer.rank for layer in told.layers)
            return f"{len(told.layers)} layers, {spanned}, {figures.size(told.bytes)}{lost}{tokens}"
        case Converted():
            return f"{told.format}, {figures.size(told.bytes)}; {in_programs(told.loads)}"
        case Difference():
            return f"cosine {cosine(told.cosine)}, distance {figures.number(told.distance)}"
        case CheckpointWritten():
            return f"{told.family}, {figures.size(told.bytes)}, {sum(told.tensors.values()):,} tensors"
        case Fitted():
            return f"loss {figures.number(told.loss_before)} before, {figures.number(told.loss_after)} after"
        case Interpolated():
            return f"{len(told.files)} files"
        case Inspected():
            return in_programs(told.loads)
    return ""


def in_programs(loads: Iterable[Loading]) -> str:
    """Where a file works: `✓ diffusers ✗ ComfyUI`."""
    return " ".join(f"{'✓' if one.loads else '✗'} {one.program}" for one in loads)


def cosine(value: float | None) -> str:
    """With its sign; a dash where there is no angle."""
    return "–" if value is None else f"{round(value, 3) + 0.0:+.3f}"  # no zero below zero


def ranks(found: Iterable[int]) -> str:
    """`r16`, or `r4–32` where they differ."""
    known = sorted(set(found))
    if not known:
        return "–"
    return f"r{known[0]}" if len(known) == 1 else f"r{known[0]}–{known[-1]}"
