"""The panel of projects: what there is, what runs, what went wrong; and what one can do about it."""

from __future__ import annotations


async def test_projects_and_the_runs_of_the_open_one_are_listed_with_their_states(open_desk, record):
    record.run("my-cat", "dreambooth")
    record.run(
        "product-shots", "style", state="failed", cause="out of memory at step 31", advice=("batch 1 fits",), steps=31
    )
    async with open_desk() as desk:
        await desk.sees("my-cat", "product-shots", "✗ 1", "✓ 1")
        await desk.press("j", "enter")
        await desk.sees("✗ out of memory at step 31", "→ batch 1 fits")
        assert desk.app.project == "product-shots"
