"""The server behind the socket: whose socket it is, who may talk, and what one client can cost the others.

uvicorn and h11 speak HTTP. What is added here holds before the application sees anything: other users are
cut off, sizes and times are bounded, and where all connections are taken, the one that has kept the daemon
waiting for longest makes room.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import os
import socket
import stat as stat_module
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagedbd import __version__, peer
from imagedbd.api import MAX_BODY, AsciiJSON, error_body
from imagedbd.client import VERSION_HEADER
from imagedbd.errors import ConfigError, DaemonBusyError, ImagedbError, LockHeldError, UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 128
MAX_HEAD: Final = 16 << 10
"""Bytes of a request line and its headers, at most."""
MAX_AHEAD: Final = 256 << 10
"""Bytes that a client may have sent beyond the request that is being answered."""
REQUEST_TIMEOUT_S: Final = 30.0
"""How long a client may take over one request, from its turn to its last byte."""
STOP_TIMEOUT_S: Final = 2
"""How long requests in work may go on after the signal to stop."""
ACCEPTED_AT_ONCE: Final = 16
"""Connections taken up in one go: fewer than there is room for, so that a newcomer is heard before the
connections that come after it can push it out."""
BACKLOG: Final = 1024
"""Connections that the kernel holds until they are taken up."""
TOLD_EVERY_S: Final = 60.0


class Server(uvicorn.Server):
    """uvicorn with our own end: no tick ten times a second, and no signal handlers of its own.

    :param stop: set when it is time to end.
    :param before_end: called then, before requests in work are waited for.
    """

    def __init__(self, app: ASGIApp, stop: asyncio.Event, before_end: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # a client is told what is wrong with its request, and the log is not
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                headers=[(VERSION_HEADER, __version__)],
                backlog=ACCEPTED_AT_ONCE,
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
            )
        )
        logging.getLogger("uvicorn.error").addFilter(_is_worth_a_line)
        self._stop = stop
        self._before_end = before_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)

    async def main_loop(self) -> None:
        # Else only the tick would fill these in.
        self.server_state.default_headers = self.config.encoded_headers
        await self._stop.wait()
        self._before_end()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a record tells of a fault: what is still in work at the end is cancelled, as it must be."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


class _Parser(h11.Connection):
    """h11 with bounds that hold before a byte of the body is looked at."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            _check_head(event)
        return event


def _check_head(request: h11.Request) -> None:
    """:raises h11.RemoteProtocolError: the request is one that is not served, whatever its body says."""
    headers = dict(request.headers)
    if len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers) > MAX_HEAD:
        raise h11.RemoteProtocolError(f"its head is longer than {MAX_HEAD} bytes", 431)
    if b"transfer-encoding" in headers:
        # What is known beforehand can be bounded, and nobody can hide a request behind two lengths.
        raise h11.RemoteProtocolError("its length must be told in Content-Length", 411)
    if int(headers.get(b"content-length", 0)) > MAX_BODY:
        raise h11.RemoteProtocolError(f"its body is longer than {MAX_BODY} bytes", 413)


class _Connection(H11Protocol):
    """One client: of this user, on time, and with room for all the others.

    ``self.transport`` stays ``None`` for one that was turned away before a byte of it was parsed.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.conn = _Parser(h11.SERVER, MAX_HEAD)
        self._waiting_since = self._stalled_since = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def idle_since(self) -> float | None:
        """Since when only the client can make anything happen here; ``None`` while we are at work for it."""
        if self.flow.write_paused:
            return self._stalled_since
        return None if self._is_in_work else self._waiting_since

    @property
    def _is_in_work(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # there is none before the first request
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        if peer.uid(transport.get_extra_info("socket")) not in {os.geteuid(), 0}:
            _refusals.warning("a connection of another user was refused")
            transport.abort()
            return
        has_room = self._make_room()
        super().connection_made(transport)
        if has_room:
            self._await_request()
        else:
            self.refuse(503, DaemonBusyError(f"All of its {MAX_CONNECTIONS} connections are at work."))

    def _make_room(self) -> bool:
        if len(self.connections) < MAX_CONNECTIONS:
            return True
        idle = [
            (other.idle_since, other)
            for other in self.connections
            if isinstance(other, _Connection) and other.idle_since is not None
        ]
        _crowds.warning(
            "all %d connections are taken; %s",
            MAX_CONNECTIONS,
            "the idlest made room" if idle else "another was refused",
        )
        if idle:
            _, idlest = min(idle, key=lambda pair: pair[0])
            self.connections.discard(idlest)
            idlest.transport.abort()
        return bool(idle)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:
            return
        super().data_received(data)
        if len(self.conn.trailing_data[0]) > MAX_AHEAD:
            log.debug("a client that sent far more than it waited for was cut off")
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self.transport is not None:
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()

    def _await_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._waiting_since = self.loop.time()
        self._deadline = self.loop.call_later(REQUEST_TIMEOUT_S, self._on_deadline)

    def _on_deadline(self) -> None:
        if not self._is_in_work and not self.transport.is_closing():
            self.refuse(408, UsageError(f"The request took longer than {REQUEST_TIMEOUT_S:g} s to arrive."))

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn, while it handles h11's error, for what is no proper request."""
        fault = sys.exception()
        status = fault.error_status_hint if isinstance(fault, h11.RemoteProtocolError) else 400
        self.refuse(status, UsageError(f"The request cannot be served: {str(fault or msg)[:200]}."))

    def refuse(self, status: int, error: ImagedbError) -> None:
        """Answer with this error, if that can still be done, and hang up."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            answer = AsciiJSON(error_body(error), status)
            headers = [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
            reason = http.HTTPStatus(status).phrase.encode()
            head = h11.Response(status_code=status, headers=headers, reason=reason)
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Seldom:
    """Warnings that anyone can cause, told now and then only, so that nobody can fill the log."""

    def __init__(self) -> None:
        self._told_at: float | None = None
        self._untold = 0

    def warning(self, message: str, *values: object) -> None:
        now = asyncio.get_running_loop().time()
        if self._told_at is not None and now - self._told_at < TOLD_EVERY_S:
            self._untold += 1
            return
        log.warning(message, *values)
        if self._untold:
            log.warning("%d more like this since it was last told", self._untold)
        self._told_at, self._untold = now, 0


_refusals, _crowds = _Seldom(), _Seldom()


@contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """A socket that only this user can open, for a caller who holds the lock on its path.

    :raises LockHeldError: somebody answers there all the same.
    :raises ConfigError: it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        umask = os.umask(0o177)
        try:
            _remove_stale_socket(path)
            listener.bind(path)
            made = os.lstat(path)
        except OSError as error:
            raise ConfigError(f"The socket {path} cannot be made: {error.strerror or error}.") from error
        finally:
            os.umask(umask)
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                # What lies there now may be somebody else's.
                if os.path.samestat(os.lstat(path), made):
                    os.unlink(path)


def _remove_stale_socket(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat_module.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigError(f"{path} is there and is no socket; name another with --socket.")
        if _is_answered(path):
            raise LockHeldError(f"Another program answers at {path}; name another with --socket.")
        os.unlink(path)


def _is_answered(path: str) -> bool:
    """Whether a process listens there. Only a daemon holds our lock, but any program may hold a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:  # it is busy, or is a socket of another type
            return True
    return True
