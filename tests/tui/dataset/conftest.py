"""A project with folders of pictures, for the panel of images and captions."""

from __future__ import annotations

import json

import pytest
import tomli_w
from PIL import Image


@pytest.fixture
def project(record, workspace):
    """Makes an open project whose draft has these folders."""

    def made(*tables, name="my-cat", panel="dataset", **config):
        folder = record.project(name)
        tables = [table if isinstance(table, dict) else {"path": str(table)} for table in tables]
        config = {"dataset": {"subsets": tables}} | config
        (folder / "draft.toml").write_text(tomli_w.dumps({"preset": "dreambooth", "config": config}))
        (workspace / "app").mkdir(exist_ok=True)
        session = {"version": 1, "panel": panel, "project": name}
        (workspace / "app" / "session.json").write_text(json.dumps(session))
        return folder

    return made


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    """Only tests of the check have one made unasked."""
    monkeypatch.setattr("loratui.screens.dataset_checks.UNASKED", 0)


@pytest.fixture
def asked(monkeypatch, unasked):
    monkeypatch.setattr("loratui.screens.dataset_checks.UNASKED", 500)


@pytest.fixture
def images(record, tmp_path):
    """Makes folders of pictures that are large enough for the tiny base."""

    def made(name, count=4, caption="an ohwx cat {number}"):
        folder = record.images(tmp_path / name, count, caption)
        for file in folder.glob("*.png"):
            Image.open(file).resize((64, 80)).save(file)
        return folder

    return made


@pytest.fixture
def cats(images):
    return images("cats")
