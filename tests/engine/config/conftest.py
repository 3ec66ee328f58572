"""Requests for the tests of the schema."""

from __future__ import annotations

import pytest

from engine.config import Request, UserError


@pytest.fixture
def least():
    """The tables of the shortest request that is sound; a fresh copy."""
    return {"model": {"base": "tiny"}, "dataset": {"subsets": [{"path": "/images"}]}, "prior": {"weight": 0.0}}


@pytest.fixture
def checked(least):
    """Check the shortest request with tables laid over it and assignments applied."""

    def run(tables: dict | None = None, *assignments: str):
        request = Request()
        request.lay(least, "base.toml")
        request.lay(tables or {}, "mine.toml")
        for assignment in assignments:
            request.set(assignment)
        return request.checked()

    return run


@pytest.fixture
def refused(checked):
    """The problems of such a request, as (where, field, expected, found, advice)."""

    def run(tables: dict | None = None, *assignments: str) -> list[tuple[str, ...]]:
        with pytest.raises(UserError) as caught:
            checked(tables, *assignments)
        return [(p.where, p.field, p.expected, p.found, p.advice) for p in caught.value.problems]

    return run
