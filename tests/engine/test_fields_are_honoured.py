"""No field is parsed and ignored: every leaf of the schema is read by the code that acts on it.

A short training run and a generation go from their folder's making to their end while every read of a config's field is
recorded with the module that reads. Reads by the schema itself don't count, nor do those of modules that only tell a
field on: a setting that reaches nothing but the metadata of a file is ignored all the same.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest
from PIL import Image

from engine import protocol
from engine.config import KINDS, Generate, Job, Operate, Request, Train, fields, leaves
from engine.config.structs import Loss, Section
from engine.host.submission import create
from engine.worker import run_job

TELLERS = {
    "engine.jobs.output": "the metadata of an adapter file",
    "engine.sampling.files": "the text in a picture",
    "engine.jobs.failures": "advice after a failure",
}

Reads = set[tuple[str, str]]
"""(struct, field) of everything that was read."""


def holder(struct: type[msgspec.Struct], leaf: str) -> tuple[str, str]:
    """The struct that a leaf such as `dataset.subsets[].path` is a field of, and the field."""
    *way, name = leaf.split(".")
    for step in way:
        kind: Any = fields(struct)[step.removesuffix("[]")][0]
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        struct = get_args(kind)[0] if step.endswith("[]") else kind
    return struct.__name__, name


def unread(struct: type[msgspec.Struct], reads: Reads) -> list[str]:
    return [leaf for leaf, _, _ in leaves(struct) if holder(struct, leaf) not in reads]


def counts(module: str) -> bool:
    """Whether a read by this module says that the field is honoured."""
    return module.startswith("engine.") and not module.startswith("engine.config") and module not in TELLERS


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("workspace")
        patch.setenv("LORATUI_WORKSPACE", str(folder))
        yield folder


def recorded(config: Job) -> Reads:
    """Run a job to its end and return what was read of its config on the way."""
    reads: Reads = set()

    def spy(self: msgspec.Struct, name: str) -> Any:
        if name in type(self).__struct_fields__ and counts(sys._getframe(1).f_globals["__name__"]):
            reads.add((type(self).__name__, name))
        return object.__getattribute__(self, name)

    with pytest.MonkeyPatch.context() as patch:
        for struct in (Section, Train, Generate, Operate):
            patch.setattr(struct, "__getattribute__", spy, raising=False)
        directory = create(protocol.workspace(), config, held=True)
        assert run_job(directory) == protocol.DONE, (directory / protocol.JOURNAL).read_text()
    return reads


def request(**tables) -> Job:
    made = Request()
    made.lay(tables, "test")
    return made.checked()


TINY = {"model": {"base": "tiny"}, "runtime": {"device": "cpu"}}


@pytest.fixture(scope="module")
def reads(workspace) -> dict[str, Reads]:
    """What a run, a generation with its adapter and an operation on it read."""
    pictures = workspace / "pictures"
    pictures.mkdir()
    for index, colour in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), colour).save(pictures / f"{index}.png")
    train = request(
        kind="train",
        dataset={"subsets": [{"path": str(pictures), "class_tokens": "ohwx"}]},
        adapter={"targets": "attention", "rank": 2, "sets": [{"targets": "unet.mid_block.*", "rank": 1, "alpha": 1}]},
        prior={"images": 1, "prompt": "a cat", "steps": 1},
        training={"steps": 1, "batch": 1},
        sampling={"prompts": ["a cat"], "steps": 1},
        **TINY,
    )
    by_kind = {"train": recorded(train)}
    adapter = next(workspace.rglob("runs/*/adapter.safetensors"))
    by_kind["generate"] = recorded(
        request(
            kind="generate",
            adapters=[{"path": str(adapter)}],
            picture={"prompt": "a cat", "out": str(workspace / "a.png"), "steps": 1},
            **TINY,
        )
    )
    by_kind["operate"] = recorded(
        request(kind="operate", operation="diff", request={"first": str(adapter), "second": str(adapter)})
    )
    return by_kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_read_by_what_acts_on_it(reads, kind):
    assert unread(KINDS[kind], reads[kind]) == []


def test_a_field_that_nothing_reads_is_found(reads):
    loss = msgspec.defstruct("Loss", [("dummy", int, 0)], bases=(Loss,), frozen=True)
    train = msgspec.defstruct(
        "Train", [("loss", loss, loss()), ("unused", int, 0)], bases=(Train,), frozen=True, kw_only=True
    )
    assert unread(train, reads["train"]) == ["loss.dummy", "unused"]


def test_a_field_that_is_only_told_on_counts_as_unread():
    assert not counts("engine.config.rules") and not any(map(counts, TELLERS))
    assert counts("engine.training.loop") and counts("engine.host.submission")
    for module in TELLERS:
        __import__(module)  # they are there under these names
