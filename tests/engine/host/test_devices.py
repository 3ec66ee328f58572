"""Figures are told when they change, and a driver in any condition is no error of the program."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import msgspec
import pytest

from engine.host import devices
from engine.host.pipe import Outbox
from engine.protocol.messages import DeviceFigures

GIB = 1 << 30


class Nvml:
    """Stands in for NVML: two cards whose answers can be changed or made to fail."""

    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION, NVML_ERROR_GPU_IS_LOST = 3, 4, 15
    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        def __init__(self, value: int, text: str = "GPU is lost"):
            super().__init__(text)
            self.value = value

    def __init__(self):
        self.opened = 0
        self.powers = 0
        self.failing: dict[str, int] = {}
        self.used = [2 * GIB, 0]

    def _answer(self, name: str, handle: int, value):
        """`value`, unless this card fails at all ("card 1"), or this question does."""
        for key in (name, f"card {handle}"):
            if key in self.failing:
                raise self.NVMLError(self.failing[key])
        return value

    def nvmlInit(self):
        if "init" in self.failing:
            raise self.NVMLError(self.failing["init"], "Driver/library version mismatch")
        self.opened += 1

    def nvmlShutdown(self):
        if not self.opened:
            raise self.NVMLError(1, "Uninitialized")

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return self._answer("handle", index, index)

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle):
        return b"A Card"

    def nvmlDeviceGetMemoryInfo(self, handle):
        return self._answer("memory", handle, SimpleNamespace(used=self.used[handle], total=24 * GIB))

    def nvmlDeviceGetUtilizationRates(self, handle):
        return self._answer("rates", handle, SimpleNamespace(gpu=98, memory=40))

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return self._answer("temperature", handle, 71)

    def nvmlDeviceGetPowerUsage(self, handle):
        self.powers += 1
        return self._answer("power", handle, 301_500)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return self._answer("power", handle, 350_000)


@pytest.fixture
def nvml(monkeypatch, tmp_path) -> Nvml:
    fake = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "driver")
    (tmp_path / "driver").touch()
    return fake


def test_a_card_gives_its_figures(nvml):
    (card, other), problem = devices.Gpus().sample()
    assert problem == ""
    assert (card.uuid, card.name, card.index, other.index) == ("GPU-0", "A Card", 0, 1)
    assert (card.utilization, card.memory_used, card.memory_total, card.temperature) == (98, 2 * GIB, 24 * GIB, 71)
    assert (card.power, card.power_limit) == (301.5, 350.0)


def test_power_is_asked_for_more_rarely(nvml):
    gpus = devices.Gpus()
    for _ in range(5):
        figures, _ = gpus.sample()
    assert nvml.powers == 2
    assert figures[0].power == 301.5


@pytest.mark.parametrize("value", [Nvml.NVML_ERROR_NOT_SUPPORTED, Nvml.NVML_ERROR_NO_PERMISSION])
def test_what_a_card_does_not_tell_is_none_and_no_problem(nvml, value):
    nvml.failing = {"rates": value, "power": value}
    (card, _), problem = devices.Gpus().sample()
    assert (card.utilization, card.power, card.power_limit, card.temperature, problem) == (None, None, None, 71, "")


def test_a_card_that_is_lost_is_said_and_the_other_goes_on(nvml):
    gpus = devices.Gpus()
    gpus.sample()
    nvml.failing = {"card 1": Nvml.NVML_ERROR_GPU_IS_LOST}
    (card, lost), problem = gpus.sample()
    assert (card.temperature, lost.temperature, lost.memory_used) == (71, None, None)
    assert problem == "GPU 1: GPU is lost"


def test_a_card_that_is_lost_from_the_start_is_said_and_the_other_goes_on(nvml):
    nvml.failing = {"card 1": Nvml.NVML_ERROR_GPU_IS_LOST}
    figures, problem = devices.Gpus().sample()
    assert [card.index for card in figures] == [0]
    assert problem == "GPU 1: GPU is lost"


def test_a_driver_that_goes_and_comes_back_is_opened_again_after_a_while(nvml, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(devices.time, "monotonic", lambda: now)
    gpus = devices.Gpus()
    gpus.sample()
    nvml.failing = {"card 0": 999, "card 1": 999}
    assert "GPU 0" in gpus.sample()[1]
    nvml.failing = {}
    now += devices.RETRY - 1
    assert gpus.sample()[0] == []
    assert gpus.sample()[1] != ""
    now += 2
    assert (len(gpus.sample()[0]), gpus.sample()[1], nvml.opened) == (2, "", 2)


def test_a_driver_that_can_not_be_opened_is_said(nvml):
    nvml.failing = {"init": 18}
    assert devices.Gpus().sample() == ([], "NVML: Driver/library version mismatch")


def test_a_machine_without_a_driver_lacks_nothing(nvml, tmp_path):
    (tmp_path / "driver").unlink()
    nvml.failing = {"init": 12}
    assert devices.Gpus().sample() == ([], "")


@pytest.fixture
def told(nvml, tmp_path, monkeypatch):
    """A sampler that need not wait, and the lines that it tells."""
    monkeypatch.setattr(devices, "INTERVAL", 0.001)
    source, sink = os.pipe()
    sampler = devices.Devices(Outbox(sink), tmp_path / "not" / "made", lambda: {"GPU-1": "20260101-0000-cat"})
    yield sampler, os.fdopen(source, "rb")
    sampler.unwatch()


def test_the_machine_and_who_holds_its_cards(told):
    sampler, _ = told
    figures = sampler.figures()
    assert 0 <= figures.cpu <= 100
    assert 0 < figures.memory_used < figures.memory_total
    assert figures.disk_free > 0, "of the file system that the workspace would be made on"
    assert [card.holder for card in figures.gpus] == ["", "20260101-0000-cat"]


def test_changes_that_nobody_sees_are_not_told(told, nvml, monkeypatch):
    sampler, pipe = told
    first = sampler.figures()
    samples = 0

    def figures() -> DeviceFigures:
        nonlocal samples
        samples += 1
        cards = [msgspec.structs.replace(card, memory_used=card.memory_used + samples) for card in first.gpus]
        jumped = 5.0 if samples >= 50 else 0.1 / samples
        return msgspec.structs.replace(first, t=float(samples), cpu=jumped, gpus=cards)

    monkeypatch.setattr(sampler, "figures", figures)
    sampler.watch()
    told_at = [msgspec.json.decode(pipe.readline())["params"]["t"] for _ in range(2)]
    assert told_at == [1.0, 50.0]


def test_watching_again_tells_at_once_though_nothing_has_changed(told, monkeypatch):
    sampler, pipe = told
    still = sampler.figures()
    monkeypatch.setattr(sampler, "figures", lambda: still)
    for _ in range(2):
        sampler.watch()
        assert msgspec.json.decode(pipe.readline())["method"] == "devices"
        sampler.unwatch()
