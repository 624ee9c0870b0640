"""The server alone, on a real socket and around a small application: who is heard, for how long, how many."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from wire import post, read_all

from imagedbd import locking, server
from imagedbd.errors import ConfigError, LockHeldError

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """A server whose application answers ``/wait`` when it may, ``/much`` with a megabyte, else ``ok``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.heard: list[str] = []
        self.may_answer = threading.Event()
        self.clients = ExitStack()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        try:
            await request.body()
        except ClientDisconnect:
            return
        self.heard.append(scope["path"])
        while scope["path"] == "/wait" and not self.may_answer.is_set():
            await asyncio.sleep(0.01)
            if await request.is_disconnected():
                break
        parts = [b"x" * (1 << 16)] * 16 if scope["path"] == "/much" else [b"ok"]
        headers = [(b"content-length", str(sum(map(len, parts))).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, part in enumerate(parts, start=1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    def connect(self, *parts: bytes) -> socket.socket:
        connection = self.clients.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(self.path)
        connection.settimeout(30)
        for part in parts:
            connection.sendall(part)
        return connection

    def until_it_listens(self) -> None:
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return self.connect().close()
            time.sleep(0.01)

    def until_heard(self, *paths: str) -> None:
        while sorted(self.heard) != sorted(paths):
            assert self.connect(GET).recv(1000).startswith(b"HTTP/1.1 200")
            self.heard = [path for path in self.heard if path != "/"]


@contextmanager
def serving(path: str) -> Iterator[Served]:
    served = Served(path)
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), stop))
        with server.listening(path) as listener:
            await server.Server(served.app, stop, lambda: None).serve([listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    loop, stop = ready.result(10)
    try:
        served.until_it_listens()
        yield served
    finally:
        served.may_answer.set()
        served.clients.close()
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture
def served(short: Path) -> Iterator[Served]:
    with serving(str(short / "s")) as served:
        yield served


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and error of what comes until the daemon hangs up."""
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"x-imagedbd-version" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]


def send_on(connection: socket.socket, part: bytes, pause: float = 0) -> None:
    while True:
        connection.sendall(part)
        time.sleep(pause)


class TestHeads:
    @pytest.mark.parametrize(
        ("request_head", "status"),
        [
            (b"\x16\x03\x01garbage\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n" % (b"b" * server.MAX_HEAD), 431),
            (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * server.MAX_HEAD, 431),
            (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"b" * server.MAX_HEAD), 431),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
            (post("/", b"x", b"Transfer-Encoding: chunked"), 411),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n",
                413,
            ),
        ],
    )
    def test_what_cannot_be_served_is_told_why_before_the_application_hears_of_it(
        self, served: Served, request_head: bytes, status: int
    ) -> None:
        found, error = answer_of(served.connect(request_head))
        assert (found, error["name"]) == (status, "UsageError")
        assert served.heard == []

    def test_a_head_that_comes_piece_by_piece_without_end_is_cut_off(self, served: Served) -> None:
        connection = served.connect(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_on(connection, b"a: b\r\n" * 10)

    def test_several_requests_at_once_are_answered_in_turn(self, served: Served) -> None:
        connection = served.connect(GET * 20 + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert read_all(connection).count(b"HTTP/1.1 200") == 21

    def test_sending_on_and_on_beyond_a_request_in_work_ends_it(self, served: Served) -> None:
        connection = served.connect(GET.replace(b"/", b"/wait", 1))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_on(connection, GET * 100)
        served.until_heard("/wait")


class TestTimes:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "REQUEST_TIMEOUT_S", 0.3)

    @pytest.mark.parametrize("part", [b"", b"GET / HT", post("/")[:-1]])
    def test_a_request_that_does_not_arrive_is_not_waited_for(self, served: Served, part: bytes) -> None:
        status, error = answer_of(served.connect(part))
        assert (status, error["name"]) == (408, "UsageError")

    def test_bytes_that_come_slowly_buy_no_time(self, served: Served) -> None:
        connection = served.connect()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_on(connection, b"G", pause=0.02)

    def test_the_second_request_of_a_connection_has_to_arrive_as_well(self, served: Served) -> None:
        connection = served.connect(GET, b"GET ")
        assert read_all(connection).count(b"HTTP/1.1") == 2

    def test_an_answer_may_take_longer(self, served: Served) -> None:
        waiting = served.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer_of(served.connect())[0] == 408  # that long
        served.may_answer.set()
        assert read_all(waiting).endswith(b"ok")


class TestCrowds:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)
        monkeypatch.setattr(server, "ACCEPTED_AT_ONCE", 1)
        monkeypatch.setattr(server, "_crowds", server._Seldom())

    def test_the_one_that_says_nothing_for_longest_makes_room(self, served: Served) -> None:
        silent = [served.connect() for _ in range(4)]
        assert served.connect(GET).recv(100).startswith(b"HTTP/1.1 200")
        assert silent[0].recv(100) == b""
        silent[1].sendall(GET)
        assert silent[1].recv(100).startswith(b"HTTP/1.1 200")

    def test_one_that_does_not_read_its_answer_makes_room(self, served: Served) -> None:
        for _ in range(4):
            served.connect(GET.replace(b"/", b"/much", 1))
        served.until_heard("/much", "/much", "/much", "/much")

    def test_what_is_being_worked_for_is_never_cut_off(self, served: Served) -> None:
        waiting = [
            served.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") for _ in range(3)
        ]
        served.until_heard("/wait", "/wait", "/wait")
        for _ in range(20):
            served.connect()
        served.may_answer.set()
        assert all(read_all(connection).endswith(b"ok") for connection in waiting)

    def test_where_all_are_worked_for_another_is_told_to_come_again(self, served: Served) -> None:
        for number in range(1, 4):
            served.connect(GET.replace(b"/", b"/wait", 1))
            served.until_heard(*["/wait"] * number)
        served.connect(GET.replace(b"/", b"/wait", 1))
        while len(served.heard) < 4:
            time.sleep(0.01)
        status, error = answer_of(served.connect())
        assert (status, error["name"]) == (503, "DaemonBusyError")

    def test_the_log_tells_of_a_crowd_once(self, served: Served, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(20):
            served.connect()
        assert served.connect(GET).recv(100).startswith(b"HTTP/1.1 200")
        assert sum("connections are taken" in record.message for record in caplog.records) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_cut_off_before_a_byte_is_parsed(served: Served) -> None:
    os.chmod(os.path.dirname(served.path), 0o755)  # noqa: S103 - as a careless owner might
    os.chmod(served.path, 0o666)  # noqa: S103 - the same
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "try:\n s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(s.recv(100))\n"
        "except (BrokenPipeError, ConnectionResetError): print(b'')"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-S", "-c"]
    done = subprocess.run([*command, program, served.path], capture_output=True, check=True)
    assert done.stdout == b"b''\n"
    assert served.heard == []
    assert served.connect(GET).recv(100).startswith(b"HTTP/1.1 200")


class TestThePlace:
    def test_it_is_private_whatever_the_umask(self, short: Path) -> None:
        for umask in (0, 0o777):
            path = short / f"{umask}" / "run" / "s"
            old = os.umask(umask)
            try:
                locking.prepare_folder(str(path.parent))
                with server.listening(str(path)):
                    modes = [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent, path.parent.parent)]
            finally:
                os.umask(old)
            assert modes == [0o600, 0o700, 0o700]

    def test_a_folder_that_is_a_link_is_refused(self, short: Path) -> None:
        (short / "real").mkdir()
        (short / "link").symlink_to("real")
        with pytest.raises(ConfigError, match="symbolic link"):
            locking.prepare_folder(str(short / "link"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_a_folder_of_another_user_is_refused(self, short: Path) -> None:
        (short / "theirs").mkdir(mode=0o700)
        os.chown(short / "theirs", 65534, 65534)
        with pytest.raises(ConfigError, match="another user"):
            locking.prepare_folder(str(short / "theirs"))

    @pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder", "fifo"])
    def test_what_is_no_socket_is_left_alone(self, short: Path, kind: str) -> None:
        path = short / "s"
        (short / "target").write_text("mine")
        match kind:
            case "file":
                path.write_text("mine")
            case "link":
                path.symlink_to("target")
            case "dangling link":
                path.symlink_to("nowhere")
            case "folder":
                path.mkdir()
            case "fifo":
                os.mkfifo(path)
        before = os.lstat(path)
        with pytest.raises(ConfigError, match="no socket"), server.listening(str(path)):
            pass
        assert os.path.samestat(os.lstat(path), before)
        assert (short / "target").read_text() == "mine"

    def test_the_socket_of_one_that_died_is_taken_over(self, short: Path) -> None:
        path = str(short / "s")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
            dead.listen()
        with serving(path) as served:
            assert served.connect(GET).recv(100).startswith(b"HTTP/1.1 200")
        assert not os.path.lexists(path)

    @pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
    def test_the_socket_of_one_that_lives_is_left_alone(self, short: Path, kind: int) -> None:
        path = str(short / "s")
        with socket.socket(socket.AF_UNIX, kind) as other:
            other.bind(path)
            if kind == socket.SOCK_STREAM:
                other.listen()
            with pytest.raises(LockHeldError), server.listening(path):
                pass
            with socket.socket(socket.AF_UNIX, kind) as client:
                client.connect(path)

    def test_at_the_end_only_its_own_socket_is_removed(self, short: Path) -> None:
        path = short / "s"
        with server.listening(str(path)):
            path.unlink()
            path.write_text("somebody else's")
        assert path.read_text() == "somebody else's"

    def test_a_lock_that_is_a_link_is_refused_and_what_it_points_to_is_left_alone(self, short: Path) -> None:
        (short / "target").write_text("mine")
        (short / "s.lock").symlink_to("target")
        with pytest.raises(ConfigError, match="lock"), locking.locked(str(short / "s.lock"), "x"):
            pass
        assert (short / "target").read_text() == "mine"
