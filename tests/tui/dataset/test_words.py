"""What is said of folders, images and captions; what a draft's subsets are; where the jump between findings leads."""

from __future__ import annotations

import itertools

import pytest
from rich.style import Style

from engine.config import Problem
from engine.data import captions
from engine.protocol.browse import ImageEntry, ImageFinding, ImagesChecked, SubsetFolder, SubsetFolders
from loratui import figures
from loratui.screens import dataset_shelves as shelves
from loratui.screens import dataset_words as words
from loratui.screens.dataset_findings import Check, next_stop
from loratui.screens.dataset_shelves import Shelf
from loratui.screens.paths import completions
from loratui.widgets.caption_edit import on_one_line

PLAIN = Shelf({"path": "/cats"}, "/cats", images=3)


def entry(path="/cats/a.png", caption="a cat", source=".txt", **more) -> ImageEntry:
    return ImageEntry(path=path, bytes=2048, caption=caption, caption_source=source, **more)


def problem(path: str, severity="problem", text="6 % of 1024²: skipped") -> ImageFinding:
    return ImageFinding(path=path, severity=severity, text=text, advice="use a larger picture")


# --- captions


@pytest.mark.parametrize("text", ["a cat", "", "a cat."])
def test_training_reads_what_the_panel_says_it_reads(text):
    parts = ("", " ", "photo of", " photo of ", ", best quality", ". End", "[best quality]", " and a dog ")
    for prefix, suffix in itertools.product(parts, parts):
        assert words.affixed(text, prefix, suffix) == captions.affixed(text, prefix, suffix)


def test_an_image_without_a_caption_is_trained_on_the_class_words():
    shelf = Shelf(
        {"path": "/c", "class_tokens": "ohwx cat", "caption_prefix": "photo of"}, "/c", class_tokens="ohwx cat"
    )
    assert words.trained(words.own_caption(entry(caption="", source="none")), shelf) == "photo of ohwx cat"
    assert words.trained(words.own_caption(entry()), shelf) == "photo of a cat"


@pytest.mark.parametrize(
    ("source", "table", "tokens", "said"),
    [
        (".txt", {}, "ohwx cat", ".txt"),
        ("metadata.jsonl", {}, "", "metadata.jsonl"),
        ("folder name", {}, "ohwx cat", "the folder's name"),
        ("folder name", {"class_tokens": "ohwx cat"}, "ohwx cat", "class words of the folder's settings"),
    ],
)
def test_it_is_said_where_a_caption_comes_from(source, table, tokens, said):
    assert words.source(entry(source=source), Shelf({"path": "/c"} | table, "/c", class_tokens=tokens)) == said


def test_a_caption_that_is_too_long_is_told_by_a_sign_and_in_words():
    assert words.tokens(12, 75) == "12/75"
    assert words.tokens(80, 75) == "80/75 ! 5 too many: the end is not read"


def test_a_caption_being_written_holds_no_line_break_and_nothing_that_steers_the_terminal():
    assert on_one_line("a\r\n b\u2028c\td\x1b[2J[/foo]") == "a b c d[2J[/foo]"


# --- rows and lines


@pytest.mark.parametrize("width", [10, 30, 46, 58, 80, 200])
def test_rows_are_as_wide_as_the_list_and_show_markup_as_it_is(width):
    row = words.image_row(
        entry("/cats/[b]x[foo].png", "[best quality] 猫猫", width=8, height=9), PLAIN, (), width, _no_style
    )
    assert row.cell_len == width
    assert row.plain.startswith("  [b]x["[: width - 3])


def test_a_problem_takes_the_place_of_the_caption_and_a_note_does_not():
    found = words.image_row(entry(), PLAIN, [problem("/cats/a.png")], 80, _no_style).plain
    assert found.startswith("! a.png") and "skipped" in found and "a cat" not in found
    found = words.image_row(entry(), PLAIN, [problem("/cats/a.png", "note")], 80, _no_style).plain
    assert found.startswith("~ a.png") and "a cat" in found


def test_an_image_that_has_not_come_yet_is_a_mark():
    assert words.PLACEHOLDER in words.image_row(None, PLAIN, (), 40, _no_style).plain


@pytest.mark.parametrize("width", [0, 1, 8, 20, 60, 120])
def test_the_line_about_a_folder_fits_and_keeps_the_end_of_its_path(width):
    line = words.folder_line("/data/photographs/of/my/10_ohwx cat", ["24 images", "10 repeats", "! 2 problems"], width)
    assert len(line) <= width
    assert width < 60 or "10_ohwx cat · 24 images · 10 repeats" in line
    assert width < 120 or "! 2 problems" in line


def test_all_that_a_check_found_about_an_image_is_told_with_advice():
    told = words.about(entry(), PLAIN, "2/75", [problem("a", "note", "turned [/foo]"), problem("a")], edited=True).plain
    assert told.index("! 6 %") < told.index("→ use a larger picture") < told.index("~ turned [/foo]")
    assert "before the last edit" in told


def test_an_image_without_any_caption_says_what_to_do():
    bare = entry(caption="", source="none")
    assert words.about(bare, PLAIN, "0/75", ()).plain == "no caption: e writes one"
    prefixed = Shelf({"path": "/c", "caption_prefix": "a photo"}, "/c")
    assert words.about(bare, prefixed, "2/75", ()).plain.endswith("training reads  2/75\na photo")


def test_a_path_in_the_home_is_told_as_one_types_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert figures.at_home("/home/me/cats") == "~/cats"
    assert figures.at_home("/home/meadow") == "/home/meadow"


def _no_style(name: str) -> Style:
    return Style()


# --- drafts


def test_nothing_but_the_subsets_of_a_draft_is_changed():
    config = {"model": {"base": "x"}, "dataset": {"resolution": 512, "subsets": [{"path": "/a"}]}}
    changed = shelves.with_subsets(config, [{"path": "/b"}])
    assert changed == {"model": {"base": "x"}, "dataset": {"resolution": 512, "subsets": [{"path": "/b"}]}}
    assert config["dataset"]["subsets"] == [{"path": "/a"}]


@pytest.mark.parametrize("config", [{}, {"dataset": 3}, {"dataset": {"subsets": "x"}}, {"dataset": {"subsets": [3]}}])
def test_a_draft_that_holds_something_else_has_no_subsets(config):
    assert shelves.subsets(config) == []
    assert shelves.subsets(shelves.with_subsets(config, [{"path": "/a"}])) == [{"path": "/a"}]
    assert shelves.to_check(config) == {"model": {"base": "tiny"}, "dataset": shelves.to_check(config)["dataset"]}


def test_every_folder_is_a_shelf_and_so_is_a_subset_without_any():
    tables = [{"path": "/gone"}, {"path": "/cats"}]
    gone = Problem(where="/gone", field="dataset.subsets[0].path", expected="a folder", found="nothing")
    both = [SubsetFolder(subset=1, path=f"/cats/{n}", images=n, repeats=1) for n in (10, 5)]
    found = shelves.shelves(tables, SubsetFolders(folders=both, problems=[gone]))
    assert [(shelf.path, shelf.images, len(shelf.problems)) for shelf in found] == [
        ("/gone", 0, 1), ("/cats/10", 10, 0), ("/cats/5", 5, 0),
    ]  # fmt: skip


def test_the_first_guess_is_the_folder_of_last_time_if_it_can_be_one():
    tables = [{"path": "/dogs"}, {"path": "/cats"}]
    assert shelves.guess(tables, "/cats").table == {"path": "/cats"}
    assert shelves.guess(tables, "/cats/10_cat").path == "/cats/10_cat"
    assert shelves.guess(tables, "/elsewhere").path == "/dogs"


def test_a_subset_is_changed_only_where_it_still_is():
    tables = [{"path": "/a"}, {"path": "/b"}]
    assert shelves.changed(tables, {"path": "/b"}, None) == [{"path": "/a"}]
    assert shelves.changed(tables, {"path": "/a"}, {"path": "/c"}) == [{"path": "/c"}, {"path": "/b"}]
    assert shelves.changed(tables, {"path": "/a", "repeats": 2}, None) is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("repeats", "7", 7),
        ("caption_dropout", "1", 1.0),
        ("caption_dropout", "0.1", 0.1),
        ("is_reg", "Yes", True),
        ("class_tokens", "10", "10"),
        ("caption_prefix", "true", "true"),
    ],
)
def test_settings_are_read_as_their_field_takes_them(name, text, value):
    assert shelves.wrong(name, text) == ""
    table = shelves.with_setting({"path": "/a"}, name, text)
    assert table == {"path": "/a", name: value} and type(table[name]) is type(value)
    assert shelves.parsed(name, shelves.spelled(value)) == value


@pytest.mark.parametrize(
    ("name", "text"), [("repeats", "0"), ("repeats", "x"), ("is_reg", "perhaps"), ("crops", "1.5")]
)
def test_what_is_wrong_with_a_setting_is_told(name, text):
    assert "expected" in shelves.wrong(name, text)


def test_a_setting_that_is_given_its_default_is_left_to_the_default():
    assert shelves.with_setting({"path": "/a", "repeats": 3}, "repeats", "1") == {"path": "/a"}


def test_every_field_of_a_subset_can_be_set():
    for name in shelves.settings():
        assert shelves.wrong(name, shelves.spelled(shelves.default(name))) == "", name
        assert shelves.help_for(name)


def test_a_path_is_completed_as_far_as_there_is_but_one_way(tmp_path, monkeypatch):
    for name in ("cats", "cats and dogs", "dogs [x]", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "carp.png").touch()
    (tmp_path / "note.safetensors").touch()
    assert completions(f"{tmp_path}/c") == (f"{tmp_path}/cats", ["cats/", "cats and dogs/"])
    assert completions(f"{tmp_path}/d") == (f"{tmp_path}/dogs [x]/", ["dogs [x]/"])
    assert completions(f"{tmp_path}/nothing") == (f"{tmp_path}/nothing", [])
    assert completions(f"{tmp_path}/gone/x") == (f"{tmp_path}/gone/x", [])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert completions("~/d") == ("~/dogs [x]/", ["dogs [x]/"])
    assert completions(f"{tmp_path}/n", (".safetensors",)) == (f"{tmp_path}/note.safetensors", ["note.safetensors"])
    monkeypatch.chdir(tmp_path)
    assert completions("d") == ("dogs [x]/", ["dogs [x]/"])


# --- the check


def checked(*findings: ImageFinding) -> Check:
    check = Check()
    check.take(ImagesChecked(id=check.begin(), done=3, total=3, finished=True, findings=list(findings)))
    return check


def test_a_check_that_was_not_asked_for_is_not_heard():
    check = checked(problem("/cats/a.png"))
    assert not check.take(ImagesChecked(id="other", done=1, total=1, finished=True))
    first = check.begin()
    check.begin()
    assert not check.take(ImagesChecked(id=first, done=1, total=1, finished=True))
    assert check.running and len(check.of("/cats/a.png")) == 1


def test_findings_stand_until_the_next_check_has_ended():
    check = checked(problem("/cats/a.png"))
    identity = check.begin()
    check.take(ImagesChecked(id=identity, done=1, total=3))
    assert check.progress() == "checking 1/3" and check.of("/cats/a.png")
    check.take(ImagesChecked(id=identity, done=3, total=3, finished=True))
    assert check.progress() == "" and not check.of("/cats/a.png") and check.finished


def test_findings_are_counted_here_and_elsewhere():
    check = checked(
        problem("/cats/a.png"), problem("/cats", "note"), problem("/cats/a.png", "note"), problem("/dogs/a.png")
    )
    assert [check.count(severity, "/cats") for severity in ("problem", "note")] == [1, 2]
    assert check.elsewhere("/cats") == 1


def test_notes_are_stops_only_where_there_are_no_problems():
    check = checked(problem("/cats/a.png", "note"), problem("/cats/b.png"))
    assert check.stops(["/cats"]) == {"/cats": ["/cats/b.png"]}
    assert checked(problem("/cats/a.png", "note")).stops(["/cats"]) == {"/cats": ["/cats/a.png"]}
    assert checked(problem("/cats", "note")).stops(["/cats"]) == {}


STOPS = {"/b": ["/b/2", "/b/5"], "/c": ["/c/1"]}


@pytest.mark.parametrize(
    ("at", "step", "to"),
    [
        ("/b/2", 1, "/b/5"),
        ("/b/5", 1, "/c/1"),
        ("/c/1", 1, "/b/2"),
        ("/b/2", -1, "/c/1"),
        ("/c/1", -1, "/b/5"),
        ("/b/3", 1, "/b/5"),
        ("/b/3", -1, "/b/2"),
        ("/b/1", -1, "/c/1"),
        ("/b/7", 1, "/c/1"),
        ("/a/1", 1, "/b/2"),
        ("/a/1", -1, "/c/1"),
    ],
)
async def test_the_jump_goes_to_the_nearest_stop_and_round_the_folders(at, step, to):
    async def precedes(path: str) -> bool:
        return path < at

    assert await next_stop(STOPS, ["/a", "/b", "/c", "/d"], (at[:2], at), step, precedes) == to


async def test_the_only_stop_is_reached_from_itself_and_none_from_nothing():
    async def precedes(path: str) -> bool:
        raise AssertionError

    assert await next_stop({"/b": ["/b/2"]}, ["/a", "/b"], ("/b", "/b/2"), 1, precedes) == "/b/2"
    assert await next_stop({}, ["/a"], ("/a", "/a/1"), 1, precedes) == ""
