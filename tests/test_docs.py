"""The documentation's page of keys is what the table of actions says now."""

from __future__ import annotations

from docs import make


def test_the_page_of_keys_is_that_of_the_table():
    page = (make.DOCS / "keys.md").read_text(encoding="utf-8")
    assert page == make.keys(), "`python -m docs.make keys` writes it anew"


def test_every_panel_has_its_picture():
    from loratui import actions

    pictures = {path.stem for path in (make.DOCS / "pictures").glob("*.png")}
    assert pictures == set(actions.PANELS)
