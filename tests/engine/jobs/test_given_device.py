"""A worker that was given a device sees it as its first and only one."""

from __future__ import annotations

from engine import locks
from engine.config import Runtime
from engine.jobs import device


def test_a_config_that_names_one_of_several_devices_is_honoured_where_only_that_one_is_seen(monkeypatch):
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device.torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setenv(locks.DEVICE, "GPU-b")
    assert device.choose(Runtime(device="cuda:1")).device == device.torch.device("cuda")
