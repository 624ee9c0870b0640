"""The HTTP interface: requests in, JSON out, described by ``/openapi.json``.

Every error has one shape, ``{"error": {"name", "title", "message", …}}``, from which the client makes the
same exception again.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from starlette.exceptions import HTTPException

from imagedbd import __version__, errors
from imagedbd.datatypes import MAX_WEIGHT, PictureTerm, PromptTerm, Query, Signature, SortOrder
from imagedbd.search import conditions_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from imagedbd.library import Library

MAX_BODY = 256 << 20
"""Bytes of a request, at most: a query picture in base64 with room to spare."""

MAX_TEXT = 10_000
"""Characters of a text or path in a request."""
SEARCHES = 32
"""Searches at the same time; the others wait, and leave threads for everything that is quick."""
WAIT_LOOK_S = 0.2

HTTP_STATUS: dict[type[errors.ImagedbError], int] = {
    errors.PictureNeededError: 409,
    errors.UsageError: 400,
    errors.NothingMatchedError: 404,
    errors.WaitTimeoutError: 504,
    errors.ModelUnavailableError: 503,
    errors.DaemonStoppingError: 503,
    errors.StoreError: 503,
    errors.ConfigError: 400,
}


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
    return os.path.normpath(path)


# pydantic's own string refuses lone surrogates, which is how a path that is not UTF-8 travels in JSON.
AnyText = Annotated[str, PlainValidator(_any_text), WithJsonSchema({"type": "string", "maxLength": MAX_TEXT})]
AnyPath = Annotated[
    str, PlainValidator(_any_path), WithJsonSchema({"type": "string", "pattern": "^/", "maxLength": MAX_TEXT})
]
Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=MAX_WEIGHT, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Prompt(_Body):
    prompt: AnyText
    weight: Weight = 1.0


class FileStat(_Body):
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


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
    limit: int = Field(default=10, ge=1, le=10_000)
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


class RelocationBody(_Body):
    old: AnyPath
    new: AnyPath
    only_check: bool = Field(default=False, description="see whether it can be done, and do nothing")


class RetryBody(_Body):
    paths: list[AnyPath] | None = Field(default=None, max_length=100_000)


class AsciiJSON(JSONResponse):
    """JSON in ASCII: escapes carry lone surrogates, which UTF-8 could not."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def create_app(library: Library) -> ASGIApp:
    """The application over an open library; it holds no state of its own."""
    app = FastAPI(
        title="imagedbd",
        version=__version__,
        description="Search and watch over the picture index of this machine.",
        default_response_class=AsciiJSON,
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(errors.ImagedbError, _error_response)
    app.add_exception_handler(RequestValidationError, _invalid_response)
    app.add_exception_handler(HTTPException, _http_response)
    app.add_exception_handler(Exception, _bug_response)
    _add_reading(app, library)
    _add_steering(app, library)
    _add_switching(app, library)
    _add_page(app)
    return _BoundedBody(app)


def _add_reading(app: FastAPI, library: Library) -> None:
    @app.get("/status")
    def status() -> dict[str, Any]:
        """What the daemon is doing, and what it has."""
        return library.status()

    searches = CapacityLimiter(SEARCHES)

    @app.post("/search")
    async def search(body: SearchBody) -> dict[str, Any]:
        """Pictures by prompt, by picture, by metadata words, fused, under conditions."""
        started = time.perf_counter()
        query = _query(body)
        answer = await to_thread.run_sync(library.search, query, limiter=searches)
        return {
            "hits": [hit.public() for hit in answer.hits],
            "notes": answer.notes,
            "took_ms": round(1000 * (time.perf_counter() - started), 2),
        }

    @app.get("/pictures", response_class=StreamingResponse)
    def pictures() -> StreamingResponse:
        """Every indexed picture, one JSON object a line: ``path``, ``id``, ``content_hash``, ``state``."""
        return StreamingResponse(_lines(library.pictures()), media_type="application/x-ndjson")

    @app.post("/show")
    def show(body: PathBody) -> dict[str, Any]:
        """The whole record of one picture."""
        return library.show(body.path)

    @app.post("/why")
    def why(body: PathBody) -> dict[str, Any]:
        """Why a path is indexed, or is not."""
        return library.why(body.path)

    @app.get("/failures", response_class=StreamingResponse)
    def failures() -> StreamingResponse:
        """Every file that could not be indexed, a JSON object a line: ``path``, ``reason``, ``attempts``."""
        return StreamingResponse(_lines(library.failures()), media_type="application/x-ndjson")

    @app.get("/roots")
    def roots() -> list[dict[str, Any]]:
        return library.roots()


def _add_steering(app: FastAPI, library: Library) -> None:
    @app.post("/scan")
    def scan(body: ScanBody) -> dict[str, Any]:
        """Compare a folder, or all roots, with the index now; returns at once."""
        return {"ticket": library.scan(body.folder)}

    @app.post("/wait")
    async def wait(body: WaitBody, request: Request) -> dict[str, Any]:
        """Scan, then return once every change made before this call is searchable."""
        waiting = library.wait(body.timeout)
        while (counts := await to_thread.run_sync(waiting.poll)) is None:
            await asyncio.sleep(WAIT_LOOK_S)
            if await request.is_disconnected():
                return {}
        return counts

    @app.post("/failures/retry")
    def retry(body: RetryBody) -> dict[str, Any]:
        """Try failed files again: these, or all."""
        return {"retried": library.retry(body.paths)}

    @app.post("/model/load")
    async def load_model() -> dict[str, Any]:
        """Look for the model now, also if it was not there before."""
        await asyncio.wrap_future(library.load_model())
        model: dict[str, Any] = (await to_thread.run_sync(library.status))["model"]
        return model

    @app.post("/roots/relocate")
    def relocate(body: RelocationBody) -> dict[str, Any]:
        """Follow a folder to its new place without embedding; the settings must name the new one already.

        Returns how many ``pictures`` were brought over, or would be.
        """
        return library.relocate(body.old, body.new, only_check=body.only_check)

    @app.post("/reload")
    def reload() -> dict[str, Any]:
        """Read the configuration again."""
        return library.reload()


def _add_switching(app: FastAPI, library: Library) -> None:
    @app.post("/store/use")
    def use_store(body: StoreBody) -> dict[str, Any]:
        """Build the index in this kind of store beside the one that answers, and then answer from it.

        Returns when that was begun, with the ``settings`` that make it last.
        """
        return library.use_store(body.kind, body.model)

    @app.post("/model/use")
    def use_model(body: ModelBody) -> dict[str, Any]:
        """Embed all pictures with this model beside the index that answers, and then answer with it.

        Returns when that was begun, with the ``settings`` that make it last.
        """
        return library.use_model(body.model)

    @app.post("/model/rollback")
    def roll_back() -> dict[str, Any]:
        """Answer from the index before the last switch; what it lacks is embedded afterwards."""
        return library.roll_back()

    @app.post("/model/remove")
    def remove() -> dict[str, Any]:
        """Delete the index that is kept to go back to."""
        return library.remove_previous()


def _add_page(app: FastAPI) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(_describe(app.openapi()))


def _query(body: SearchBody) -> Query:
    return Query(
        terms=tuple(_term(term) for term in body.terms),
        text=body.text,
        condition=conditions_of(
            where=body.where,
            under=body.under,
            after=body.after,
            before=body.before,
            camera=body.camera,
            near=(body.near.lat, body.near.lon, body.near.km) if body.near else None,
        ),
        limit=body.limit,
        min_score=body.min_score,
        sort=SortOrder(body.sort),
        weights=(body.weights.likeness, body.weights.words),
    )


def _term(term: Prompt | Picture) -> PromptTerm | PictureTerm:
    if isinstance(term, Prompt):
        if not term.prompt.strip():
            raise errors.UsageError("The prompt is empty.")
        return PromptTerm(term.prompt, term.weight)
    if term.path is None and term.data is None:
        raise errors.UsageError("A query picture needs a path or data.")
    try:
        data = None if term.data is None else base64.b64decode(term.data, validate=True)
    except ValueError as error:
        raise errors.UsageError(f"The picture's data is not base64: {error}.") from error
    signature = Signature(**term.stat.model_dump()) if term.stat else None
    return PictureTerm(term.path, signature, data, term.weight)


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    # A chunk a row would cost a thread hop each.
    chunk: list[str] = []
    for row in rows:
        chunk.append(json.dumps(row, separators=(",", ":")))
        if len(chunk) == 1000:
            yield ("\n".join(chunk) + "\n").encode("ascii")
            chunk = []
    if chunk:
        yield ("\n".join(chunk) + "\n").encode("ascii")


def error_body(error: errors.ImagedbError) -> dict[str, Any]:
    described = {"name": type(error).__name__, "title": error.title, "message": error.message}
    return {"error": described | error.details()}


def _error_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.ImagedbError)  # noqa: S101 - registered for this type alone
    status = next((code for kind, code in HTTP_STATUS.items() if isinstance(error, kind)), 500)
    return AsciiJSON(error_body(error), status)


def _invalid_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type alone
    faults = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
    return AsciiJSON(error_body(errors.UsageError(f"The request does not fit: {faults}.")), 422)


def _http_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type alone
    return AsciiJSON(error_body(errors.UsageError(f"{error.detail}.")), error.status_code)


def _bug_response(_: Request, error: Exception) -> JSONResponse:
    described = f"The daemon met a bug: {type(error).__name__}: {error}. Its log has the details."
    return AsciiJSON(error_body(errors.ImagedbError(described)), 500)


def _describe(schema: dict[str, Any]) -> str:
    """The OpenAPI document as one page that needs nothing from elsewhere."""
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation.get('description', operation.get('summary', '')))}</td></tr>"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    )
    schemas = html.escape(json.dumps(schema.get("components", {}).get("schemas", {}), indent=2))
    return (
        f"<!doctype html><meta charset=utf-8><title>imagedbd {__version__}</title>"
        "<style>body{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.3rem .8rem .3rem 0;vertical-align:top}pre{overflow:auto}</style>"
        f"<h1>imagedbd {__version__}</h1><p>{html.escape(schema['info']['description'])} "
        'The machine-readable form is <a href="/openapi.json">/openapi.json</a>.</p>'
        f"<table>{rows}</table><h2>Schemas</h2><pre>{schemas}</pre>"
    )


class _BoundedBody:
    """Refuses bodies above :data:`MAX_BODY` before they are gathered in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            too_long = errors.UsageError(f"A request may have {MAX_BODY} bytes at most.")
            await AsciiJSON(error_body(too_long), 413)(scope, receive, send)
            return
        await self._app(scope, _Counted(receive), send)


class _Counted:
    """Counts a body that does not say its length, and ends it at the bound."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = MAX_BODY

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return {"type": "http.disconnect"} if self._left < 0 else message
