"""A daemon of one's own: in a folder of its own, on a socket of its own, gone when its owner is."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from imagedbd.cli.target import Target
from imagedbd.errors import DaemonNotRunningError, ImagedbError, ProtocolError
from imagedbd.processes import environment, python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

START_S: Final = 60.0
STOP_S: Final = 10.0
LONGEST_FOLDER: Final = 80
"""Bytes of a folder's path that leave room for a socket below it."""


class PrivateDaemon:
    """One running ``imagedbd run`` and the options that reach it."""

    def __init__(self, process: subprocess.Popen[bytes], home: str) -> None:
        self.process = process
        self.home = home
        self.target = Target()
        self.target.flags = _places(home)

    @property
    def options(self) -> list[str]:
        """What a command line needs to talk to this daemon and to no other."""
        places = _places(self.home)
        return [
            "--config",
            places["config_file"],
            "--data-dir",
            places["data_dir"],
            "--socket",
            places["socket"],
        ]

    @property
    def exports(self) -> str:
        """The same as a line for a shell."""
        places = _places(self.home)
        return " ".join(
            [
                "export",
                f"IMAGEDBD_SOCKET={shlex.quote(places['socket'])}",
                f"IMAGEDBD_CONFIG={shlex.quote(places['config_file'])}",
                f"IMAGEDBD_DATA_DIR={shlex.quote(places['data_dir'])}",
            ]
        )

    def wait_until_up(self) -> None:
        """:raises ImagedbError: if it does not come up, with the end of its log."""
        deadline = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(DaemonNotRunningError, ProtocolError):
                self.target.client.status()
                return
            time.sleep(0.05)
        raise ImagedbError(f"The private daemon did not start: {self._last_words()}")

    def stop(self) -> None:
        """Ask it to end; whatever is left of it after a while is killed."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _last_words(self) -> str:
        try:
            with open(_log(self.home), encoding="utf-8", errors="replace") as file:
                lines = file.read().strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it said nothing."


def make_home() -> str:
    """A private folder whose path is short enough for a socket in it."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) >= LONGEST_FOLDER:
        folder = "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it
    return tempfile.mkdtemp(prefix="imagedb-", dir=folder)


def start(home: str, root: str | None, model: str, settings: str = "") -> PrivateDaemon:
    """Start a daemon; it belongs to a session of its own, out of reach of this terminal.

    :param root: a folder that it watches.
    :param settings: lines of its settings file.
    """
    places = _places(home)
    arguments = [
        "run", "--no-pull", *(["--root", root] if root else []), "--model", model,
        "--config", places["config_file"], "--data-dir", places["data_dir"], "--socket", places["socket"],
    ]  # fmt: skip
    with open(places["config_file"], "w", encoding="utf-8") as file:
        file.write(settings)
    # The user's own settings are for the user's own daemon.
    own = {name: value for name, value in environment().items() if not name.startswith("IMAGEDBD_")}
    with open(_log(home), "wb") as log:
        process = subprocess.Popen(
            python("imagedbd", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=own,
            start_new_session=True,
        )
    return PrivateDaemon(process, home)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let a SIGTERM end this program the way Ctrl-C does: through every ``finally``."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _places(home: str) -> dict[str, str]:
    return {
        "config_file": os.path.join(home, "config.toml"),
        "data_dir": os.path.join(home, "data"),
        "socket": os.path.join(home, "run", "s"),
    }


def _log(home: str) -> str:
    return os.path.join(home, "daemon.log")
