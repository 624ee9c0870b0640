"""A daemon for a benchmark: in a folder of its own, watched from outside."""

from __future__ import annotations

import compileall
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

import psutil

import imagedbd
from imagedbd.client import Client

if TYPE_CHECKING:
    from collections.abc import Sequence

START_S = 60.0
SAMPLE_S = 0.5


def compile_package() -> None:
    """Have every module's bytecode there, as an installer leaves it: else each command compiles its own."""
    compileall.compile_dir(os.path.dirname(imagedbd.__file__), quiet=2)


class PrivateDaemon:
    """One running ``imagedbd run`` in a folder, and the sum of what its processes take.

    :param settings: lines for its configuration file.
    :param before: a command that the daemon is started under.
    """

    def __init__(
        self, home: str, model: str, *arguments: str, settings: str = "", before: Sequence[str] = ()
    ) -> None:
        compile_package()
        os.makedirs(home, exist_ok=True)
        self.home = home
        self.socket = os.path.join(home, "run", "s")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("IMAGEDBD_")},
            "IMAGEDBD_CONFIG": os.path.join(home, "config.toml"),
            "IMAGEDBD_DATA_DIR": os.path.join(home, "data"),
            "IMAGEDBD_SOCKET": self.socket,
        }
        with open(self.environment["IMAGEDBD_CONFIG"], "w", encoding="utf-8") as file:
            file.write(settings)
        command = [sys.executable, "-m", "imagedbd", "run", "--no-pull", "--model", model, *arguments]
        command[:0] = before
        with open(os.path.join(home, "log"), "ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.client = Client(self.socket)
        self._peak = 0
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_S
        while not self._is_up():
            if time.monotonic() > deadline or self.process.poll() is not None:
                with open(os.path.join(self.home, "log"), encoding="utf-8") as log:
                    raise SystemExit(f"the daemon did not start:\n{log.read()}")
            time.sleep(0.02)
        self.pid = int(self.client.status()["pid"])
        self._sampler.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._sampler.join()
        self.end(signal.SIGTERM)

    def end(self, number: signal.Signals) -> None:
        """Send the daemon this signal and wait for its end; nothing happens when it has ended."""
        if self.process.poll() is None:
            # Not to what it was started under.
            os.kill(self.pid, number)
            self.process.wait(30)

    def cli(self, *arguments: str) -> str:
        """What one call of ``imagedb`` prints."""
        command = [os.path.join(os.path.dirname(sys.executable), "imagedb"), *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def memory(self) -> int:
        """Bytes of the daemon and all its children (PSS: what is shared counts once)."""
        return sum(self.memory_by_process().values())

    def memory_by_process(self) -> dict[str, int]:
        """The same, by what the processes are for."""
        sums: dict[str, int] = {}
        for process in self._all():
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                name = _purpose(process, self.pid)
                sums[name] = sums.get(name, 0) + process.memory_full_info().pss
        return sums

    def peak_memory(self) -> int:
        """The largest sum seen so far, of two looks a second."""
        return max(self._peak, self.memory())

    def cpu_seconds(self) -> float:
        """Spent so far by the daemon and those of its children that live."""
        spent = 0.0
        for process in self._all():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                spent += times.user + times.system
        return spent

    def wakeups(self) -> int:
        """How often a thread of them has waited for something so far."""
        woken = 0
        for process in self._all():
            for thread in os.listdir(f"/proc/{process.pid}/task"):
                with (
                    contextlib.suppress(OSError),
                    open(
                        f"/proc/{process.pid}/task/{thread}/status", encoding="ascii", errors="replace"
                    ) as file,
                ):
                    woken += sum(int(line.split()[1]) for line in file if line.startswith("voluntary"))
        return woken

    def processes(self) -> int:
        return len(self._all())

    def _all(self) -> list[psutil.Process]:
        daemon = psutil.Process(self.pid)
        return [daemon, *daemon.children(recursive=True)]

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._peak = max(self._peak, self.memory())

    def _is_up(self) -> bool:
        try:
            self.client.status()
        except Exception:  # noqa: BLE001 - whatever it is, the daemon is not up
            return False
        return True


def _purpose(process: psutil.Process, daemon: int) -> str:
    if process.pid == daemon:
        return "daemon"
    return "model" if "imagedbd.embedder_worker" in process.cmdline() else "decoders"
