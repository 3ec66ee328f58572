from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.structs import Subset
from engine.data.captions import Caption, affixed, decode, read_captions, sources
from engine.data.folders import expand


@pytest.fixture
def read(tmp_path):
    """Captions by image name, notes and problems of one subset."""

    def run(path="cats", **settings):
        (folder,), _, problems = expand([Subset(path=path, **settings)], tmp_path)
        assert not problems
        captions, notes, problems = read_captions(folder)
        return {image.name: caption for image, caption in captions.items()}, notes, problems

    return run


def test_the_first_source_with_words_wins(folder_of, read):
    cats = folder_of("10_ohwx cat", "a.png", "b.png", "c.png", "d.png", a="from txt")
    for name in "ab":
        (cats / f"{name}.caption").write_text("from caption")
    lines = [{"file_name": f"{name}.png", "text": "from metadata"} for name in "abc"]
    (cats / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    captions, notes, problems = read("10_ohwx cat")
    assert captions == {
        "a.png": Caption("from txt", ".txt"),
        "b.png": Caption("from caption", ".caption"),
        "c.png": Caption("from metadata", "metadata.jsonl"),
        "d.png": Caption("ohwx cat", "folder name"),
    }
    assert not notes and not problems
    assert sources(captions.values()) == {".txt": 1, ".caption": 1, "metadata.jsonl": 1, "folder name": 1}


def test_class_tokens_of_the_subset_caption_what_has_none_and_else_it_is_said(folder_of, read):
    folder_of("cats", "a.png", "b.png", a="a cat")
    assert read(class_tokens="ohwx cat")[0]["b.png"] == Caption("ohwx cat", "class_tokens")
    captions, notes, _ = read()
    assert captions["b.png"] == Caption("", "none")
    assert [note.what for note in notes] == ["no caption"]


def test_an_empty_caption_file_is_passed_over_with_a_note(folder_of, read):
    cats = folder_of("cats", "a.png", a=" \n\n")
    (cats / "a.caption").write_text("from caption")
    captions, notes, _ = read()
    assert captions["a.png"] == Caption("from caption", ".caption")
    assert notes[0].what == "empty caption file passed over" and notes[0].where.endswith("a.txt")


def test_of_several_lines_the_first_with_words_is_the_caption(folder_of, read):
    folder_of("cats", "a.png", a="\n  a cat, sitting  \nsecond\nthird\n")
    captions, notes, _ = read()
    assert captions["a.png"].text == "a cat, sitting"
    assert notes[0].detail == "of 3"


@pytest.mark.parametrize(
    ("content", "text", "encoding"),
    [
        ("ein Kätzchen".encode(), "ein Kätzchen", ""),
        ("ein Kätzchen".encode("utf-8-sig"), "ein Kätzchen", ""),
        ("ein Kätzchen".encode("utf-16"), "ein Kätzchen", "utf-16"),
        ("ein Kätzchen – „nett“".encode("cp1252"), "ein Kätzchen – „nett“", "cp1252"),
        (b"caf\xe9 \x81", "café \x81", "latin-1"),
    ],
)
def test_odd_encodings_are_read_and_named(folder_of, read, content, text, encoding):
    cats = folder_of("cats", "a.png")
    (cats / "a.txt").write_bytes(content)
    captions, notes, _ = read()
    assert captions["a.png"].text == text
    assert [note.detail for note in notes] == ([f"read as {encoding}"] if encoding else [])


@given(st.binary(max_size=200))
def test_any_bytes_are_some_text_that_can_be_written_down(content):
    decode(content)[0].encode()


@pytest.mark.parametrize(
    ("prefix", "text", "suffix", "whole"),
    [
        ("", "a cat", "", "a cat"),
        ("photo of", "a cat", "on grass", "photo of a cat on grass"),
        ("ohwx, ", "a cat", ", best quality", "ohwx, a cat, best quality"),
        ("ohwx", "", "", "ohwx"),
        ("", "", ", style", ", style"),
    ],
)
def test_prefix_and_suffix_go_around_every_caption(prefix, text, suffix, whole):
    assert affixed(text, prefix, suffix) == whole


def test_prefix_and_suffix_reach_captions_of_every_source(folder_of, read):
    folder_of("cats", "a.png", "b.png", a="a cat")
    captions, _, _ = read(class_tokens="cat", caption_prefix="ohwx", caption_suffix="x")
    assert [caption.text for caption in captions.values()] == ["ohwx a cat x", "ohwx cat x"]


@pytest.mark.parametrize("field", ["text", "caption", "prompt"])
def test_metadata_may_name_its_caption_in_three_ways(folder_of, read, field):
    cats = folder_of("cats", "a.png")
    (cats / "metadata.jsonl").write_text(json.dumps({"file_name": "./a.png", field: "a cat", "width": 3}) + "\n\n")
    assert read()[0]["a.png"] == Caption("a cat", "metadata.jsonl")


def test_metadata_matches_names_whose_accents_are_stored_apart(folder_of, read):
    cats = folder_of("cats", "Ka\u0308tzchen.png")
    (cats / "metadata.jsonl").write_text(json.dumps({"file_name": "K\u00e4tzchen.png", "text": "a kitten"}))
    assert next(iter(read()[0].values())).text == "a kitten"


def test_metadata_lines_without_effect_are_said(folder_of, read):
    cats = folder_of("cats", "a.png", "b.png")
    entries = [("a.png", "first"), ("a.png", "second"), ("gone.png", "x"), ("sub/a.png", "x"), ("b.png", " ")]
    (cats / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": n, "text": t}) for n, t in entries))
    captions, notes, problems = read()
    assert captions["a.png"].text == "first"
    assert [note.what for note in notes] == [
        "a second line for an image is passed over",
        "a line names no image of this folder",
        "a line names no image of this folder",
        "empty caption passed over",
        "no caption",
    ]
    assert not problems


def test_half_a_surrogate_pair_in_metadata_becomes_writable_text(folder_of, read):
    cats = folder_of("cats", "a.png")
    lines = [r'{"file_name": "a.png", "text": "cat \ud83d"}', r'{"file_name": "\ud83d.png", "text": "x"}']
    (cats / "metadata.jsonl").write_text("\n".join(lines))
    captions, notes, _ = read()
    assert captions["a.png"].text == "cat ?"
    str(notes[0]).encode()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{not json", "one JSON object a line"),
        ("[" * 100_000, "one JSON object a line"),
        ('["a.png", "a cat"]', 'an object with a "file_name"'),
        ('{"text": "a cat"}', 'an object with a "file_name"'),
        ('{"file_name": 3, "text": "a cat"}', 'an object with a "file_name"'),
        ('{"file_name": "a.png"}', 'the caption in "text"'),
        ('{"file_name": "../a.png", "text": "x"}', "a file_name inside the folder"),
        ('{"file_name": "sub/../../a.png", "text": "x"}', "a file_name inside the folder"),
        ('{"file_name": "/etc/a.png", "text": "x"}', "a file_name inside the folder"),
        ('{"file_name": "C:\\\\a.png", "text": "x"}', "a file_name inside the folder"),
        ('{"file_name": "..\\\\a.png", "text": "x"}', "a file_name inside the folder"),
    ],
)
def test_a_bad_metadata_line_is_a_problem_with_its_number(folder_of, read, line, expected):
    cats = folder_of("cats", "a.png")
    (cats / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "fine"}\n' + line)
    captions, _, problems = read()
    assert [(p.where, p.field, p.expected) for p in problems] == [(str(cats / "metadata.jsonl"), "line 2", expected)]
    assert len(str(problems[0])) < 400
    assert captions["a.png"].text == "fine"


def test_a_caption_file_that_cannot_be_read_is_a_problem(folder_of, read):
    cats = folder_of("cats", "a.png")
    (cats / "a.txt").mkdir()
    _, _, (problem,) = read()
    assert problem.where == str(cats / "a.txt") and problem.found == "is a directory"


def test_a_name_too_long_for_a_caption_file_has_none(folder_of, read):
    folder_of("cats", "x" * 251 + ".png")
    captions, _, problems = read(class_tokens="cat")
    assert [caption.text for caption in captions.values()] == ["cat"] and not problems
