"""Methods about what lies in folders: images and their captions, adapters."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from engine.host.pipe import Outbox
from engine.host.server import Method, Then
from engine.protocol import browse
from engine.protocol.base import Nothing

if TYPE_CHECKING:
    from engine.host.checks import Checks


class FolderMethods:
    """Those of one host; `table` names them. What each needs is imported when it is first called."""

    def __init__(self, workspace: Path, outbox: Outbox):
        self._workspace, self._outbox = workspace, outbox

    def table(self) -> dict[str, Method]:
        return {
            "adapters.list": self.list_adapters,
            "adapters.remove": self.remove_adapter,
            "images.list": self.list_images,
            "images.subsets": self.expand_subsets,
            "images.check": self.check_images,
            "captions.count": self.count_tokens,
            "captions.write": self.write_caption,
            "captions.undo": self.undo_caption,
            "captions.redo": self.redo_caption,
        }

    def list_adapters(self, params: browse.AdaptersRef) -> browse.Adapters:
        from engine.host import adapters

        return adapters.adapters(self._workspace, params)

    def remove_adapter(self, params: browse.FileRef) -> browse.Trashed:
        from engine.host import adapters

        return adapters.remove(self._workspace, params.path)

    def list_images(self, params: browse.FolderRef) -> browse.Images:
        from engine.host import images

        return images.images(params)

    def expand_subsets(self, params: browse.SubsetsRef) -> browse.SubsetFolders:
        from engine.host import images

        return images.subsets(params.subsets)

    def check_images(self, params: browse.CheckImages) -> Then:
        return Then(Nothing(), functools.partial(self._checks.start, params))

    def count_tokens(self, params: browse.CountTokens) -> browse.TokenCounts:
        from engine.host import tokens

        return tokens.count(params.base, params.texts)

    def write_caption(self, params: browse.WriteCaption) -> browse.CaptionWritten:
        from engine.host import edits

        return edits.write(self._workspace, params)

    def undo_caption(self, params: browse.ProjectRef) -> browse.CaptionWritten:
        from engine.host import edits

        return edits.undo(self._workspace, params.name)

    def redo_caption(self, params: browse.ProjectRef) -> browse.CaptionWritten:
        from engine.host import edits

        return edits.redo(self._workspace, params.name)

    @functools.cached_property
    def _checks(self) -> Checks:
        from engine.host.checks import Checks

        return Checks(self._outbox)
