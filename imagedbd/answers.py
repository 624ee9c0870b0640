"""What the daemon answers, as the OpenAPI page describes it.

Answers are written by those who know them; these models are never filled in production, and tests hold the
two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from imagedbd.datatypes import ModelState, PictureState, RootState
from imagedbd.dupes import Tier
from imagedbd.generations import Course


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fault(_Answer):
    name: str = Field(description="the kind of error, e.g. UsageError or ModelUnavailableError")
    title: str = Field(description="what happened, in a few words")
    message: str = Field(description="why, and what helps")
    position: int | None = Field(default=None, description="of a bad expression: the offset of the fault")
    expression: str | None = Field(default=None, description="of a bad expression: as it was sent")


class ErrorAnswer(_Answer):
    """The one shape of every error."""

    error: Fault


class Record(_Answer):
    """One picture. Sizes are in pixels, ``size`` in bytes, places in degrees."""

    id: str
    path: str = Field(description="bytes that are not UTF-8 as escapes from \\udc80 to \\udcff")
    folder: str
    name: str
    size: int
    mtime: str
    format: str | None
    width: int | None
    height: int | None
    taken_at: str | None
    camera_make: str | None
    camera_model: str | None
    lens: str | None
    iso: int | None
    f_number: float | None
    exposure_s: float | None
    focal_mm: float | None
    lat: float | None
    lon: float | None
    orientation: int | None
    rating: int | None
    keywords: list[str]
    caption: str | None
    comment: str | None
    content_hash: str
    indexed_at: str


class ShownRecord(Record):
    state: PictureState
    offline: bool
    sidecars: list[str] = Field(description="the files beside it that words of it were taken from")


class HitRow(Record):
    rank: int = Field(ge=1)
    score: float = Field(description="what the hits are ordered by")
    similarity: float | None = Field(description="cosine, where there was a vector")
    text_score: float | None = Field(description="BM25, where there was text")
    offline: bool = Field(description="its root or disk is away; the picture cannot be opened now")


class SearchAnswer(_Answer):
    hits: list[HitRow]
    notes: list[str] = Field(description="what one should know of how the answer came about")
    took_ms: float


class ListedPicture(_Answer):
    path: str
    id: str
    content_hash: str | None
    state: PictureState
    offline: bool


class ListedFailure(_Answer):
    path: str
    reason: str | None
    attempts: int


class Reason(_Answer):
    path: str
    state: str
    reason: str
    rule: str | None
    attempts: int


class Root(_Answer):
    path: str
    state: RootState
    indexed: int
    reason: str | None
    unwatched: int = Field(description="folders in it that are scanned now and then instead of watched")


class StoreState(_Answer):
    kind: str
    uri: str
    rows: int | None
    vectors: int | None
    bytes_on_disk: int | None
    reason: str | None
    configured: str
    damage: str | None


class ModelBrief(_Answer):
    name: str
    state: ModelState
    only_prompts: bool = Field(description="what embeds pictures has left memory, and is loaded for the next")
    reason: str | None
    help: list[str]
    configured: str


class SwitchState(_Answer):
    store: str
    model: str | None
    course: Course
    state: str
    reason: str | None
    done: int
    total: int
    rate: float | None
    eta_s: int | None


class PauseState(_Answer):
    until: str | None = Field(description="in UTC; nothing for a pause that somebody has to end")


class KeptIndex(_Answer):
    kind: str
    place: str
    model: str | None


class DifferenceRow(_Answer):
    setting: str
    configured: str
    active: str
    command: str | None = Field(description="what makes the index follow; nothing if the setting should go")
    place: str | None = Field(description="the flag or variable that should go")
    finding: str
    help: str
    text: str = Field(description="the finding, and what helps")


class Status(_Answer):
    state: str
    doing: str
    indexed: int = Field(description="with those that are looked at again, and found as they were meanwhile")
    again: int = Field(description="how many of the indexed are looked at again")
    waiting: int
    pending: int
    failed: int
    rate: float | None = Field(description="pictures a second")
    eta_s: int | None
    roots: list[Root]
    store: StoreState
    model: ModelBrief
    device: str | None
    dtype: str | None
    paused: PauseState | None
    switch: SwitchState | None
    previous: KeptIndex | None
    differences: list[DifferenceRow]
    embeds_total: int
    watcher_restarts: int
    uptime_s: float
    version: str
    pid: int
    settings_fault: str | None = Field(description="why the settings that hold are not those of the file")
    config_file: str
    data_dir: str
    socket: str


class Names(_Answer):
    """What people type, for the completion of shells."""

    cameras: list[str] = Field(description="the models of cameras")
    makes: list[str] = Field(description="who made them")
    models: list[str] = Field(description="of OpenCLIP")


class ExportedRecord(Record):
    vector: str | None = Field(description="little-endian float32 in base64")


class ActiveStore(_Answer):
    """:param place: a folder below the data folder, or a URI."""

    kind: str
    place: str
    model: str | None


class BackupSource(_Answer):
    """Where everything is that a backup holds."""

    data_dir: str
    ledger: str
    config_file: str
    active: ActiveStore
    model: str | None = Field(description="whose vectors are in the store")
    pictures: int


class HuntStep(_Answer):
    name: str
    done: int
    total: int = Field(description="0 if that is not known")


class TwinPicture(_Answer):
    path: str
    id: str
    content_hash: str
    size: int
    mtime: str
    format: str | None
    width: int | None
    height: int | None
    taken_at: str | None
    camera: str | None


class DupeGroup(_Answer):
    tier: Tier
    pictures: list[TwinPicture] = Field(min_length=2, description="the best first, or as they were taken")


class HuntEnd(_Answer):
    looked_at: int = Field(description="how many pictures took part")
    unseen: int = Field(description="may be copies, and their files could not be looked at")
    bare: int = Field(description="have no vector, and take part in the first tier only")


class Ticket(_Answer):
    ticket: int


class Counts(_Answer):
    """How many files are in each state."""

    pending: int
    indexed: int
    waiting: int
    failed: int


class Retried(_Answer):
    retried: list[str] = Field(description="the paths that had failed")


class Relocated(_Answer):
    pictures: int = Field(description="how many were brought over, or would be")


class Reloaded(_Answer):
    changed: list[str]
    needs_restart: list[str] = Field(description="settings that count from the next start on")


class Paused(_Answer):
    paused: PauseState | None = Field(description="nothing, if it was over already when it was told")


class Resumed(_Answer):
    was_paused: bool


class Reindexed(_Answer):
    files: int = Field(description="how many of those that were asked for are read again")
    copies: int = Field(description="how many elsewhere, which have the same content")
    offline: list[str] = Field(description="roots that had to be left out")


class Begun(_Answer):
    """An empty index that answers."""

    state: Literal["active"]
    store: str
    model: str | None


class Switched(_Answer):
    state: Literal["switching", "active"]
    store: str
    model: str | None
    settings: dict[Literal["store", "model"], str] = Field(description="the settings that make it last")


JSON_LINES = "application/x-ndjson"
TEXT = "text/plain"

Responses = dict[int | str, dict[str, Any]]

_ERRORS: dict[int, str] = {
    400: "the request cannot be understood, or asks for what there is not",
    404: "nothing matched",
    409: "the picture's bytes are needed: the daemon holds no vector for it",
    422: "a field is missing, unknown, or out of bounds",
    503: "the model, the store or the daemon cannot do that now; the message says what helps",
    504: "the time given was not enough",
}


def documented(answer: type[BaseModel], *errors: int, many: bool = False) -> Responses:
    """The responses of a route for its description.

    Every route may also answer 408, 411, 413 and 431 to what is too slow, too large or without a length,
    and 500 after a bug.

    :param many: the answer is a list.
    """
    told: Responses = {200: {"model": list[answer] if many else answer}}  # type: ignore[valid-type]
    return told | _errors(*errors)


def documented_lines(*rows: type[BaseModel], refusals: Sequence[int] = ()) -> Responses:
    """As :func:`documented`, of a route that answers with a JSON object a line, each of one of these kinds.

    What goes wrong after the first line is a line as well, of :class:`ErrorAnswer`, where that is named.
    """
    names = " or ".join(row.__name__ for row in rows)
    about = {"type": "string", "description": f"one {names} a line, each a JSON object"}
    kinds: Any = Union[rows]  # noqa: UP007 - their number is not known here
    described = {"schema": about, "x-line": TypeAdapter(kinds).json_schema()}
    return _documented_content(JSON_LINES, described, refusals)


def documented_text(about: str, *errors: int) -> Responses:
    """As :func:`documented`, of a route that answers with plain text."""
    return _documented_content(TEXT, {"schema": {"type": "string", "description": about}}, errors)


def _documented_content(kind: str, described: dict[str, Any], errors: Sequence[int]) -> Responses:
    return {200: {"content": {kind: described}, "description": "Successful Response"}} | _errors(*errors)


def _errors(*codes: int) -> Responses:
    told: Responses = {code: {"model": ErrorAnswer, "description": _ERRORS[code]} for code in codes}
    other = "any other refusal: a request that is too slow (408), too large (413, 431), of no length (411), …"
    return told | {
        "4XX": {"model": ErrorAnswer, "description": other},
        "5XX": {"model": ErrorAnswer, "description": "the daemon cannot do that now, or met a bug (500)"},
    }
