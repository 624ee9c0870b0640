"""The HTTP interface: requests in, JSON out, described by ``/openapi.json``.

Every error has one shape, ``{"error": {"name", "title", "message", …}}``, from which the client makes the
same exception again.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from imagedbd import __version__, answers, errors
from imagedbd.answers import documented, documented_lines, documented_text
from imagedbd.bodies import (
    DupesBody,
    ExportBody,
    ModelBody,
    PathBody,
    PauseBody,
    Picture,
    Prompt,
    ReindexBody,
    RelocationBody,
    RetryBody,
    ScanBody,
    SearchBody,
    StoreBody,
    WaitBody,
)
from imagedbd.datatypes import PictureTerm, PromptTerm, Query, Signature, SortOrder
from imagedbd.dupes import Tier
from imagedbd.metrics import CONTENT_TYPE, Metrics
from imagedbd.search import conditions_of
from imagedbd.stillness import LONGEST_S

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from imagedbd.dupes import Hunt
    from imagedbd.library import Library

MAX_BODY = 256 << 20
"""Bytes of a request, at most: a query picture in base64 with room to spare."""

MAX_VALUES = 150_000
"""Values in the JSON of a request, at most: reading those takes a moment in which nobody else is served."""
FREE_BODY = 1 << 20
"""Bytes of a request that every connection may hold. What is beyond may be :data:`MAX_BODY` in all, so that
one large picture at a time fits into memory, with the copies that are made of it."""
BASE64_AT_ONCE = 1 << 20
"""Characters decoded in one go: others have their turn in between."""
MAX_FAULTS = 5
"""Faults of a request that are told, at most."""
SEARCHES = 32
"""Searches at the same time; the others wait, and leave threads for everything that is quick."""
WAIT_LOOK_S = 0.2
STEP_S = 0.3
"""How often a long answer says how far it is."""

HTTP_STATUS: dict[type[errors.ImagedbError], int] = {
    errors.PictureNeededError: 409,
    errors.UsageError: 400,
    errors.NothingMatchedError: 404,
    errors.WaitTimeoutError: 504,
    errors.ModelUnavailableError: 503,
    errors.DaemonStoppingError: 503,
    errors.DaemonBusyError: 503,
    errors.PausedError: 503,
    errors.EmbedderError: 503,
    errors.StoreError: 503,
    errors.ConfigError: 400,
}


class AsciiJSON(JSONResponse):
    """JSON in ASCII: escapes carry lone surrogates, which UTF-8 could not."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def create_app(library: Library) -> ASGIApp:
    """The application over an open library; it holds no state of its own but counts of what it answered."""
    app = FastAPI(
        title="imagedbd",
        version=__version__,
        description="Search and watch over the picture index of this machine.",
        default_response_class=AsciiJSON,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(errors.ImagedbError, _error_response)
    app.add_exception_handler(RequestValidationError, _invalid_response)
    app.add_exception_handler(HTTPException, _http_response)
    app.add_exception_handler(Exception, _bug_response)
    metrics = Metrics(library)
    _add_metrics(app, metrics)
    _add_searching(app, library, metrics)
    _add_reading(app, library)
    _add_long_readings(app, library)
    _add_steering(app, library)
    _add_pausing(app, library)
    _add_switching(app, library)
    _add_page(app)
    return _Farewell(_BoundedBodies(app))


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    @app.get(
        "/metrics",
        response_class=Response,
        responses=documented_text("metrics in Prometheus' text format, version 0.0.4", 503),
    )
    def exposition() -> Response:
        """How the daemon fares, in numbers for Prometheus."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)


def _add_searching(app: FastAPI, library: Library, metrics: Metrics) -> None:
    queue = asyncio.Semaphore(SEARCHES)
    threads = CapacityLimiter(SEARCHES)

    @app.post("/search", responses=documented(answers.SearchAnswer, 400, 409, 422, 503))
    async def search(body: SearchBody, request: Request) -> AsciiJSON:
        """Pictures by prompt, by picture, by metadata words, fused, under conditions."""
        started = time.perf_counter()

        def answer() -> AsciiJSON:
            with metrics.searches.time():
                found = library.search(_query(body))
            took_ms = round(1000 * (time.perf_counter() - started), 2)
            hits = [hit.public() for hit in found.hits]
            return AsciiJSON({"hits": hits, "notes": found.notes, "took_ms": took_ms})

        async with queue:
            if await request.is_disconnected():
                return AsciiJSON({})
            return await to_thread.run_sync(answer, limiter=threads)


def _add_reading(app: FastAPI, library: Library) -> None:
    @app.get("/status", responses=documented(answers.Status))
    def status() -> AsciiJSON:
        """What the daemon is doing, and what it has."""
        return AsciiJSON(library.status())

    @app.get(
        "/pictures",
        response_class=StreamingResponse,
        responses=documented_lines(answers.ListedPicture),
    )
    def pictures() -> StreamingResponse:
        """Every indexed picture, one JSON object a line: ``path``, ``id``, ``content_hash``, ``state``."""
        return StreamingResponse(_lines(library.pictures()), media_type=answers.JSON_LINES)

    @app.post("/show", responses=documented(answers.ShownRecord, 404, 422, 503))
    def show(body: PathBody) -> AsciiJSON:
        """The whole record of one picture."""
        return AsciiJSON(library.show(body.path))

    @app.post("/why", responses=documented(answers.Reason, 422))
    def why(body: PathBody) -> AsciiJSON:
        """Why a path is indexed, or is not."""
        return AsciiJSON(library.why(body.path))

    @app.get(
        "/failures",
        response_class=StreamingResponse,
        responses=documented_lines(answers.ListedFailure),
    )
    def failures() -> StreamingResponse:
        """Every file that could not be indexed, a JSON object a line: ``path``, ``reason``, ``attempts``."""
        return StreamingResponse(_lines(library.failures()), media_type=answers.JSON_LINES)

    @app.get("/names", responses=documented(answers.Names, 503))
    def names() -> AsciiJSON:
        """Names for completion: ``cameras`` of the index, their ``makes``, and ``models`` of OpenCLIP."""
        return AsciiJSON(library.names())

    @app.get("/roots", responses=documented(answers.Root, many=True))
    def roots() -> AsciiJSON:
        """The folders that are watched, and how each of them is."""
        return AsciiJSON(library.roots())


def _add_long_readings(app: FastAPI, library: Library) -> None:
    @app.post(
        "/export",
        response_class=StreamingResponse,
        responses=documented_lines(answers.ExportedRecord, refusals=[422]),
    )
    def export(body: ExportBody) -> StreamingResponse:
        """Every record, one JSON object a line, its vector in base64 (little-endian float32)."""
        rows = library.export(vectors=body.vectors)
        return StreamingResponse(_lines(rows), media_type=answers.JSON_LINES)

    hunts = CapacityLimiter(1)

    @app.post(
        "/dupes",
        response_class=StreamingResponse,
        responses=documented_lines(
            answers.HuntStep, answers.DupeGroup, answers.HuntEnd, answers.ErrorAnswer, refusals=[422]
        ),
    )
    async def dupes(body: DupesBody) -> StreamingResponse:
        """Pictures that are there more than once, a JSON object a line.

        While it is looked for them, lines of ``name``, ``done`` and ``total``; then one of ``tier`` and
        ``pictures`` for each group, and a last one of ``looked_at``, ``unseen`` and ``bare``; or one of
        ``error``.
        """
        hunt = library.hunt(conditions_of(under=body.under), map(Tier, body.tiers))
        return StreamingResponse(_hunting(hunt, hunts), media_type=answers.JSON_LINES)


def _add_steering(app: FastAPI, library: Library) -> None:
    @app.post("/scan", responses=documented(answers.Ticket, 400, 422))
    def scan(body: ScanBody) -> AsciiJSON:
        """Compare a folder, or all roots, with the index now; returns at once."""
        return AsciiJSON({"ticket": library.scan(body.folder)})

    @app.post("/wait", responses=documented(answers.Counts, 422, 503, 504))
    async def wait(body: WaitBody, request: Request) -> AsciiJSON:
        """Scan, then return once every change made before this call is searchable."""
        waiting = library.wait(body.timeout)
        while (counts := await to_thread.run_sync(waiting.poll)) is None:
            await asyncio.sleep(WAIT_LOOK_S)
            if await request.is_disconnected():
                return AsciiJSON({})
        return AsciiJSON(counts)

    @app.post("/failures/retry", responses=documented(answers.Retried, 422))
    def retry(body: RetryBody) -> AsciiJSON:
        """Try failed files again: these, or all."""
        return AsciiJSON({"retried": library.retry(body.paths)})

    @app.post("/model/load", responses=documented(answers.ModelBrief, 503))
    async def load_model() -> AsciiJSON:
        """Look for the model now, also if it was not there before."""
        await asyncio.wrap_future(library.load_model())
        return AsciiJSON((await to_thread.run_sync(library.status))["model"])

    @app.post("/roots/relocate", responses=documented(answers.Relocated, 400, 404, 422, 503))
    def relocate(body: RelocationBody) -> AsciiJSON:
        """Follow a folder to its new place without embedding; the settings must name the new one already.

        Returns how many ``pictures`` were brought over, or would be.
        """
        return AsciiJSON(library.relocate(body.old, body.new, only_check=body.only_check))

    @app.post("/reload", responses=documented(answers.Reloaded, 400))
    def reload() -> AsciiJSON:
        """Read the configuration again."""
        return AsciiJSON(library.reload())


def _add_pausing(app: FastAPI, library: Library) -> None:
    @app.post("/pause", responses=documented(answers.Paused, 422, 503))
    def pause(body: PauseBody) -> AsciiJSON:
        """Index nothing for a while; searching goes on. It outlives a restart."""
        return AsciiJSON(library.pause(body.seconds))

    @app.post(
        "/backup",
        response_class=StreamingResponse,
        responses=documented_lines(answers.BackupSource, answers.ErrorAnswer),
    )
    async def backup() -> StreamingResponse:
        """Write nothing until the caller hangs up, so that the index can be copied.

        One line tells where it is, as soon as everything is still; or it has an ``error``.
        """
        return StreamingResponse(_holding_still(library), media_type=answers.JSON_LINES)

    @app.post("/resume", responses=documented(answers.Resumed, 503))
    def resume() -> AsciiJSON:
        """Go on with indexing."""
        return AsciiJSON(library.resume())

    @app.post("/reindex", responses=documented(answers.Reindexed, 400, 422, 503))
    def reindex(body: ReindexBody) -> AsciiJSON:
        """Read unchanged pictures again; returns when they are queued."""
        return AsciiJSON(library.reindex(body.paths, force=body.force))

    @app.post("/reset", responses=documented(answers.Begun, 400, 503))
    def reset() -> AsciiJSON:
        """Forget the whole index and begin anew; returns when the new one answers, empty."""
        return AsciiJSON(library.reset())


def _add_switching(app: FastAPI, library: Library) -> None:
    @app.post("/store/use", responses=documented(answers.Switched, 400, 422, 503))
    def use_store(body: StoreBody) -> AsciiJSON:
        """Build the index in this kind of store beside the one that answers, and then answer from it.

        Returns when that was begun, with the ``settings`` that make it last.
        """
        return AsciiJSON(library.use_store(body.kind, body.model))

    @app.post("/model/use", responses=documented(answers.Switched, 400, 422, 503))
    def use_model(body: ModelBody) -> AsciiJSON:
        """Embed all pictures with this model beside the index that answers, and then answer with it.

        Returns when that was begun, with the ``settings`` that make it last.
        """
        return AsciiJSON(library.use_model(body.model))

    @app.post("/model/rollback", responses=documented(answers.Switched, 400, 404, 503))
    def roll_back() -> AsciiJSON:
        """Answer from the index before the last switch; what it lacks is embedded afterwards."""
        return AsciiJSON(library.roll_back())

    @app.post("/model/remove", responses=documented(answers.KeptIndex, 404, 503))
    def remove() -> AsciiJSON:
        """Delete the index that is kept to go back to."""
        return AsciiJSON(library.remove_previous())


def _add_page(app: FastAPI) -> None:
    @app.get("/", response_class=HTMLResponse)
    def page() -> HTMLResponse:
        """The interface, described for people."""
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
        offset=body.offset,
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
    data = None if term.data is None else _decoded(term.data)
    signature = Signature(**term.stat.model_dump()) if term.stat else None
    return PictureTerm(term.path, signature, data, term.weight)


def _decoded(text: str) -> bytes:
    """The bytes behind base64.

    :raises UsageError: it is none.
    """
    pieces = (text[start : start + BASE64_AT_ONCE] for start in range(0, len(text), BASE64_AT_ONCE))
    try:
        return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except ValueError as error:
        raise errors.UsageError(f"The picture's data is not base64: {error}.") from error


async def _hunting(hunt: Hunt, limiter: CapacityLimiter) -> AsyncIterator[bytes]:
    run = asyncio.ensure_future(to_thread.run_sync(hunt.run, limiter=limiter, abandon_on_cancel=True))
    try:
        while not run.done():
            yield _line(asdict(hunt.step))
            await asyncio.wait([run], timeout=STEP_S)
        found = run.result()
    except errors.ImagedbError as error:
        yield _line(error_body(error))
        return
    finally:
        hunt.stop()  # whoever asked may have gone
        run.cancel()
    for chunk in _lines(group.public() for group in found.groups):
        yield chunk
    yield _line({"looked_at": found.looked_at, "unseen": found.unseen, "bare": found.bare})


async def _holding_still(library: Library) -> AsyncIterator[bytes]:
    still = library.hold_still()
    try:
        while not still.poll():  # noqa: ASYNC110 - a thread of the indexer says so, and knows no loop
            await asyncio.sleep(WAIT_LOOK_S)
        yield _line(await to_thread.run_sync(library.backup_source))
        await asyncio.sleep(LONGEST_S)
    except errors.ImagedbError as error:
        yield _line(error_body(error))
    finally:  # the caller has hung up
        still.release()


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, separators=(",", ":")) + "\n").encode("ascii")


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
    return AsciiJSON(error_body(error), _status_of(error))


def _status_of(error: errors.ImagedbError) -> int:
    return next((code for kind, code in HTTP_STATUS.items() if isinstance(error, kind)), 500)


def _invalid_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type alone
    found = error.errors()
    told = [
        f"{'.'.join(map(str, e['loc'][1:]))[:200]}: {e['msg'].removeprefix('Value error, ')[:500]}"
        for e in found[:MAX_FAULTS]
    ]
    more = [f"and {len(found) - MAX_FAULTS} more"] if len(found) > MAX_FAULTS else []
    faults = "; ".join([*told, *more])
    return AsciiJSON(error_body(errors.UsageError(f"The request does not fit: {faults}.")), 422)


def _http_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type alone
    told = error_body(errors.UsageError(f"{error.detail}."))
    return AsciiJSON(told, error.status_code, headers=error.headers)


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


class _Farewell:
    """Tells those whose requests are broken off at the stop that this is why."""

    def __init__(self, app: ASGIApp) -> None:
        self.inside = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.inside(scope, receive, noted)
        except asyncio.CancelledError:
            if has_begun:
                raise
            stopping = errors.DaemonStoppingError("It was asked to stop before this was done.")
            answer = AsciiJSON(error_body(stopping), _status_of(stopping), headers={"Connection": "close"})
            await answer(scope, receive, send)


class _BoundedBodies:
    """Bounds what the bodies of all requests take, in memory and to be read as JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self.inside = app
        self._held = 0
        """Bytes of all bodies, beyond the first ones of each that are free."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = values = held = 0

        async def counted() -> Message:
            nonlocal size, values, held
            message = await receive()
            part: bytes = message.get("body", b"")
            size += len(part)
            values += sum(map(part.count, b",[{"))
            if values > MAX_VALUES:
                raise _refused(413, f"A request may have {MAX_VALUES} values at most")
            more = max(0, size - FREE_BODY) - held
            if self._held + more > MAX_BODY:
                raise _refused(503, "Other large requests are being served; ask again in a while")
            self._held += more
            held += more
            return message

        try:
            await self.inside(scope, counted, send)
        finally:
            self._held -= held


def _refused(status: int, why: str) -> HTTPException:
    return HTTPException(status, why, {"Connection": "close"})
