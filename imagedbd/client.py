"""The daemon, seen from the command line: HTTP over the Unix socket with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import errno
import http.client
import json
import os
import select
import socket
import stat as stat_module
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from imagedbd import __version__, peer
from imagedbd.errors import (
    ERRORS_BY_NAME,
    DaemonBusyError,
    DaemonNotRunningError,
    DaemonStoppingError,
    ExpressionError,
    ImagedbError,
    PictureNeededError,
    ProtocolError,
    QueryPictureError,
)
from imagedbd.locking import is_locked, is_stopping, socket_lock
from imagedbd.processes import has_systemd

MAX_PICTURE = 180 << 20
"""Bytes of a query picture, at most: in base64 it fits into a request."""
BUSY_PATIENCE_S = 10.0
"""How long to go on trying where so many connect that the daemon's queue is full."""
BUSY_PAUSE_S = 0.05
VERSION_HEADER = "X-Imagedbd-Version"
STARTING_S = 10.0
"""How long a daemon is waited for that is starting."""
STARTING_LOOK_S = 0.05


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("imagedbd", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self._join_queue()
            if peer.uid(self.sock) not in {os.geteuid(), 0} and os.geteuid() != 0:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._path)
        except OSError:
            self.close()
            raise

    def _join_queue(self) -> None:
        """Connect; where the queue is full, a socket with a timeout is told so at once and tries again."""
        patience = BUSY_PATIENCE_S
        while True:
            try:
                self.sock.connect(self._path)
            except BlockingIOError:
                patience -= BUSY_PAUSE_S
                if patience < 0:
                    raise
                time.sleep(BUSY_PAUSE_S)
            else:
                return


def somebody_listens(socket_path: str) -> bool:
    """Whether a daemon, or systemd in its place, takes up connections there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(BUSY_PATIENCE_S)
        try:
            probe.connect(socket_path)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def is_deserted(socket_path: str) -> bool:
    """Whether there is no trace of a daemon: none listens there, and none is coming or going."""
    return not (somebody_listens(socket_path) or is_locked(socket_lock(socket_path)))


class Client:
    """One daemon at one socket. Each call is one request; every error is an :class:`ImagedbError`.

    :param timeout: seconds without a byte after which a call gives up; ``None`` waits for ever.
    :param grace: seconds in which a daemon of which there is no trace may yet come.
    """

    def __init__(self, socket_path: str, *, timeout: float | None = 900.0, grace: float = 0.0) -> None:
        self._socket_path = socket_path
        self._grace = grace
        self._timeout = timeout
        self.daemon_version: str | None = None
        """The daemon's version, known after the first answer."""

    def status(self) -> dict[str, Any]:
        return self._object("GET", "/status")

    def search(self, terms: Sequence[Mapping[str, Any]] = (), **conditions: Any) -> dict[str, Any]:
        """One search; the fields are those of ``POST /search``.

        A picture term is ``{"path": …}`` or ``{"data": bytes}``. Of a path, the bytes are sent only if the
        daemon holds no vector of that very file.

        :raises QueryPictureError: if a query picture cannot be read.
        """
        body = {name: value for name, value in conditions.items() if value not in (None, [], ())}
        try:
            return self._object("POST", "/search", {**body, "terms": [_by_stat(term) for term in terms]})
        except PictureNeededError:
            return self._object("POST", "/search", {**body, "terms": [_by_bytes(term) for term in terms]})

    def pictures(self) -> Iterator[dict[str, Any]]:
        return self._rows("/pictures")

    def failures(self) -> Iterator[dict[str, Any]]:
        return self._rows("/failures")

    def dupes(self, under: Sequence[str] = (), tiers: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """The lines of ``POST /dupes``: how far it is, groups, and the end; an error is raised."""
        body = {"under": list(under), **({"tiers": list(tiers)} if tiers else {})}
        for row in self._rows("/dupes", body):
            if "error" in row:
                raise _described(row["error"])
            yield row

    def export(self, *, vectors: bool = True) -> Iterator[dict[str, Any]]:
        return self._rows("/export", {"vectors": vectors})

    @contextmanager
    def held_still(self) -> Iterator[tuple[dict[str, Any], Callable[[], bool]]]:
        """Nothing is written to the index meanwhile.

        :returns: where its parts are; and what says whether they are held still up to now.
        """
        with self._request("POST", "/backup", {}) as response:
            told = _decode(response.readline())
            if "error" in told:
                raise _described(told["error"])
            # The daemon says nothing more, until it hangs up.
            yield told, lambda: not select.select([response], [], [], 0)[0]

    def names(self) -> dict[str, Any]:
        return self._object("GET", "/names")

    def show(self, path: str) -> dict[str, Any]:
        return self._object("POST", "/show", {"path": path})

    def why(self, path: str) -> dict[str, Any]:
        return self._object("POST", "/why", {"path": path})

    def scan(self, folder: str | None = None) -> dict[str, Any]:
        return self._object("POST", "/scan", {"folder": folder})

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        return self._object("POST", "/wait", {"timeout": timeout})

    def retry(self, paths: Sequence[str] | None = None) -> dict[str, Any]:
        return self._object("POST", "/failures/retry", {"paths": paths})

    def pause(self, seconds: float | None = None) -> dict[str, Any]:
        return self._object("POST", "/pause", {"seconds": seconds})

    def resume(self) -> dict[str, Any]:
        return self._object("POST", "/resume")

    def reindex(self, paths: Sequence[str] | None = None, *, force: bool = False) -> dict[str, Any]:
        return self._object("POST", "/reindex", {"paths": paths, "force": force})

    def reset(self) -> dict[str, Any]:
        return self._object("POST", "/reset")

    def load_model(self) -> dict[str, Any]:
        return self._object("POST", "/model/load")

    def use_store(self, kind: str, model: str | None = None) -> dict[str, Any]:
        return self._object("POST", "/store/use", {"kind": kind, "model": model})

    def use_model(self, spec: str) -> dict[str, Any]:
        return self._object("POST", "/model/use", {"model": spec})

    def roll_back(self) -> dict[str, Any]:
        return self._object("POST", "/model/rollback")

    def remove_previous(self) -> dict[str, Any]:
        return self._object("POST", "/model/remove")

    def relocate(self, old: str, new: str, *, only_check: bool = False) -> dict[str, Any]:
        return self._object("POST", "/roots/relocate", {"old": old, "new": new, "only_check": only_check})

    def reload(self) -> dict[str, Any]:
        return self._object("POST", "/reload")

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request; no body where none is read.

        The body goes out after the headers, and a daemon that has no need of it may have answered and hung
        up by then.
        """
        with self._request(method, path, body) as response:
            answer = _decode(self._read(response))
        if not isinstance(answer, dict):
            raise ProtocolError(f"The daemon answered {path} with something else than an object.")
        return answer

    def _rows(self, path: str, body: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        with self._request("GET" if body is None else "POST", path, body) as response:
            try:
                for line in response:
                    yield json.loads(line)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ProtocolError(f"The daemon's answer broke off: {error}.") from error

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> http.client.HTTPResponse:
        connection = self._connected()
        with contextlib.ExitStack() as undo:
            undo.callback(connection.close)
            response = self._response(connection, method, path, body)
            undo.pop_all()
        self.daemon_version = response.getheader(VERSION_HEADER)
        if response.status >= 400:
            with response:
                raise self._error(response.status, self._read(response))
        return response

    def _response(
        self, connection: _UnixConnection, method: str, path: str, body: Mapping[str, Any] | None
    ) -> http.client.HTTPResponse:
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            # One that has no need of the body, or is too busy, answers and hangs up while it is being sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, None if body is None else json.dumps(body), headers)
            return connection.getresponse()
        except TimeoutError as error:
            raise ProtocolError(f"The daemon did not answer for {self._timeout:.0f} s.") from error
        except (OSError, http.client.HTTPException) as error:
            raise ProtocolError(f"The daemon closed the connection: {error}.") from error

    def _connected(self) -> _UnixConnection:
        """A connection; of a daemon that holds its lock and does not answer yet, within a few seconds.

        :raises DaemonNotRunningError: there is none: at once after the grace, if no process holds the lock.
        :raises DaemonStoppingError: the one that holds it is on its way out; after the grace, too.
        """
        began = time.monotonic()
        while True:
            connection = _UnixConnection(self._socket_path, self._timeout)
            try:
                connection.connect()
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
                is_there = is_locked(lock := socket_lock(self._socket_path))
                comes = is_there and not is_stopping(lock)
                if time.monotonic() - began >= (max(STARTING_S, self._grace) if comes else self._grace):
                    raise self._not_running(is_there=is_there, comes=comes) from error
                time.sleep(STARTING_LOOK_S)
            except PermissionError as error:
                raise DaemonNotRunningError(
                    f"The socket {self._socket_path} belongs to another user."
                ) from error
            except BlockingIOError as error:
                raise DaemonBusyError("It does not get round to taking up new connections.") from error
            except OSError as error:
                raise ProtocolError(f"The daemon closed the connection: {error}.") from error
            else:
                return connection

    def _not_running(self, *, is_there: bool, comes: bool) -> DaemonNotRunningError:
        if is_there and not comes:
            return DaemonStoppingError(
                f"The one at {self._socket_path} was asked to stop, and takes no more questions. "
                "Once it has ended, another one can be started."
            )
        if is_there:
            return DaemonNotRunningError(
                f"The daemon at {self._socket_path} is starting, and does not answer yet. "
                "Its log says more: `imagedb service logs`, or, where it is no service, what it has written."
            )
        kept = ", or have systemd keep it running: `imagedb service install`" if has_systemd() else ""
        return DaemonNotRunningError(
            f"Nobody answers at {self._socket_path}. Start the daemon with `imagedbd run`{kept}."
        )

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ProtocolError(f"The daemon's answer broke off: {error}.") from error

    def _error(self, status: int, text: bytes) -> ImagedbError:
        try:
            answer = _decode(text)
        except ProtocolError:  # a fault that the daemon itself did not expect
            answer = None
        described = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(described, dict):
            hint = self._version_hint() or " Its log says more."
            return ProtocolError(f"The daemon answered with HTTP status {status}.{hint}")
        return _described(described)

    def _version_hint(self) -> str:
        if self.daemon_version in {None, __version__}:
            return ""
        return f" It is version {self.daemon_version}, this command {__version__}: restart the daemon."


def _described(error: Mapping[str, Any]) -> ImagedbError:
    """The error that the daemon met, made again from what it tells of it."""
    message = str(error.get("message", ""))
    kind = ERRORS_BY_NAME.get(str(error.get("name")), ImagedbError)
    if kind is ExpressionError:
        return ExpressionError(message, position=int(error["position"]), expression=str(error["expression"]))
    return kind(message)


def _decode(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ProtocolError(
            "The daemon's answer is not JSON. Is it an imagedbd of another version?"
        ) from error


def _by_stat(term: Mapping[str, Any]) -> dict[str, Any]:
    path = term.get("path")
    if path is None:
        return _by_bytes(term)
    from imagedbd.datatypes import Signature  # noqa: PLC0415 - its many classes cost most queries 25 ms

    try:
        signature = Signature.of(os.stat(path))
    except OSError as error:
        raise QueryPictureError(f"{path}: {error.strerror}.") from error
    stat = {name: getattr(signature, name) for name in Signature.__slots__}
    return {**term, "path": os.path.realpath(path), "stat": stat}


def _by_bytes(term: Mapping[str, Any]) -> dict[str, Any]:
    if "prompt" in term:
        return dict(term)
    data = term.get("data")
    try:
        data = _read_picture(term["path"]) if data is None else data
    except OSError as error:
        raise QueryPictureError(f"{term['path']}: {error.strerror}.") from error
    named = {"path": os.path.realpath(term["path"])} if "path" in term else {}
    return {**term, **named, "data": base64.b64encode(data).decode("ascii")}


def _read_picture(path: str) -> bytes:
    # A FIFO given as a query picture would be waited for; a device would never end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        stat = os.fstat(descriptor)
        if not stat_module.S_ISREG(stat.st_mode):
            raise QueryPictureError(f"{path}: not a regular file.")
        if stat.st_size > MAX_PICTURE:
            raise QueryPictureError(f"{path}: larger than the {MAX_PICTURE >> 20} MiB that can be sent.")
        return file.read()
