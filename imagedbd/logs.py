"""The daemon's log: with fields into the journal, in colour on a terminal, as plain lines anywhere else.

What a message is about goes along as ``extra={"path": …}`` and becomes the field ``IMAGEDBD_PATH``. A
message that keeps coming is told now and then only, with how often it came.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from imagedbd.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BURST: Final = 20
"""Messages of one kind that are told in a row."""
WINDOW_S: Final = 60.0
"""How long the others are held back and counted."""
_KINDS: Final = 1000
"""Kinds of messages that are counted at a time."""
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else was given as ``extra``."""
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


@contextmanager
def logging_at(level: str) -> Iterator[None]:
    """Log what is at least this important to where standard error leads.

    :param level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    handler = _handler()
    throttle = Throttle(handler.emit)
    handler.addFilter(throttle)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    try:
        yield
    finally:
        throttle.tell_all()


def set_level(level: str) -> None:
    """Log what is at least this important from now on; see :func:`logging_at`."""
    logging.getLogger().setLevel(level.upper())


def _handler() -> logging.Handler:
    if _leads_to_journal(sys.stderr.fileno()):
        from cysystemd.journal import send  # noqa: PLC0415 - only where there is a journal

        return JournalHandler(send)
    if sys.stderr.isatty():
        return _terminal_handler()
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    return handler


def _terminal_handler() -> logging.Handler:
    # A daemon without a terminal has no need of rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.highlighter import NullHighlighter  # noqa: PLC0415
    from rich.logging import RichHandler  # noqa: PLC0415

    handler = RichHandler(
        console=Console(stderr=True),
        show_path=False,
        highlighter=NullHighlighter(),
        keywords=[],
        log_time_format="%X",
    )
    handler.setFormatter(_Formatter("%(message)s"))
    return handler


def _leads_to_journal(descriptor: int) -> bool:
    """Whether this is the stream that systemd says it has connected to the journal."""
    # The variable is inherited by everything that a service starts, with streams of its own or not.
    try:
        stat = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


class _Formatter(logging.Formatter):
    """One line a message, with everything escaped that would act on who reads it: names come from anyone."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        return "\n".join(printable(line) for line in super().formatException(ei).split("\n"))


class JournalHandler(logging.StreamHandler[Any]):
    """Writes records with their fields by sd_journal_send(3), and to standard error what that refuses.

    :param send: takes the fields by name; returns less than 0 where it failed.
    """

    def __init__(self, send: Callable[..., int]) -> None:
        super().__init__()
        self._send = send
        self.setFormatter(_Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sent = self._send(**self._fields(record))
        except (ValueError, OSError):
            sent = -1
        if sent < 0:
            super().emit(record)

    def _fields(self, record: logging.LogRecord) -> Mapping[str, str | int]:
        fields: dict[str, str | int] = {
            "MESSAGE": self.format(record),
            "PRIORITY": _PRIORITIES.get(record.levelno, 2),
            "SYSLOG_IDENTIFIER": "imagedbd",
            "LOGGER": record.name,
            "THREAD_NAME": record.threadName or "",
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName or "",
        }
        if record.exc_info and record.exc_info[0]:
            fields["EXCEPTION"] = record.exc_info[0].__name__
        for name, value in vars(record).items():
            if name not in _OWN:
                fields[f"IMAGEDBD_{name.upper()}"] = printable(str(value))
        return fields


@dataclass(slots=True)
class _Window:
    """A minute of one kind of message. :param last: the latest that was held back."""

    since: float
    told: int = 1
    held_back: int = 0
    last: logging.LogRecord | None = None


class Throttle(logging.Filter):
    """Lets the first messages of a kind through and counts the others until their minute is over.

    Messages are of a kind if they come from the same call: the same text before its values are filled in.

    :param emit: where the counts go.
    """

    def __init__(
        self,
        emit: Callable[[logging.LogRecord], None],
        *,
        burst: int = BURST,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._emit = emit
        self._burst = burst
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[tuple[str, int, str], _Window] = {}
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = (record.name, record.levelno, str(record.msg)), self._clock()
        with self._lock:
            window = self._windows.get(kind)
            if window is None or (now - window.since >= self._window_s and not window.held_back):
                self._make_room(now)
                self._windows[kind] = _Window(now)
                return True
            if window.told < self._burst:
                window.told += 1
                return True
            window.held_back += 1
            window.last = record
            if self._timer is None:
                self._timer = threading.Timer(self._window_s, self.tell_all)
                self._timer.daemon = True
                self._timer.start()
            return False

    def tell_all(self) -> None:
        """Say what was held back so far; what comes from now on is new."""
        with self._lock:
            windows = [window for window in self._windows.values() if window.held_back]
            self._windows.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for window in windows:
            if window.last is not None:
                self._emit(_summary(window.last, window.held_back))

    def _make_room(self, now: float) -> None:
        if len(self._windows) < _KINDS:
            return
        for kind, window in list(self._windows.items()):
            if now - window.since >= self._window_s and not window.held_back:
                del self._windows[kind]


def _summary(last: logging.LogRecord, count: int) -> logging.LogRecord:
    """The latest of the messages that were held back, with how many there were."""
    told = logging.makeLogRecord(vars(last))
    told.msg, told.args = "%s (and %d more like this)", (last.getMessage(), count - 1)
    told.message = told.getMessage()
    return told
