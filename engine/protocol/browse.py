"""Messages about what lies in folders: projects and their drafts, images and captions, adapters, and the arithmetic
that a run over them makes. `messages.METHODS` says which method takes and gives which.
"""

from __future__ import annotations

from typing import Any, Literal

from engine.errors import Problem
from engine.protocol.base import Message


class ProjectSummary(Message, frozen=True):
    name: str
    path: str
    jobs: int
    running: int
    updated: float


class Projects(Message, frozen=True):
    projects: list[ProjectSummary]


class ProjectRef(Message, frozen=True):
    name: str


class RenameProject(Message, frozen=True):
    """Refused while a job of the project is live or waits: both are known by their folder."""

    name: str
    to: str


class Draft(Message, frozen=True):
    """What the form of a project holds: values that a config would, whether or not they make one yet."""

    project: str
    preset: str = "dreambooth"
    config: dict[str, Any] = {}
    """Nested tables of the fields that were set; subsets are in `config["dataset"]["subsets"]`."""
    problem: str = ""
    """Why the draft on disk can't be read, where it can't. It is then kept under another name when one is written."""


class FolderRef(Message, frozen=True):
    """A page of a folder's entries. `find`: words that the name or caption must hold, and `-word` must not hold."""

    path: str
    offset: int = 0
    limit: int = 1000
    find: str = ""
    at: str = ""
    """The path of an entry: the page begins with it, wherever it is; there are none in it if it is not listed."""


class ImageEntry(Message, frozen=True):
    """A picture of a folder; width and height are 0 where its header can't be read."""

    path: str
    bytes: int
    width: int = 0
    height: int = 0
    caption: str = ""
    caption_source: str = ""


class Images(Message, frozen=True):
    total: int
    """How many match."""
    images: list[ImageEntry]
    offset: int = 0
    """The place of the first of these among all that match."""


class SubsetsRef(Message, frozen=True):
    """Subsets as `dataset.subsets` of a config has them, paths absolute."""

    subsets: list[dict[str, Any]]


class SubsetFolder(Message, frozen=True):
    """One folder of images that a subset stands for: itself, or a folder inside it named as `10_ohwx cat` is."""

    subset: int
    """Index of its subset."""
    path: str
    images: int
    repeats: int
    class_tokens: str = ""
    is_reg: bool = False


class SubsetFolders(Message, frozen=True):
    folders: list[SubsetFolder]
    problems: list[Problem] = []
    """Of subsets that stand for no folder; `field` is dataset.subsets[i].path."""


class CountTokens(Message, frozen=True):
    base: str
    texts: list[str]


class TokenCounts(Message, frozen=True):
    tokens: list[int]
    """The user's own, without the marks of begin and end."""
    limit: int
    """How many the text encoder reads."""


class WriteCaption(Message, frozen=True):
    """Make `text` the caption of an image: the .txt beside it is replaced whole, and what was is kept for undo."""

    project: str
    path: str
    text: str
    expected: str = ""
    """The caption that the text was made from: refused where the file says something else by now."""


class CaptionWritten(Message, frozen=True):
    path: str
    caption: str
    source: str
    undo: int
    """Edits that can be undone, and redone, in this project."""
    redo: int


class CheckImages(Message, frozen=True):
    """Look at every image of these subsets as training would. A check that is under way is given up for the new one."""

    config: dict[str, Any]
    """Tables `model` and `dataset` of a config; the rest is not read."""
    id: str
    """Comes back in the notifications."""


class ImageFinding(Message, frozen=True):
    """One thing that the check found. `problem`: the image can't be used; `note`: it can, and should be looked at."""

    path: str
    """Of the image where it is about one, else what it is about."""
    severity: Literal["problem", "note"]
    text: str
    advice: str = ""


class ImagesChecked(Message, frozen=True):
    """Notification `images.checked`: how far a check has come, and at its end all that it found."""

    id: str
    done: int
    total: int
    finished: bool = False
    findings: list[ImageFinding] = []
    """Complete with `finished`, empty before."""
    failed: str = ""
    """Why the check itself could not be made."""


class PlanRun(Message, frozen=True):
    """A training config as a table, paths absolute; it may be incomplete."""

    config: dict[str, Any]


class RunPlan(Message, frozen=True):
    """The arithmetic of a run, from file headers alone: nothing is decoded, and no image is judged."""

    text: str = ""
    """In one line, as training will say it."""
    images: int = 0
    class_images: int = 0
    """Those that a subset brings."""
    class_images_to_draw: int = 0
    per_epoch: int = 0
    steps_per_epoch: float = 0.0
    steps: int = 0
    epochs: float = 0.0
    views_per_image: float = 0.0
    buckets: list[str] = []
    adapter_bytes: int | None = None
    """Of one saved adapter; None where the target pattern has to be matched against the model to know it."""
    adapters: int = 0
    """How many will be saved."""
    state_bytes: int | None = None
    states: int = 0
    samples: int = 0
    """Pictures that will be drawn."""
    disk_bytes: int | None = None
    """What the run's folder and its share of the cache will come to."""
    disk_free: int = 0
    problems: list[Problem] = []


class AdaptersRef(Message, frozen=True):
    """A page of the adapter files of folders and all below them; newest first."""

    folders: list[str] = []
    project: str = ""
    """Its runs' files come too."""
    offset: int = 0
    limit: int = 1000
    find: str = ""
    """As in FolderRef, over name, run, family and trigger words."""


class AdapterHeader(Message, frozen=True):
    """What the header of an adapter file says; `problem` instead where it can't be read."""

    path: str
    bytes: int
    modified: float
    metadata: dict[str, str] = {}
    tensors: int = 0
    problem: str = ""
    folder: str = ""
    """The listed folder that it was found under; empty for a run's file."""
    run: str = ""
    """Id of the job that wrote it, where it lies in one's folder."""
    step: int | None = None
    """Of a checkpoint; None for a run's last file and for files from elsewhere."""
    format: str = ""
    """`kohya`, `peft`, `cloneofsimo`, `embedding`, `pickle` for a .pt file, whose header is not
    looked at, or empty where the keys are none of these."""
    family: str = ""
    """By its metadata, else by its keys: sd1, sd2, sdxl; empty where neither tells."""
    ranks: list[int] = []
    """Each rank that occurs, smallest first."""
    alphas: list[float] = []
    modules: dict[str, int] = {}
    """Part (unet, text_encoder …) → adapted modules."""
    trigger: str = ""


class Adapters(Message, frozen=True):
    total: int
    adapters: list[AdapterHeader]


class FileRef(Message, frozen=True):
    path: str


class Trashed(Message, frozen=True):
    path: str
    trash: str
    """Where it lies now."""
    bytes: int
