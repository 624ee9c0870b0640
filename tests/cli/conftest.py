"""A small daemon that speaks the real protocol over a real socket, with canned answers."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socketserver
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from inspect import isgeneratorfunction
from typing import TYPE_CHECKING, Any

import pytest

from imagedbd import __version__
from imagedbd.client import VERSION_HEADER
from imagedbd.errors import ImagedbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Answer = Any
"""JSON, a list of rows for a streamed path, an error, or a function of the request's body."""
STREAMED = {"/pictures", "/failures", "/dupes", "/export"}


@dataclass
class FakeDaemon:
    socket: str
    answers: dict[str, Answer]
    requests: list[tuple[str, Any]] = field(default_factory=list)
    version: str = __version__

    def bodies(self, path: str) -> list[Any]:
        return [body for asked, body in self.requests if asked == path]

    def answer(self, path: str, body: Any) -> tuple[int, bytes]:
        self.requests.append((path, body))
        answer = self.answers[path]
        try:
            answer = answer(body) if callable(answer) else answer
            if isinstance(answer, ImagedbError):
                raise answer
        except ImagedbError as error:
            described = {"name": type(error).__name__, "title": error.title, "message": error.message}
            return 400, json.dumps({"error": described | error.details()}).encode()
        if isinstance(answer, bytes):
            return 500, answer
        if path in STREAMED:
            return 200, "".join(json.dumps(row) + "\n" for row in answer).encode()
        return 200, json.dumps(answer).encode()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    fake: FakeDaemon


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._answer(json.loads(self.rfile.read(length)) if length else None)

    def _answer(self, body: Any) -> None:
        if self.path in STREAMED and isgeneratorfunction(self.server.fake.answers[self.path]):
            self._stream(self.server.fake.answers[self.path](body))
            return
        status, data = self.server.fake.answer(self.path, body)
        self.send_response(status)
        self.send_header(VERSION_HEADER, self.server.fake.version)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, rows: Iterable[Any]) -> None:
        """Each row when it is there, for as long as somebody listens."""
        self.send_response(200)
        self.send_header(VERSION_HEADER, self.server.fake.version)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            for row in rows:
                self.wfile.write(json.dumps(row).encode() + b"\n")

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


def a_status(**changes: Any) -> dict[str, Any]:
    """What an idle daemon with one root says, with changes."""
    status = {
        "state": "idle", "doing": "Watching for changes.",
        "indexed": 1204, "again": 0, "waiting": 0, "pending": 0, "failed": 0, "rate": None, "eta_s": None,
        "roots": [{"path": "/photos", "state": "online", "indexed": 1204, "reason": None}],
        "store": {"kind": "lance", "uri": "/data/lance", "rows": 1204, "vectors": 1204,
                  "bytes_on_disk": 12_300_000},
        "model": {"name": "demo", "state": "ready", "only_prompts": False, "reason": None, "help": [],
                  "configured": "demo"},
        "device": "cpu", "dtype": "bf16", "embeds_total": 7, "watcher_restarts": 0, "uptime_s": 4000.0,
        "version": __version__, "pid": 4711, "config_file": "/nowhere/config.toml", "data_dir": "/data",
        "socket": "/run/s",
    }  # fmt: skip
    return {**status, **changes}


def a_hit(path: str, rank: int = 1, **changes: Any) -> dict[str, Any]:
    hit = {
        "rank": rank, "score": 1 / rank, "similarity": 1 / rank, "text_score": None, "id": f"id{rank}",
        "path": path, "folder": os.path.dirname(path), "name": os.path.basename(path),
        "size": 1000, "mtime": "2024-05-04T10:00:00Z",
        "format": "JPEG", "width": 640, "height": 480, "taken_at": "2024-05-04T12:00:00+02:00",
        "camera_make": "NIKON CORPORATION", "camera_model": "NIKON Z 6", "keywords": [],
    }  # fmt: skip
    return {**hit, **changes}


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the settings, the daemon or the terminal of whoever runs it."""
    for name in list(os.environ):
        if name.startswith("IMAGEDBD_") or name in {"COLUMNS", "NO_COLOR", "FORCE_COLOR"}:
            monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="idb") as short:  # a socket's path is short
        monkeypatch.setenv("IMAGEDBD_SOCKET", os.path.join(short, "s"))
        monkeypatch.setenv("IMAGEDBD_CONFIG", str(tmp_path / "config.toml"))
        monkeypatch.setenv("IMAGEDBD_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.chdir(tmp_path)
        yield


@contextlib.contextmanager
def served(socket: str, answers: dict[str, Answer] | None = None) -> Iterator[FakeDaemon]:
    """:param answers: those that it must have from the first moment on, beside its status."""
    fake = FakeDaemon(socket, {"/status": a_status(), **(answers or {})})
    with _Server(fake.socket, _Handler) as server:
        server.fake = fake
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with served(os.environ["IMAGEDBD_SOCKET"]) as fake:
        yield fake


@dataclass(frozen=True)
class Ran:
    code: int
    data: bytes
    words: str

    @property
    def text(self) -> str:
        return self.data.decode()


@pytest.fixture
def imagedb(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Ran]:
    """Run one command line in this process."""
    from imagedbd.cli.main import main

    def run(*arguments: str) -> Ran:
        capfdbinary.readouterr()
        code = main(arguments)
        data, words = capfdbinary.readouterr()
        return Ran(code, data, os.fsdecode(words))

    return run


@pytest.fixture
def terminal() -> Callable[..., tuple[int, bytes]]:
    """Run a program at a terminal of its own; Ctrl-C is pressed once where it offers that."""

    def run(command: list[str], **environment: str) -> tuple[int, bytes]:
        ours, its = pty.openpty()
        variables = {**os.environ, "TERM": "xterm", **environment}
        seen, interrupted = b"", False
        with subprocess.Popen(command, stdout=its, stderr=its, env=variables) as child:
            os.close(its)
            with contextlib.suppress(OSError):  # the other end is closed
                while True:
                    seen += os.read(ours, 65_536)
                    if b"Ctrl-C leaves" in seen and not interrupted:
                        child.send_signal(signal.SIGINT)
                        interrupted = True
        os.close(ours)
        return child.returncode, seen

    return run
