"""The image at the cursor: its picture, facts, findings, caption and how long that is; and the editor of captions.

Tokens are counted by the host with the base model's tokenizer, and each text only once. A caption is saved against what
it was made from: where another program has changed the file meanwhile, both texts are shown and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from engine.config import UserError
from engine.protocol.browse import (
    CaptionWritten,
    CountTokens,
    FolderRef,
    ImageEntry,
    ImageFinding,
    Images,
    TokenCounts,
    WriteCaption,
)
from loratui.client import HostError, HostGone
from loratui.screens import dataset_words as words
from loratui.screens.dataset_shelves import DEFAULT_BASE, Shelf
from loratui.widgets.caption_edit import CaptionEdit
from loratui.widgets.columns import clean
from loratui.widgets.picture import Picture

if TYPE_CHECKING:
    from loratui.bench import Bench

PAUSE = 0.15
"""Seconds without a key after which what was typed is counted."""


class ImageSide(Vertical):
    """`show` an image, `edit` its caption. `base`: the model whose tokens are counted."""

    DEFAULT_CSS = """
    ImageSide Picture { height: 1fr; }
    ImageSide #about-box { height: 45%; min-height: 5; padding: 0 1; scrollbar-size-vertical: 1; }
    ImageSide #about { height: auto; }
    ImageSide CaptionEdit { height: 45%; min-height: 5; }
    ImageSide.-editing #about-box { display: none; }
    """

    class Written(Message):
        """A caption was saved."""

        def __init__(self, written: CaptionWritten):
            super().__init__()
            self.written = written

    class Ended(Message):
        """The editor was closed, saved or not."""

    def __init__(self, **more: str):
        super().__init__(**more)
        self.base = DEFAULT_BASE
        self._counts: dict[tuple[str, str], TokenCounts] = {}
        self._uncounted = ""
        """The base whose tokenizer could not be had."""
        self._shown: tuple[ImageEntry, Shelf, Sequence[ImageFinding], bool] | None = None
        self._edited: tuple[str, ImageEntry, Shelf] | None = None
        """Project, image and folder of the caption that is being written."""
        self._expected = ""
        self._pause: Timer | None = None

    @property
    def bench(self) -> Bench:
        return self.app  # type: ignore[return-value]

    def compose(self) -> ComposeResult:
        yield Picture()
        with VerticalScroll(id="about-box"):
            yield Static("", id="about", markup=False)
        yield CaptionEdit()

    # --- looking ------------------------------------------------------------------------------------------------------

    def show(
        self, entry: ImageEntry | None, shelf: Shelf | None, findings: Sequence[ImageFinding] = (), edited: bool = False
    ) -> None:
        """Show an image, or nothing. `edited`: its findings are older than its caption."""
        self._shown = None if entry is None or shelf is None else (entry, shelf, findings, edited)
        if self._shown is None:
            self.query_one(Picture).show(None)
            self.query_one("#about", Static).update("")
        else:
            self.query_one(Picture).show(Path(entry.path), words.facts(entry))
            self.query_one("#about-box").scroll_home(animate=False)
            self._tell_about()
            self.run_worker(self._count_shown, group="count", exclusive=True, exit_on_error=False)
        self._tell_title()

    def recount(self) -> None:
        """Try again where tokens could not be counted."""
        self._uncounted = ""

    def _tell_title(self) -> None:
        entry = self._edited[1] if self._edited else self._shown[0] if self._shown else None
        title = Content(f"{'caption of ' if self._edited else ''}{clean(words.name(entry.path))}" if entry else "")
        if title != self.border_title:
            self.border_title = title

    def _tell_about(self) -> None:
        if self._shown is not None:
            entry, shelf, findings, edited = self._shown
            counted = self._length(words.trained(words.own_caption(entry), shelf))[0]
            told = words.about(entry, shelf, counted, findings, edited)
            self.query_one("#about", Static).update(told)

    async def _count_shown(self) -> None:
        entry, shelf, *_ = self._shown
        text = words.trained(words.own_caption(entry), shelf)
        if (self.base, text) not in self._counts and await self._count(text):
            self._tell_about()

    async def _count(self, text: str) -> bool:
        """Have the tokens of a text counted. False where that is not known."""
        base = self.base
        if base == self._uncounted:
            return False
        if (base, text) not in self._counts:
            try:
                counts = await self.bench.call("captions.count", CountTokens(base=base, texts=[text]))
            except (UserError, HostError):  # the form of runs says what is wrong with the base
                self._uncounted = base
                return False
            except HostGone:
                return False
            self._counts[base, text] = counts
        return True

    def _length(self, text: str) -> tuple[str, bool]:
        """The length of a text in words, and whether it is too long; empty where it was not counted."""
        counts = self._counts.get((self.base, text))
        if counts is None:
            return "", False
        return words.tokens(counts.tokens[0], counts.limit), counts.tokens[0] > counts.limit

    # --- writing ------------------------------------------------------------------------------------------------------

    @property
    def editing(self) -> bool:
        return self._edited is not None

    def edit(self, project: str, entry: ImageEntry | None, shelf: Shelf | None) -> None:
        """Write the caption of an image; or go on, where one is being written already."""
        editor = self.query_one(CaptionEdit)
        if self._edited is not None:
            editor.resume()
            return
        self._edited, self._expected = (project, entry, shelf), entry.caption
        self.add_class("-editing")
        editor.open(words.own_caption(entry), words.before_editing(entry, shelf))
        self._tell_title()
        self._measure()

    def _close(self) -> None:
        self._edited = None
        self.query_one(CaptionEdit).close()
        self.remove_class("-editing")
        self._tell_title()
        self.post_message(self.Ended())

    @on(CaptionEdit.Typed)
    def _typed(self) -> None:
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(PAUSE, self._measure)

    def _measure(self) -> None:
        self.run_worker(self._measure_now, group="measure", exclusive=True, exit_on_error=False)

    async def _measure_now(self) -> None:
        if self._edited is None:
            return
        editor = self.query_one(CaptionEdit)
        text = words.trained(editor.text.strip(), self._edited[2])
        await self._count(text)
        editor.measured(*self._length(text))

    @on(CaptionEdit.GivenUp)
    def _given_up(self) -> None:
        self._close()

    @on(CaptionEdit.Saved)
    def _saved(self, event: CaptionEdit.Saved) -> None:
        self.run_worker(self._save(event.text.strip()), group="save", exclusive=True, exit_on_error=False)

    async def _save(self, text: str) -> None:
        if self._edited is None:
            return
        project, entry, _ = self._edited
        if text == words.own_caption(entry) and self._expected == entry.caption:
            self._close()
            return
        editor = self.query_one(CaptionEdit)
        wanted = WriteCaption(project=project, path=entry.path, text=text, expected=self._expected)
        try:
            written = await self.bench.call("captions.write", wanted)
        except UserError as error:
            editor.tell(await self._conflict(entry) or str(error))
        except HostError as error:
            editor.tell(str(error))
        except HostGone:
            editor.tell("the host ended before it answered; ⏎ tries again")
        else:
            self._close()
            self.post_message(self.Written(written))

    async def _conflict(self, entry: ImageEntry) -> str:
        """What the image's caption says by now, if that is why the text was refused. Enter then replaces that."""
        ref = FolderRef(path=words.folder(entry.path), limit=1, at=entry.path)
        listed: Images | None = await self.bench.tried("images.list", ref)
        now = next((one for one in listed.images if one.path == entry.path), None) if listed else None
        if now is None or now.caption == self._expected:
            return ""
        self._expected = now.caption
        said = f"now says “{clean(now.caption)}”" if now.caption else "is empty now"
        return f"! not saved: another program changed the caption, which {said}. ⏎ replaces it, esc keeps it"
