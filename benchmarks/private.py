"""A daemon for a benchmark: in a folder of its own, watched from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Self

import psutil

from imagedbd.client import Client

START_S = 60.0
SAMPLE_S = 0.5


class PrivateDaemon:
    """One running ``imagedbd run`` in a folder, and the sum of what its processes take.

    :param settings: lines for its configuration file.
    """

    def __init__(self, home: str, model: str, *arguments: str, settings: str = "") -> None:
        os.makedirs(home)
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
        self._sampler.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._sampler.join()
        self.process.terminate()
        self.process.wait(30)

    def cli(self, *arguments: str) -> str:
        """What one call of ``imagedb`` prints."""
        command = [os.path.join(os.path.dirname(sys.executable), "imagedb"), *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def memory(self) -> int:
        """Bytes of the daemon and all its children (PSS: what is shared counts once)."""
        total = 0
        for process in [psutil.Process(self.process.pid), *self._children()]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue  # it ended meanwhile
        return total

    def peak_memory(self) -> int:
        """The largest sum seen so far, of two looks a second."""
        return max(self._peak, self.memory())

    def cpu_seconds(self) -> float:
        """Spent so far by the daemon and those of its children that live."""
        spent = 0.0
        for process in [psutil.Process(self.process.pid), *self._children()]:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            spent += times.user + times.system
        return spent

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._peak = max(self._peak, self.memory())

    def _is_up(self) -> bool:
        try:
            self.client.status()
        except Exception:  # noqa: BLE001 - whatever it is, the daemon is not up
            return False
        return True
