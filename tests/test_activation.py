"""A socket that somebody else made and handed over, as systemd does: descriptor 3 and two variables."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagedbd import activation
from imagedbd.errors import ConfigError


@contextmanager
def own(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


@pytest.fixture
def handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()
        monkeypatch.setattr(activation, "FIRST_DESCRIPTOR", listener.fileno())
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        yield listener


def test_a_socket_that_was_handed_over_is_used_and_left_where_it_is(handed_over: socket.socket) -> None:
    with activation.listening("s", own) as listener:
        assert listener.getsockname() == "s"
        assert not listener.get_inheritable()
    assert os.path.exists("s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("s")


def test_what_was_handed_over_to_another_process_is_not_ours(
    handed_over: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    with activation.listening("s", own) as listener:
        assert listener.getsockname() == ""


def test_another_place_than_that_of_the_settings_is_told(
    handed_over: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    with activation.listening("/run/other", own):
        assert "/run/other" in caplog.text


def test_two_sockets_are_refused(handed_over: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "2")
    with pytest.raises(ConfigError, match="2 sockets"):
        activation.listening("s", own)


def test_a_socket_that_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as idle:
        monkeypatch.setattr(activation, "FIRST_DESCRIPTOR", idle.fileno())
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        with pytest.raises(ConfigError, match="no listening"):
            activation.listening("s", own)


def test_who_woke_a_daemon_that_cannot_start_is_told_why(handed_over: socket.socket) -> None:
    answers: list[bytes] = []
    body = b"x" * 3_000_000  # more than a socket holds: it is still on its way when the answer comes

    def ask(client: socket.socket) -> None:
        client.sendall(b"POST /search HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = b""
        while b"}}" not in answer:
            answer += client.recv(65536)
        answers.append(answer)
        client.close()

    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in clients:
        client.connect("s")
    threads = [threading.Thread(target=ask, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    with pytest.raises(ConfigError), activation.explaining_failure():
        raise ConfigError("There is no such setting.")
    for thread in threads:
        thread.join(10)
    for answer in answers:
        assert b"ConfigError" in answer
        assert b"There is no such setting." in answer
    assert len(answers) == len(clients)
    # Nobody is left to have the daemon started once more.
    with pytest.raises(BlockingIOError):
        handed_over.accept()


def test_a_failure_without_a_socket_is_just_that() -> None:
    with pytest.raises(ConfigError), activation.explaining_failure():
        raise ConfigError("There is no such setting.")


def test_faulty_settings_answer_the_first_client_and_end_with_78(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("rots = []\n")
    with socket.socket(socket.AF_UNIX) as listener:
        # Relative, for a socket's path is short; the daemon never gets to compare it.
        place = os.path.relpath(tmp_path / "s")
        listener.bind(place)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(place)
            client.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            handing_over = (
                "import os, sys\n"
                "os.dup2(int(sys.argv[1]), 3)\n"
                "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
                "os.execv(sys.executable, [sys.executable, '-m', 'imagedbd', 'run', *sys.argv[2:]])\n"
            )
            options = ["--config", str(tmp_path / "config.toml"), "--data-dir", str(tmp_path / "data")]
            done = subprocess.run(
                [sys.executable, "-c", handing_over, str(listener.fileno()), *options],
                pass_fds=[listener.fileno()], capture_output=True, check=False, timeout=60,
            )  # fmt: skip
            client.settimeout(10)
            answer = client.recv(65536)
    assert done.returncode == 78, done.stderr.decode()
    assert b"roots" in done.stderr
    assert b" 503 " in answer.splitlines()[0]
    assert b"ConfigError" in answer
    assert b"roots" in answer
