"""The client alone, against sockets that behave in every way."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagedbd import client as client_module
from imagedbd.client import Client
from imagedbd.errors import DaemonBusyError, DaemonNotRunningError, ProtocolError, UsageError

REFUSAL = b'{"error":{"name":"UsageError","title":"Bad request","message":"Too large."}}'
ANSWER = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(REFUSAL)


@pytest.fixture
def listener(short: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short / "s"))
        listener.listen(0)
        yield listener


@contextlib.contextmanager
def answering(listener: socket.socket, serve: Callable[[socket.socket], object]) -> Iterator[None]:
    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            serve(connection)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()


def test_an_answer_that_comes_before_the_body_was_sent_is_read(listener: socket.socket) -> None:
    with answering(listener, lambda c: c.sendall(ANSWER + REFUSAL)), pytest.raises(UsageError, match="large"):
        Client(listener.getsockname()).why("/" + "x" * 10_000_000)


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", ANSWER, b"HTTP/1.1 200 OK\r\n\r\n[1]"])
def test_one_that_makes_no_sense_is_told_so(listener: socket.socket, answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with answering(listener, serve), pytest.raises(ProtocolError):
        Client(listener.getsockname()).status()


def test_a_full_queue_is_waited_for(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    path = listener.getsockname()
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(path)
        with monkeypatch.context() as patched:
            patched.setattr(client_module, "BUSY_PATIENCE_S", 0.1)
            with pytest.raises(DaemonBusyError):
                Client(path).status()

        def serve(connection: socket.socket) -> None:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")

        def serve_the_next(_: socket.socket) -> None:
            with answering(listener, serve):
                pass

        with answering(listener, serve_the_next):
            assert Client(path).status() == {}


@pytest.mark.parametrize("systemd", [True, False])
def test_where_nobody_answers_the_ways_to_start_a_daemon_are_named(
    short: Path, monkeypatch: pytest.MonkeyPatch, systemd: bool
) -> None:
    monkeypatch.setattr(client_module, "has_systemd", lambda: systemd)
    with pytest.raises(DaemonNotRunningError, match="`imagedbd run`") as told:
        Client(str(short / "s")).status()
    assert ("`imagedb service install`" in told.value.message) == systemd


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two other users")
def test_a_daemon_of_another_user_is_told_nothing(short: Path) -> None:
    listen = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX)\n"
        "s.bind(sys.argv[1]); s.listen(); print(flush=True)\n"
        "c, _ = s.accept(); print(c.recv(1000))"
    )
    ask = (
        "import sys; from imagedbd.client import Client; from imagedbd.errors import ImagedbError\n"
        "try: Client(sys.argv[1]).status()\n"
        "except ImagedbError as error: print(error.message)"
    )
    short.chmod(0o777)
    path = str(short / "s")
    become = ["setpriv", "--clear-groups", "--regid=65534"]
    theirs = [*become, "--reuid=65534", sys.executable, "-c", f"import os; os.umask(0); {listen}", path]
    with subprocess.Popen(theirs, stdout=subprocess.PIPE) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        mine = [*become, "--reuid=65533", sys.executable, "-c", ask, path]
        done = subprocess.run(mine, capture_output=True, check=False)
        heard = listening.stdout.read()
    assert b"another user" in done.stdout, done.stderr
    assert heard == b"b''\n"
