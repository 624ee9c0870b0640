"""The daemon's socket, as any program may use it: raw bytes, plain HTTP, and ``requests``."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

from requests import Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    from machine import Machine


def connect(machine: Machine) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(machine.home / "run" / "s.sock"))
    connection.settimeout(30)
    return connection


def ask(machine: Machine, method: str, path: str, body: Any = None) -> tuple[int, Any, Any]:
    """Status, JSON and headers of one request."""
    connection = http.client.HTTPConnection("x")
    connection.sock = connect(machine)
    payload = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Connection": "close"}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have heard enough
        connection.request(method, path, payload, headers)
    with connection.getresponse() as response:
        return response.status, json.loads(response.read()), response.headers


def post(path: str, body: bytes = b"{}", *headers: bytes) -> bytes:
    """A request as bytes."""
    head = [b"POST %s HTTP/1.1" % path.encode(), b"Host: x", b"Content-Type: application/json"]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), *headers, b"", body])


def read_all(connection: socket.socket) -> bytes:
    """Everything that comes until the daemon hangs up, or says nothing for as long as the socket waits."""
    answer = bytearray()
    # It may hang up before it has read all that was sent.
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        while part := connection.recv(65_536):
            answer += part
    return bytes(answer)


def session(machine: Machine) -> Session:
    """``requests`` over the socket, whatever the host is called."""
    made = Session()
    made.trust_env = False
    made.mount("http://", _UnixAdapter(machine))
    return made


class _UnixAdapter(HTTPAdapter):
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        super().__init__()

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        machine = self._machine

        class Connection(HTTPConnection):
            def connect(self) -> None:
                self.sock = connect(machine)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        super().init_poolmanager(*args, **named)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": Pool}
