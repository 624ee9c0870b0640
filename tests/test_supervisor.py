"""What systemd hears: over a real notification socket, of loops that keep their word or break it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagedbd.notify import Notifier, watchdog_s
from imagedbd.pulse import Pulse
from imagedbd.supervisor import Supervisor


@dataclass
class Manager:
    """The other end of ``NOTIFY_SOCKET``."""

    socket: socket.socket

    def heard(self) -> list[str]:
        """Everything since the last call."""
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(65536).decode())
        return messages


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        monkeypatch.chdir(tmp_path)  # a socket's path is short; pytest's folders are not
        listener.bind("notify")
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "/proc/self/cwd/notify")
        yield Manager(listener)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_promise_is_kept_until_its_time_is_over() -> None:
    clock = Clock()
    pulse = Pulse("indexer", clock)
    assert pulse.overdue_s() is None
    pulse.promise(10)
    clock.now = 10
    assert pulse.overdue_s() is None
    clock.now = 13
    assert pulse.overdue_s() == 3
    pulse.promise(3600)
    clock.now = 3000
    assert pulse.overdue_s() is None


def test_a_loop_that_has_ended_owes_nothing() -> None:
    clock = Clock()
    pulse = Pulse("watcher", clock)
    pulse.promise(1)
    pulse.end()
    clock.now = 1e9
    assert pulse.overdue_s() is None


def test_without_a_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    assert not notifier.enabled
    notifier.ready()


def test_a_reload_is_told_with_its_time_and_ends_in_ready(manager: Manager) -> None:
    notifier = Notifier()
    notifier.ready()
    notifier.reloading()
    notifier.reloaded()
    ready, reloading, again = manager.heard()
    assert (ready, again) == ("READY=1", "READY=1")
    state, time = reloading.split("\n")
    assert state == "RELOADING=1"
    assert time.removeprefix("MONOTONIC_USEC=").isdecimal()


def test_a_reload_during_start_or_stop_does_not_make_the_daemon_ready(manager: Manager) -> None:
    notifier = Notifier()
    notifier.reloading()
    notifier.reloaded()
    assert manager.heard() == []
    notifier.ready()
    notifier.stopping()
    notifier.reloaded()
    assert [message.split("\n")[0] for message in manager.heard()] == ["READY=1", "STOPPING=1"]


def test_a_status_is_one_line_whatever_a_folder_is_called_and_told_once(manager: Manager) -> None:
    notifier = Notifier()
    for _ in range(2):
        notifier.status("Looking at /photos/\nREADY=1/\udcff")
    assert manager.heard() == ["STATUS=Looking at /photos/ READY=1/\\udcff"]


def test_a_manager_that_is_gone_is_logged_and_no_error(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    os.unlink("notify")
    Notifier().ready()
    assert "READY" in caplog.text


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("30000000", None, 30.0),
        ("30000000", "ours", 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_counts_for_the_process_that_it_is_meant_for(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, process: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if process:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if process == "ours" else process)
    assert watchdog_s() == seconds


def supervised(
    scenario: Iterator[bool],
    *,
    pulses: tuple[Pulse, ...] = (),
    activity: Callable[[], tuple[str, str]] = lambda: ("idle", "Watching for changes."),
    on_crash: Callable[[], object] = lambda: None,
) -> None:
    """Run a supervisor that beats every 20 ms, a server at the socket ``s``, and a scenario beside both.

    The scenario yields whenever it is the others' turn; the server begins when it has first yielded true.
    """

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
        writer.close()

    async def both() -> None:
        supervisor = Supervisor(Notifier(), pulses, activity, 0.06, on_crash)
        running = asyncio.create_task(supervisor.run("s"))
        async with asyncio.timeout(20):
            for serves in scenario:
                await asyncio.sleep(0.02)
                if serves:
                    break
            async with await asyncio.start_unix_server(answer, "s"):
                for _ in scenario:
                    await asyncio.sleep(0.02)
        running.cancel()

    asyncio.run(both())


def test_ready_is_said_when_the_socket_answers_and_not_before(manager: Manager) -> None:
    def scenario() -> Iterator[bool]:
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            listener.bind("s")
            listener.listen()  # as systemd holds it: a connection is taken, and nobody answers yet
            for _ in range(5):
                yield False
            assert manager.heard() == []
        yield True
        heard: list[str] = []
        while "WATCHDOG=1" not in heard:
            heard += manager.heard()
            yield True
        assert heard[0] == "READY=1"

    supervised(scenario())


def test_a_loop_that_outstays_its_word_silences_the_heartbeat_and_is_named(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    indexer, watcher = Pulse("indexer", clock), Pulse("watcher", clock)
    named = "STATUS=The watcher gives no sign of life."

    def until(message: str) -> Iterator[list[str]]:
        heard: list[str] = []
        while message not in heard:
            yield heard
            heard += manager.heard()

    def scenario() -> Iterator[bool]:
        indexer.promise(3600)
        watcher.promise(70)
        yield True
        yield from (True for _ in until("WATCHDOG=1"))
        clock.now = 100
        yield from (True for _ in until(named))
        yield from (True for _ in range(5))
        assert manager.heard() == []
        watcher.promise(70)
        yield from (True for _ in until("WATCHDOG=1"))

    supervised(scenario(), pulses=(indexer, watcher))
    assert caplog.text.count("the watcher has not been heard of for 30 s longer than it said") == 1
    assert "the indexer" not in caplog.text


def test_without_a_manager_the_log_names_a_loop_that_outstays_its_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.chdir(tmp_path)
    clock = Clock()
    watcher = Pulse("watcher", clock)
    watcher.promise(70)
    clock.now = 100

    def scenario() -> Iterator[bool]:
        yield True
        while "the watcher has not been heard of for 30 s longer than it said" not in caplog.text:
            yield True

    def never() -> tuple[str, str]:
        raise AssertionError("nobody is there to be told")

    supervised(scenario(), pulses=(watcher,), activity=never)


def test_a_look_at_a_disk_that_hangs_does_not_hold_up_the_heartbeat(manager: Manager) -> None:
    hangs = threading.Event()
    looks: list[int] = []

    def activity() -> tuple[str, str]:
        looks.append(1)
        hangs.wait(20)
        return "idle", "Watching for changes."

    def scenario() -> Iterator[bool]:
        yield True
        heard: list[str] = []
        while heard.count("WATCHDOG=1") < 5:
            yield True
            heard += manager.heard()
        assert looks == [1]
        hangs.set()

    supervised(scenario(), activity=activity)


def test_a_bug_in_the_supervision_stops_the_daemon(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Pulse):
        def overdue_s(self) -> float | None:
            raise ZeroDivisionError

    crashes: list[int] = []

    def scenario() -> Iterator[bool]:
        yield True
        while not crashes:
            yield True

    supervised(scenario(), pulses=(Broken("indexer"),), on_crash=lambda: crashes.append(1))
    assert crashes == [1]
    assert "ZeroDivisionError" in caplog.text
