from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from engine.data.notes import Note, shown, summary


@given(st.binary(max_size=40).map(os.fsdecode))
def test_any_path_is_shown_in_one_line_that_can_be_written(path):
    text = shown(path)
    text.encode()
    assert len(text.splitlines()) <= 1


def test_a_path_of_visible_characters_is_shown_as_it_is():
    assert shown("/a b/Kätzchen's 猫.png") == "/a b/Kätzchen's 猫.png"


def test_notes_of_a_kind_fold_into_one_line_with_a_few_examples():
    notes = [Note("enlarged", f"/x/{i}.png", f"1.{i} times") for i in range(6)] + [Note("no caption", "/x/a.png")]
    assert summary(notes) == [
        "enlarged: 6 files: 0.png (1.0 times), 1.png (1.1 times), 2.png (1.2 times) and 3 more",
        "/x/a.png: no caption",
    ]
    assert summary([Note("n", "/x/a.png"), Note("n", "/x/b.png")]) == ["n: 2 files: a.png, b.png"]
