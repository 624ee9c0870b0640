"""The daemon as a service manager sees it: over a notification socket and with a socket handed over.

None of this needs systemd; tests/e2e/test_systemd.py has the real one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from pictures import save

if TYPE_CHECKING:
    from machine import Machine

WATCHDOG_S = 1.5
HANDING_OVER = """
import os, sys
os.dup2(int(os.environ["HANDED_OVER"]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "imagedbd", *sys.argv[1:]])
"""

WITH_A_BUG = """
import importlib, sys
from imagedbd.cli.start import imagedbd
module, name, method = {place!r}.split(":")
def bug(*_, **__):
    raise ZeroDivisionError("a bug")
setattr(getattr(importlib.import_module(module), name), method, bug)
sys.exit(imagedbd())
"""


class Manager:
    """What listens at ``NOTIFY_SOCKET``, and everything that it has heard."""

    def __init__(self, listener: socket.socket) -> None:
        self.socket = listener
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self.socket.recv(65536).decode())
        return self.heard


@pytest.fixture
def manager(machine: Machine) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = str(machine.home / "notify")
        listener.bind(path)
        listener.setblocking(False)
        machine.environment |= {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        yield Manager(listener)


def test_a_whole_life_is_told(machine: Machine, manager: Manager) -> None:
    for number in range(30):
        save(machine.photos / f"{number}.jpg", number)
    machine.start()
    assert machine.process is not None
    machine.until(lambda: "READY=1" in manager.listen())
    machine.until(lambda: "STATUS=Watching for changes." in manager.listen())
    states = [message for message in manager.heard if not message.startswith("WATCHDOG")]
    assert states[0] == "STATUS=Opening the index."
    work = ("Loading the model", "Comparing the folders", "changes to look at")
    assert any(words in state for state in states for words in work)

    manager.heard.clear()
    machine.process.send_signal(signal.SIGHUP)
    machine.until(lambda: "READY=1" in manager.listen())
    assert any(message.startswith("RELOADING=1\nMONOTONIC_USEC=") for message in manager.heard)

    # Idle for longer than the manager would wait for a sign of life.
    manager.heard.clear()
    machine.until(lambda: manager.listen().count("WATCHDOG=1") >= 4)

    assert machine.stop() == 0
    assert manager.listen()[-1].startswith("STOPPING=1")


def test_a_frozen_control_loop_gives_no_sign_of_life(machine: Machine, manager: Manager) -> None:
    machine.environment["IMAGEDBD_STUB_FREEZES"] = "1"
    machine.start()
    machine.until(lambda: "WATCHDOG=1" in manager.listen())
    assert machine.process is not None
    machine.process.send_signal(signal.SIGUSR2)
    machine.until(lambda: "frozen" in machine.log())
    manager.listen()
    manager.heard.clear()
    time.sleep(WATCHDOG_S)  # the time after which a manager acts
    assert manager.listen() == []
    # What it does then leaves a trace of where the loop stood.
    machine.stop(signal.SIGABRT)
    assert "in freeze" in machine.log()


def test_the_first_query_waits_for_the_daemon_that_it_wakes(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    (machine.home / "run").mkdir(mode=0o700)
    place = machine.home / "run" / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        os.set_inheritable(listener.fileno(), True)
        machine.environment["HANDED_OVER"] = str(listener.fileno())
        # The status that `start` asks for is in the queue before the daemon is.
        machine.start(instead=[sys.executable, "-c", HANDING_OVER], keep=[listener.fileno()])
        machine.wait()
        assert machine.listed() == {"photos/a.jpg"}
        assert machine.stop() == 0
        assert place.exists()


@pytest.mark.parametrize(
    ("thread", "place"),
    [
        ("scanner", "imagedbd.scanner:Scanner:_next_work"),
        ("watcher", "imagedbd.watcher:Watcher:_check_all"),
        ("embedder", "imagedbd.embedder:EmbedderProcess:_patience"),
        ("decoder", "imagedbd.worker_pool:WorkerPool:_next"),
    ],
)
def test_a_thread_that_a_bug_ends_stops_the_daemon_loudly(machine: Machine, thread: str, place: str) -> None:
    save(machine.photos / "a.jpg", 1)
    script = WITH_A_BUG.format(place=place)
    done = machine.script(script, "run", "--no-pull", "--root", str(machine.photos), **machine.environment)
    said = done.stderr.decode()
    assert done.returncode == 70, said
    assert re.search(f"the thread {thread}.* met a bug and stops the daemon", said), said
    assert "ZeroDivisionError: a bug" in said
