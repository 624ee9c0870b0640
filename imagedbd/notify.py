"""What systemd is told of this process, by sd_notify(3); without systemd, nothing."""

from __future__ import annotations

import logging
import os
import time
from typing import Final

# Its public notify() sends one variable at a time, and a reload is told in two that belong together.
from cysystemd._daemon import sd_notify

log = logging.getLogger(__name__)

_LONGEST_STATUS: Final = 500
"""Characters of a status; a datagram holds more, and a line of `systemctl status` less."""


class Notifier:
    """Tells the service manager how things stand.

    :param enabled: whether there is one that listens; by default what the environment says.
    """

    def __init__(self, *, enabled: bool | None = None) -> None:
        self.enabled = bool(os.environ.get("NOTIFY_SOCKET")) if enabled is None else enabled
        self._is_up = False
        self._status: str | None = None

    def ready(self) -> None:
        """The start is complete."""
        self._is_up = True
        self._send("READY=1")

    def reloading(self) -> None:
        """The settings are being read again, until :meth:`reloaded`. Not told during start and stop."""
        # Both in one message: the time tells which of several reloads it was.
        if self._is_up:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self) -> None:
        if self._is_up:
            self._send("READY=1")

    def stopping(self) -> None:
        self._is_up = False
        self._send("STOPPING=1\nSTATUS=Finishing what is in hand.")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, words: str) -> None:
        """One line on what goes on; told only when it changes."""
        line = " ".join(words.encode("utf-8", "backslashreplace").decode().split())[:_LONGEST_STATUS]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def _send(self, message: str) -> None:
        if not self.enabled:
            return
        try:
            sd_notify(message)
        except (RuntimeError, ValueError) as error:
            # It will act on our silence as it is set up to; that it was not heard is for the log.
            log.warning("systemd could not be told %s: %s", message.partition("=")[0], error)


def watchdog_s() -> float | None:
    """Seconds within which systemd wants a sign of life from this process; ``None`` if it wants none."""
    microseconds, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or (process and process != str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None
