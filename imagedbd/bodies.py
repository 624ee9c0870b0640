"""What requests carry, checked before anything is done with it, and described for the OpenAPI page.

Paths are taken as they come: they name pictures to look up, and nothing is ever written at one.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from imagedbd.bounds import MAX_LIMIT, MAX_TEXT, MAX_WEIGHT

MAX_PATHS: Final = 100_000
"""Paths in a request that names files to try again."""


def _any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")  # noqa: TRY004 - pydantic reports ValueError to the client
    if len(value) > MAX_TEXT or "\0" in value:
        raise ValueError(f"longer than {MAX_TEXT} characters, or has a NUL")
    return value


def _any_path(value: Any) -> str:
    path = _any_text(value)
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ValueError("no path: it has surrogates that stand for no byte") from error
    if not path.startswith("/"):
        raise ValueError("expected an absolute path")
    return os.path.normpath(f"/{path.lstrip('/')}")  # two leading slashes mean nothing here


def _whole(value: Any) -> Any:
    # To JSON, 7.0 is an integer as well.
    return int(value) if isinstance(value, float) and value.is_integer() else value


# pydantic's own string refuses lone surrogates, which is how a path that is not UTF-8 travels in JSON.
AnyText = Annotated[
    str,
    PlainValidator(_any_text),
    WithJsonSchema({"type": "string", "pattern": "^[^\\u0000]*$", "maxLength": MAX_TEXT}),
]
AnyPath = Annotated[
    str,
    PlainValidator(_any_path),
    WithJsonSchema({"type": "string", "pattern": "^/[^\\u0000]*$", "maxLength": MAX_TEXT}),
]
Whole = Annotated[int, BeforeValidator(_whole)]
Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=MAX_WEIGHT, allow_inf_nan=False)]


class _Body(BaseModel):
    # Strict: a description that says "integer" means no "7".
    model_config = ConfigDict(extra="forbid", strict=True)


class Prompt(_Body):
    prompt: AnyText
    weight: Weight = 1.0


class FileStat(_Body):
    device: Whole
    inode: Whole
    size: Whole
    mtime_ns: Whole
    ctime_ns: Whole


class Picture(_Body):
    """A query picture: ``path`` with ``stat`` (its vector may be held already), or ``data`` in base64."""

    path: AnyPath | None = None
    stat: FileStat | None = None
    data: str | None = None
    weight: Weight = 1.0


class Place(_Body):
    lat: float = Field(ge=-90, le=90)
    lon: float = Field(ge=-180, le=180)
    km: float = Field(default=10.0, gt=0, le=20_040)


class Weights(_Body):
    """How much each ranking counts where both are fused; 0 leaves one out, and not both can be 0."""

    likeness: Share = Field(default=1.0, description="of the ranking by prompts and pictures")
    words: Share = Field(default=1.0, description="of the ranking by metadata words")


class SearchBody(_Body):
    terms: list[Prompt | Picture] = Field(default=[], max_length=100)
    text: AnyText | None = Field(default=None, description="words that the metadata must have, all of them")
    where: AnyText | None = Field(default=None, description="a condition, e.g. iso >= 400 AND width > 1024")
    under: list[AnyPath] = Field(default=[], max_length=100, description="folders, any of them")
    after: AnyText | None = Field(default=None, description="taken on this date (ISO 8601 prefix) or later")
    before: AnyText | None = Field(default=None, description="taken before this date")
    camera: AnyText | None = Field(default=None, description="part of the camera's make or model")
    near: Place | None = None
    limit: Whole = Field(default=10, ge=1, le=MAX_LIMIT)
    offset: Whole = Field(default=0, ge=0, le=100_000, description="how many of the first hits to leave out")
    min_score: float | None = Field(default=None, ge=-1, le=1)
    sort: Literal["score", "date"] = "score"
    weights: Weights = Weights()


class PathBody(_Body):
    path: AnyPath


class ScanBody(_Body):
    folder: AnyPath | None = None


class WaitBody(_Body):
    timeout: float | None = Field(default=None, ge=0, le=86_400 * 7)


class StoreBody(_Body):
    kind: Literal["lance", "faiss"]
    model: AnyText | None = Field(default=None, description="another model; by default vectors are copied")


class ModelBody(_Body):
    model: AnyText = Field(description="ARCHITECTURE/TAG, hf-hub:OWNER/NAME, local-dir:FOLDER or demo")


class PauseBody(_Body):
    seconds: float | None = Field(
        default=None, gt=0, le=86_400 * 366, description="how long; without it until somebody resumes"
    )


class ReindexBody(_Body):
    paths: list[AnyPath] | None = Field(
        default=None, max_length=10_000, description="files, and folders with all below; by default all"
    )
    force: bool = Field(default=False, description="put them through the model again, too")


class ExportBody(_Body):
    vectors: bool = True


class DupesBody(_Body):
    under: list[AnyPath] = Field(default=[], max_length=100, description="folders, any of them")
    tiers: list[Literal["identical", "same", "burst"]] = Field(
        default=["identical", "same", "burst"], min_length=1, max_length=3
    )


class RelocationBody(_Body):
    old: AnyPath = Field(description="a watched folder, there or not")
    new: AnyPath = Field(description="where its pictures are now")
    only_check: bool = Field(default=False, description="see whether it can be done, and do nothing")


class RetryBody(_Body):
    paths: list[AnyPath] | None = Field(default=None, max_length=MAX_PATHS)
