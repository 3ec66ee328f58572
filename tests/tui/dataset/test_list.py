"""The list of images: what it shows, filters and finds, on real folders and a real host."""

from __future__ import annotations

from tui_dataset import at, listed, name_at_cursor

from engine.protocol.browse import ImageEntry, Images, SubsetFolder, SubsetFolders


async def test_images_are_listed_with_size_and_caption_and_the_one_at_the_cursor_is_told_in_full(
    open_desk, project, cats
):
    (cats / "IMG_0001.txt").write_text("a long caption of an ohwx cat that sleeps on a sofa [/foo] in the sun\n")
    project(cats)
    async with open_desk() as desk:
        await desk.sees("IMG_0000.png", "64×80", "an ohwx cat 3", "4 images")
        await desk.press("j")
        await desk.sees("caption (.txt)", "[/foo]", "in the sun", "29/75")


async def test_without_a_project_it_says_what_to_do(open_desk, workspace):
    async with open_desk(panel="dataset") as desk:
        await desk.sees("No project is open", "n makes one")
        await desk.press("a")
        await desk.until(lambda: "no project is open" in desk.said(), "the reason")


async def test_a_project_without_folders_says_what_to_do(open_desk, project):
    project()
    async with open_desk() as desk:
        await desk.sees("no images yet", "a adds a folder")


async def test_a_folder_of_the_draft_that_is_gone_is_told_with_what_to_do(open_desk, project, cats, tmp_path):
    project(tmp_path / "gone", cats)
    async with open_desk() as desk:
        await desk.sees("gone", "no such file or directory", "d takes it out", "1 of 2")
        await desk.press("right_square_bracket")
        await desk.sees("IMG_0000.png", "2 of 2")
        await desk.no_longer_sees("no such file")


async def test_a_draft_that_can_not_be_read_is_told(open_desk, project, cats):
    folder = project(cats)
    (folder / "draft.toml").write_text("[[[")
    async with open_desk() as desk:
        await desk.sees("draft.toml can't be read", "a adds a folder")


async def test_words_filter_the_list_and_escape_shows_all_again(open_desk, project, cats):
    (cats / "IMG_0002.txt").write_text("a blurry ohwx cat\n")
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("slash")
        await desk.write("cat -blurry -0")
        await desk.sees("0 of 4 images", "nothing has these words")
        await desk.press("backspace", "1")
        await desk.sees("2 of 4 images")
        await desk.press("enter")
        await desk.no_longer_sees("IMG_0002.png")
        await desk.until(lambda: listed(desk).has_focus, "the list in focus again")
        await desk.press("escape")
        await desk.sees("IMG_0002.png")
        await desk.no_longer_sees("of 4 images")


async def test_the_filter_the_folder_and_the_image_are_found_again_at_the_next_start(
    open_desk, images, project, cats, tmp_path
):
    project(cats, images("dogs", 9, "a dog {number}"))
    async with open_desk() as desk:
        await desk.sees("1 of 2", "IMG_0000.png")
        await desk.press("right_square_bracket", "slash")
        await desk.write("dog")
        await desk.press("enter", "j", "j", "j")
        await at(desk, "IMG_0003.png")
        desk.app.remember()
    async with open_desk() as desk:
        await desk.sees("dogs", "9 of 9 images", "a dog 8")
        await at(desk, "IMG_0003.png")


async def test_the_finder_leads_to_an_image_of_another_folder_past_the_filter(
    open_desk, images, project, cats, tmp_path
):
    dogs = images("dogs", 9, "a dog {number}")
    project(cats, dogs)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("slash")
        await desk.write("cat")
        await desk.press("enter")
        desk.panel.go_to(str(dogs / "IMG_0007.png"))
        await at(desk, "IMG_0007.png")
        await desk.sees("a dog 8")
        desk.panel.go_to(str(cats / "IMG_0002.png"))
        await at(desk, "IMG_0002.png")
        desk.panel.go_to("/elsewhere/a.png")
        await desk.until(lambda: "in no folder of this project" in desk.said(), "the reason")
        assert desk.panel.copied() == (str(cats / "IMG_0002.png"), "the image's path")


async def test_images_and_captions_that_others_changed_are_seen_when_the_panel_is_shown_again(open_desk, project, cats):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("j", "j")
        await at(desk, "IMG_0002.png")
        await desk.press("1")
        (cats / "IMG_0001.txt").unlink()
        (cats / "IMG_0001.png").unlink()
        (cats / "IMG_0003.txt").write_text("another caption\n")
        await desk.press("2")
        await desk.sees("another caption", "3 images")
        await at(desk, "IMG_0002.png")
        assert listed(desk).cursor == 1


async def test_a_hundred_thousand_images_are_scrolled_without_asking_for_them_all(
    open_desk, project, cats, monkeypatch
):
    project(cats, panel="projects")
    asked = []

    def entry(number):
        return ImageEntry(path=f"{cats}/{number}.png", bytes=1, width=8, height=8, caption=f"cat {number}")

    async with open_desk() as desk:
        real = desk.app.call

        async def call(method, *params):
            if method == "images.subsets":
                return SubsetFolders(folders=[SubsetFolder(subset=0, path=str(cats), images=100_000, repeats=1)])
            if method != "images.list":
                return await real(method, *params)
            asked.append(params[0].offset)
            stop = min(100_000, params[0].offset + params[0].limit)
            return Images(total=100_000, images=[entry(number) for number in range(params[0].offset, stop)])

        monkeypatch.setattr(desk.app, "call", call)
        await desk.press("2")
        await desk.sees("100,000 images", "0.png")
        await desk.press("end")
        await at(desk, "99999.png")
        await desk.press("home", *["pagedown"] * 20)
        await desk.until(lambda: listed(desk).entry is not None and listed(desk).cursor > 500, "an image far down")
        await desk.sees(name_at_cursor(desk))
        assert len(set(asked)) < 12


async def test_a_large_project_is_not_checked_unasked(open_desk, project, cats, monkeypatch):
    monkeypatch.setattr("loratui.screens.dataset_checks.UNASKED", 3)
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("n")
        await desk.until(lambda: "nothing was checked yet: c checks" in desk.said(), "the reason")
        await desk.press("c")
        await desk.sees("✓ no problems")
