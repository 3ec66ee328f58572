"""The plan of a run is told of whatever a form holds: as much as its fields allow, and what is wrong with the rest."""

from __future__ import annotations

import math
import shutil

import pytest
from PIL import Image

from engine.config import Request, Train
from engine.data import headers, plan
from engine.data.dataset import build
from engine.host import images, plans
from engine.host.kept import Kept
from engine.models import resolve, sizes
from engine.protocol.browse import RunPlan


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    for module, name in ((plans, "_bases"), (plans, "_contents"), (images, "_sizes")):
        monkeypatch.setattr(module, name, Kept(100))


@pytest.fixture
def folder(tmp_path):
    """Make a folder of pictures, one of each size; each has another content."""

    def folder(name: str, *pictures: tuple[int, int]):
        made = tmp_path / name
        made.mkdir()
        for number, size in enumerate(pictures):
            Image.new("RGB", size, (number % 256, number // 256, 7)).save(made / f"{number}.png")
        return made

    return folder


def form(*subsets, **tables) -> dict:
    """A form for the embedded base, as the app holds it."""
    made = [subset if isinstance(subset, dict) else {"path": str(subset)} for subset in subsets]
    started = {**DEFAULT, "dataset": {"subsets": made}}
    return started | {name: started.get(name, {}) | table for name, table in tables.items()}


DEFAULT = {"model": {"base": "tiny"}, "prior": {"weight": 0.0}, "training": {"steps": 100, "batch": 4}}


def planned(tmp_path, table: dict) -> RunPlan:
    return plans.run_plan(tmp_path, table)


def fields_of(told: RunPlan) -> list[str]:
    return [problem.field for problem in told.problems]


def test_a_plan_tells_steps_and_files(tmp_path, folder):
    told = planned(tmp_path, form(folder("a", *[(64, 64)] * 8), training={"epochs": 10, "steps": 0}))
    assert told.problems == []
    assert told.text == "8 images × 1 repeat = 8 per epoch ÷ batch 4 = 2 steps · 10 epochs = 20 steps"
    assert (told.images, told.per_epoch, told.steps_per_epoch, told.steps, told.epochs) == (8, 8, 2.0, 20, 10.0)
    assert told.views_per_image == 10 and told.buckets == ["64×64: 8 images, 2 batches per epoch"]
    assert (told.adapters, told.states, told.samples) == (11, 2, 0)
    assert told.disk_bytes > 11 * told.adapter_bytes + 2 * told.state_bytes
    assert 0 < told.disk_free <= shutil.disk_usage(tmp_path).total


def test_folders_named_as_kohyas_have_their_repeats_and_class_images_are_counted_apart(tmp_path, folder):
    parent = folder("10_cat", *[(64, 64)] * 4).parent
    reg = folder("2_reg", *[(64, 64)] * 3)
    told = planned(tmp_path, form(parent / "10_cat", {"path": str(reg), "is_reg": True}, prior={"weight": 1.0}))
    assert (told.images, told.class_images, told.class_images_to_draw, told.per_epoch) == (4, 3, 0, 40)
    assert told.text.endswith("beside 3 class images") and told.problems == []


def test_class_images_that_no_subset_brings_are_to_be_drawn(tmp_path, folder):
    cats = folder("a", (64, 64))
    told = planned(tmp_path, form(cats, prior={"weight": 1.0, "prompt": "a cat", "images": 33}))
    assert (told.class_images, told.class_images_to_draw) == (0, 33)
    assert told.disk_bytes > planned(tmp_path, form(cats)).disk_bytes


def test_images_that_training_would_leave_out_are_left_out(tmp_path, folder):
    cats = folder("a", (64, 64), (20, 20), (64, 64))
    (cats / "broken.png").write_bytes(b"no picture")
    assert planned(tmp_path, form(cats)).images == 3
    assert planned(tmp_path, form(cats, dataset={"on_problem": "skip"})).images == 2


SIZES = [(64, 64), (100, 50), (50, 100), (90, 60)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("copies", [0, 5])
def test_the_images_are_those_that_training_takes_less_those_held_out(tmp_path, folder, seed, copies):
    cats = folder("a", *(SIZES[number % 4] for number in range(30)))
    for number in range(copies):
        shutil.copy(cats / f"{number}.png", cats / f"copy-{number}.png")
    more = {"path": str(folder("3_more", *SIZES)), "flip": True, "crops": 2}
    table = form(cats, more, {"path": str(cats), "repeats": 2}, training={"seed": seed}, dataset={"hold_out": 0.2})
    request = Request()
    request.lay(table, "test")
    config = request.checked(Train)
    built = build(config.dataset, root=tmp_path, resolution=64, step=16, seed=seed)
    assert built.held_out
    expected = plan.of_run(config, built.items, 0)
    told = planned(tmp_path, table)
    assert told.text == expected.describe() and told.buckets == expected.bucket_table()
    assert told.images == len(built.items)


# What a form does not say, or says wrongly


def test_dataset_and_training_are_enough_for_the_arithmetic(tmp_path, folder):
    subsets = [{"path": str(folder("a", *[(512, 512)] * 4))}]
    told = planned(tmp_path, {"dataset": {"subsets": subsets}, "training": {"steps": 100, "batch": 4}})
    assert told.text.startswith("4 images × 1 repeat = 4 per epoch ÷ batch 4 = 1 step · 100 epochs = 100 steps")
    assert told.buckets == ["512×512: 4 images, 1 batch per epoch"]
    assert fields_of(told) == ["model"]
    assert told.adapter_bytes and told.disk_bytes


@pytest.mark.parametrize(
    ("tables", "wrong", "known", "unknown"),
    [
        ({"training": {"steps": "x"}}, "training.steps", ["images"], ["steps", "text", "adapters", "disk_bytes"]),
        ({"training": {"epochs": 3}}, "training.steps", ["images"], ["steps", "text"]),
        ({"training": {"steps": 0}}, "training.steps", ["images"], ["steps", "text"]),
        ({"adapter": {"rank": 0}}, "adapter.rank", ["steps", "adapters"], ["adapter_bytes", "state_bytes"]),
        ({"optimizer": {"lr_unet": -1}}, "optimizer.lr_unet", ["steps", "states"], ["adapter_bytes", "disk_bytes"]),
        ({"saving": {"precision": "fp8"}}, "saving.precision", ["steps"], ["adapters", "states", "adapter_bytes"]),
        ({"sampling": {"steps": 0}}, "sampling.steps", ["adapter_bytes", "adapters"], ["samples", "disk_bytes"]),
        ({"prior": {"weight": -1}}, "prior.weight", ["steps", "adapter_bytes"], ["disk_bytes"]),
        ({"prior": {"weight": 1}}, "prior.prompt", ["steps", "class_images_to_draw", "disk_bytes"], []),
        ({"model": {"base": 3}}, "model.base", ["steps", "adapter_bytes"], []),
        ({"model": {"base": "/nowhere"}}, "model.base", ["steps", "adapter_bytes"], []),
        ({"training": {"epochs": 1, "steps": 0}, "schedule": {"warmup": 50}}, "schedule.warmup", ["steps"], []),
        ({"nonsense": {"a": 1}}, "nonsense", ["steps", "disk_bytes"], []),
        ({"loss": {"snr": 1}}, "loss.snr", ["steps", "disk_bytes"], []),
        ({"name": "a/b"}, "name", ["steps", "disk_bytes"], []),
        ({"sampling": {"prompts": ["a --w x"]}}, "sampling.prompts[0]", ["steps", "samples", "disk_bytes"], []),
        ({"dataset": {"resolution": 3}}, "dataset.resolution", ["disk_free"], ["images", "steps"]),
        ({"dataset": 3}, "dataset", ["disk_free"], ["images", "steps"]),
        ({"training": 3}, "training", ["images"], ["steps"]),
    ],
)
def test_what_is_wrong_leaves_out_what_depends_on_it(tmp_path, folder, tables, wrong, known, unknown):
    table = form(folder("a", *[(64, 64)] * 4))
    for name, value in tables.items():
        table[name] = {**table.get(name, {}), **value} if isinstance(value, dict) else value
    told = planned(tmp_path, table)
    assert wrong in fields_of(told)
    for name in known:
        assert getattr(told, name), name
    for name in unknown:
        assert not getattr(told, name), name


def test_folders_that_are_none_are_told_and_the_others_counted(tmp_path, folder):
    told = planned(tmp_path, form(folder("a", *[(64, 64)] * 4), tmp_path / "nothing", "a\0b"))
    assert fields_of(told) == ["dataset.subsets[1].path", "dataset.subsets[2].path"]
    assert told.images == 4 and told.steps == 100
    assert planned(tmp_path, form(tmp_path / "nothing")).steps == 0


def test_an_empty_form_has_no_plan(tmp_path):
    told = planned(tmp_path, {})
    assert set(fields_of(told)) == {"model", "dataset"} and told.text == "" and told.disk_free


def test_a_pattern_leaves_the_sizes_open_and_nothing_else(tmp_path, folder):
    told = planned(tmp_path, form(folder("a", (64, 64)), adapter={"targets": "unet.mid_block.*"}))
    assert told.adapter_bytes is told.state_bytes is told.disk_bytes is None
    assert told.adapters == 11 and told.problems == []


ODDITIES = [
    None, True, -1, 0, 1 << 63, 10**400, 1e308, "", "\0", "é😀", [], {}, [[]] * 50, {"a": {}}, "x" * 5000, "../../etc",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODDITIES, ids=lambda odd: repr(odd)[:20])
def test_nothing_that_a_form_may_hold_is_a_defect(tmp_path, folder, odd):
    subset = {"path": str(folder("a", *[(64, 64)] * 4))}
    places = [
        "dataset.subsets", "dataset.resolution", "dataset.hold_out", "dataset.max_upscale", "model.base",
        "training.steps", "training.batch", "saving.every", "adapter.sets", "sampling.prompts", "prior.images",
        "schedule.warmup",
    ]  # fmt: skip
    tables = [form(subset, **{section: {field: odd}}) for section, field in (place.split(".") for place in places)]
    tables += [form(subset) | {name: odd} for name in ("model", "dataset", "training", "sampling", "kind", "name")]
    tables += [form(subset | {field: odd}) for field in ("path", "repeats", "crops", "class_tokens")]
    for table in tables:
        told = planned(tmp_path, table)
        assert all(isinstance(problem.field, str) for problem in told.problems) and told.disk_free > 0


# What it costs


def test_nothing_is_read_twice_and_nothing_is_decoded(tmp_path, folder, monkeypatch):
    table = form(folder("a", *SIZES * 6), dataset={"hold_out": 0.2})
    monkeypatch.setattr(plans, "FRESH", math.inf)
    monkeypatch.setattr(plans, "_free", lambda _: 80 << 30)  # others write to this disk meanwhile
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("a picture is decoded"))
    first = planned(tmp_path, table)
    monkeypatch.setattr(headers, "upright_size", lambda path: pytest.fail("a header is read again"))
    monkeypatch.setattr(plans, "find_here", lambda *_: pytest.fail("the base is looked at again"))
    monkeypatch.setattr(plans.hashlib, "file_digest", lambda *_: pytest.fail("a file is read again"))
    assert planned(tmp_path, table) == first


def test_files_are_read_to_find_copies_only_where_they_may_be_some(tmp_path, folder, monkeypatch):
    cats = folder("a", *((64 + number, 64) for number in range(25)))
    read = []
    monkeypatch.setattr(plans, "_content", lambda path: read.append(path.name) or path.name)
    planned(tmp_path, form(cats))
    assert read == []
    shutil.copy(cats / "3.png", cats / "copy.png")
    planned(tmp_path, form(cats, dataset={"hold_out": 0.0}))
    assert read == []
    planned(tmp_path, form(cats))
    assert sorted(read) == ["3.png", "copy.png"]


def test_an_image_that_changes_is_measured_anew(tmp_path, folder):
    cats = folder("a", (64, 64))
    assert planned(tmp_path, form(cats)).buckets == ["64×64: 1 image, 1 batch per epoch, 3 places filled up"]
    Image.new("RGB", (100, 50)).save(cats / "0.png")
    assert planned(tmp_path, form(cats)).buckets == ["80×48: 1 image, 1 batch per epoch, 3 places filled up"]


def test_a_hub_id_that_is_not_here_asks_no_network(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(resolve.hub, "fetch", lambda *_: pytest.fail("the network is asked"))
    told = planned(tmp_path, form(folder("a", (512, 512)), model={"base": "nobody/has-this"}))
    assert told.problems == [] and told.buckets == ["512×512: 1 image, 1 batch per epoch, 3 places filled up"]
    assert told.adapter_bytes == planned(tmp_path, form(folder("b", (512, 512)), model={"base": ""})).adapter_bytes


def test_a_base_of_other_sizes_leaves_those_of_its_adapters_open(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(sizes, "_KNOWN", {})
    told = planned(tmp_path, form(folder("a", (64, 64))))
    assert told.adapter_bytes is None and told.buckets[0].startswith("64×64")
