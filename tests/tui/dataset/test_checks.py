"""The check: what it finds, and the way from one finding to the next."""

from __future__ import annotations

from tui_dataset import at, edit

from engine.protocol.browse import ImagesChecked


def broken(folder, name="IMG_0002.png"):
    """Cut an image off in the middle, behind its header."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


async def test_the_check_is_made_unasked_and_finds_a_truncated_image(open_desk, project, cats, asked):
    broken(cats)
    project(cats)
    async with open_desk() as desk:
        await desk.sees("! 1 problem", "! IMG_0002.png")
        assert "! IMG_0001.png" not in desk.text()
        await at(desk, "IMG_0000.png")
        await desk.press("n")
        await at(desk, "IMG_0002.png")
        await desk.sees("! expected", "→")


async def test_problems_of_all_folders_are_reached_one_after_another(open_desk, project, images, asked):
    cats, dogs = images("cats"), images("dogs", 5, "a dog {number}")
    broken(cats, "IMG_0001.png")
    broken(dogs, "IMG_0000.png")
    broken(dogs, "IMG_0003.png")
    project(cats, dogs)
    async with open_desk() as desk:
        await desk.sees("! 1 problem, 2 elsewhere")
        await desk.press("n")
        await at(desk, "IMG_0001.png")
        await desk.press("n")
        await desk.sees("2 of 2", "! 2 problems")
        await at(desk, "IMG_0000.png")
        await desk.press("n")
        await at(desk, "IMG_0003.png")
        await desk.press("k", "N")
        await at(desk, "IMG_0000.png")
        await desk.press("N")
        await desk.sees("1 of 2")
        await at(desk, "IMG_0001.png")


async def test_all_findings_are_listed_and_lead_to_their_image_or_folder(open_desk, project, images, asked, tmp_path):
    cats = images("cats")
    broken(cats)
    project(cats, tmp_path / "gone")
    async with open_desk() as desk:
        await desk.sees("! 1 problem, 1 elsewhere")
        await desk.press("v")
        await desk.sees("What the check found", "IMG_0002.png", "gone")
        await desk.write("gone")
        await desk.press("enter")
        await desk.sees("2 of 2", "no such file")
        await desk.press("v")
        await desk.write("IMG")
        await desk.press("enter")
        await at(desk, "IMG_0002.png")


async def test_what_was_found_before_an_edit_is_told_as_such_until_the_next_check(open_desk, project, cats, asked):
    (cats / "IMG_0000.txt").write_text("a cat " * 40)
    project(cats)
    async with open_desk() as desk:
        await desk.sees("~ IMG_0000.png", "~ caption longer than", "80/75 ! 5 too many")
        await edit(desk, "a cat")
        await desk.press("enter")
        await desk.sees("before the last edit")
        await desk.press("c")
        await desk.no_longer_sees("caption longer than")
        await desk.sees("✓ no problems")


async def test_a_check_that_fails_says_why(open_desk, project, cats, asked, monkeypatch):
    project(cats, panel="projects")
    async with open_desk() as desk:
        real = desk.app.call

        async def call(method, *params):
            if method != "images.check":
                return await real(method, *params)
            desk.app.images_checked.publish(
                ImagesChecked(id=params[0].id, done=1, total=4, finished=True, failed="it was killed [/foo]")
            )

        monkeypatch.setattr(desk.app, "call", call)
        await desk.press("2")
        await desk.sees("✗ the check failed", "it was killed [/foo]")
