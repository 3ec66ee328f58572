"""The messages of the pipe: JSON-RPC 2.0, one message a line, requests and replies and notifications.

`METHODS` is the whole interface of the host: name → what it takes and gives. A host says hello with its protocol
version; a client of another version stops there. Fields are added with defaults and never given a new meaning, so an
older client keeps working.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from engine.protocol.base import Message, Nothing
from engine.protocol.browse import (
    Adapters,
    AdaptersRef,
    CaptionWritten,
    CheckImages,
    CountTokens,
    Draft,
    FileRef,
    FolderRef,
    Images,
    ImagesChecked,
    PlanRun,
    ProjectRef,
    Projects,
    ProjectSummary,
    RenameProject,
    RunPlan,
    SubsetFolders,
    SubsetsRef,
    TokenCounts,
    Trashed,
    WriteCaption,
)
from engine.protocol.events import AnyEvent

VERSION = 1
LONGEST = 1 << 20
"""Bytes in a request line; a longer one is refused unread."""

PARSE_ERROR, INVALID_REQUEST, UNKNOWN_METHOD, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
REFUSED_BY_RULE = 1
"""Error code of a user's mistake; `data.problems` lists what is wrong, as engine.errors.Problem has it."""

State = Literal[
    "queued", "running", "paused", "stalled", "released", "done", "stopped", "failed", "refused", "crashed", "elsewhere"
]
"""`stalled`: alive and silent for long; `crashed`: dead without a last event; `elsewhere`: on another machine."""


class HelloParams(Message, frozen=True):
    version: int
    client: str = ""


class Hello(Message, frozen=True):
    version: int
    program: str
    pid: int
    host: str
    workspace: str


class Submit(Message, frozen=True):
    """A job: a config as a table, its paths absolute. `first` puts it at the head of the queue."""

    config: dict[str, Any]
    first: bool = False
    hold: bool = False
    """Write it down and start nothing."""


class JobRef(Message, frozen=True):
    """A job by its id, the end of it, or its folder."""

    job: str


class Submitted(Message, frozen=True):
    id: str
    path: str
    queued: bool
    """Whether it waits for a device; a job that needs none is started at once."""


class JobSummary(Message, frozen=True):
    id: str
    project: str
    kind: str
    name: str
    state: State
    path: str
    stage: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    validation: float | None = None
    best: float | None = None
    device: str = ""
    position: int | None = None
    """Place in the queue, from 1."""
    attempt: int = 0
    submitted: float = 0.0
    started: float = 0.0
    updated: float = 0.0
    cause: str = ""
    advice: list[str] = []


class ListJobs(Message, frozen=True):
    project: str = ""
    limit: int = 1000


class Jobs(Message, frozen=True):
    """Newest first."""

    jobs: list[JobSummary]


class JobDetails(Message, frozen=True):
    summary: JobSummary
    config: str
    """Its config.toml."""
    outputs: list[str] = []
    checkpoints: list[str] = []
    samples: list[str] = []
    bytes: int = 0
    """Size of its folder."""
    log: str = ""
    """The end of its log, where it crashed or failed."""


class Watch(Message, frozen=True):
    """Follow a job's journal from a byte offset on; the answer is notifications `job.events`."""

    job: str
    offset: int = 0


class Watching(Message, frozen=True):
    id: str
    size: int
    """Bytes of whole lines in the journal at this moment: who has got there knows all that is past."""


class JobEvents(Message, frozen=True):
    """Notification `job.events`: what a journal says between two offsets; no events where only the state changed."""

    id: str
    offset: int
    """Behind the last of these events."""
    events: list[AnyEvent]
    """All of them, but of the progress of one stage the last."""
    state: State
    """A change of it comes behind all events before it: who is at `Watching.size` and hears of the end has heard all.
    """
    start: int | None = None
    """In front of the first of these events, from a host that tells it."""
    restarted: bool = False
    """The journal was replaced or cut: it is told from its start again, and what was told before is void."""
    gone: bool = False
    """The job's folder is no longer there, and no longer watched."""


class Control(Message, frozen=True):
    """A command to a live job. Its acknowledgement is an event in the job's journal, under the id that comes back."""

    job: str
    name: Literal["pause", "resume", "stop", "checkpoint", "sample", "set"]
    release: bool = False
    """pause: save, end, and give the device back."""
    prompt: str = ""
    """sample: a line as in `sampling.prompts`; empty: the run's own prompts."""
    field: str = ""
    """set: optimizer.lr_unet or optimizer.lr_text."""
    value: float = 0.0


class Command(Message, frozen=True):
    id: str


class Remove(Message, frozen=True):
    """Move a job to the workspace's trash. A live one is refused unless `force` stops it first."""

    job: str
    force: bool = False


class Removed(Message, frozen=True):
    id: str
    trash: str
    bytes: int


class Queue(Message, frozen=True):
    """Waiting jobs, next first."""

    jobs: list[JobSummary]
    runner: bool
    """Whether a runner is alive."""


class Move(Message, frozen=True):
    """Put a waiting job at a place, from 1."""

    job: str
    position: int


class LogRef(Message, frozen=True):
    """A piece of a job's log from a byte offset on; a negative offset counts from the end."""

    job: str
    offset: int = 0


class LogPiece(Message, frozen=True):
    """At most 64 KiB of whole lines, unreadable bytes replaced, and where the next piece begins."""

    text: str
    start: int
    end: int
    size: int
    """Of the whole log."""


class WorkspaceNews(Message, frozen=True):
    """Notification `workspace` after `workspace.watch`: first everything, then what has changed since."""

    jobs: list[JobSummary] = []
    """Rows that are new or changed; the first time all of them, newest first."""
    gone: list[str] = []
    """Ids of jobs that are no longer there."""
    projects: list[ProjectSummary] | None = None
    """All of them, where any has changed."""
    runner: bool = False
    """Whether a runner is alive."""
    whole: bool = False
    """This is everything: forget what was told before."""


class GpuFigures(Message, frozen=True):
    uuid: str
    name: str
    index: int
    utilization: int | None = None
    """Per cent."""
    memory_used: int | None = None
    memory_total: int | None = None
    """Bytes."""
    temperature: int | None = None
    """°C."""
    power: float | None = None
    power_limit: float | None = None
    """Watts."""
    holder: str = ""
    """Id of the job that holds it."""


class DeviceFigures(Message, frozen=True):
    """Result of `devices.list`, and notification `devices` once a second after `devices.watch`."""

    t: float
    cpu: float
    """Per cent of all cores."""
    memory_used: int
    memory_total: int
    disk_free: int
    """Bytes, on the workspace's file system."""
    gpus: list[GpuFigures] = []
    problem: str = ""
    """Why there are no figures of GPUs, where there should be."""


class ResolveBase(Message, frozen=True):
    base: str


class BaseSummary(Message, frozen=True):
    base: str
    kind: str
    path: str
    family: str
    title: str
    default_resolution: int
    size_step: int
    prediction: str


METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "hello": (HelloParams, Hello),
    "workspace.watch": (Nothing, Nothing),
    "jobs.submit": (Submit, Submitted),
    "jobs.list": (ListJobs, Jobs),
    "jobs.show": (JobRef, JobDetails),
    "jobs.watch": (Watch, Watching),
    "jobs.unwatch": (JobRef, Nothing),
    "jobs.control": (Control, Command),
    "jobs.retry": (JobRef, Submitted),
    "jobs.remove": (Remove, Removed),
    "jobs.log": (LogRef, LogPiece),
    "queue.list": (Nothing, Queue),
    "queue.move": (Move, Queue),
    "queue.cancel": (JobRef, Queue),
    "projects.list": (Nothing, Projects),
    "projects.create": (ProjectRef, ProjectSummary),
    "projects.rename": (RenameProject, ProjectSummary),
    "projects.remove": (ProjectRef, Trashed),
    "drafts.read": (ProjectRef, Draft),
    "drafts.write": (Draft, Nothing),
    "runs.plan": (PlanRun, RunPlan),
    "images.list": (FolderRef, Images),
    "images.subsets": (SubsetsRef, SubsetFolders),
    "images.check": (CheckImages, Nothing),
    "captions.count": (CountTokens, TokenCounts),
    "captions.write": (WriteCaption, CaptionWritten),
    "captions.undo": (ProjectRef, CaptionWritten),
    "captions.redo": (ProjectRef, CaptionWritten),
    "adapters.list": (AdaptersRef, Adapters),
    "adapters.remove": (FileRef, Trashed),
    "devices.list": (Nothing, DeviceFigures),
    "devices.watch": (Nothing, Nothing),
    "devices.unwatch": (Nothing, Nothing),
    "bases.resolve": (ResolveBase, BaseSummary),
}
"""Method → (params, result)."""

NOTIFICATIONS: dict[str, type[Message]] = {
    "job.events": JobEvents,
    "devices": DeviceFigures,
    "workspace": WorkspaceNews,
    "images.checked": ImagesChecked,
}


class Request(msgspec.Struct, kw_only=True):
    """A line from a client. Without an id it is a notification, and gets no reply."""

    jsonrpc: str
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: int | str | None = None


class Error(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    code: int
    message: str
    data: dict[str, Any] = {}


class Reply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line from the host: a result, an error, or a notification, which has a method."""

    jsonrpc: str = msgspec.field(default="", name="jsonrpc")
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: Error | None = None
    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")
