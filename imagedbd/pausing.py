"""Whether the user has paused indexing, and until when; it outlives a restart.

Searches and watching go on. What changes is queued, and looked at when the pause is over.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any, Final

from imagedbd.datatypes import iso_utc
from imagedbd.durable import write_durably
from imagedbd.errors import PausedError, StoreError
from imagedbd.text import fault

if TYPE_CHECKING:
    from imagedbd.change_queue import ChangeQueue

log = logging.getLogger(__name__)

FILE_NAME: Final = "paused"
_CLOCKS: Final = ((600.0, "%H:%M:%S"), (20 * 3600.0, "%H:%M"))
"""How the end of a pause is told that is over within so many seconds; later ones come with their day."""


class Pause:
    """The pause of one data folder, which holds a queue; any thread may call any method."""

    def __init__(self, data_dir: str, queue: ChangeQueue) -> None:
        self._file = os.path.join(data_dir, FILE_NAME)
        self._queue = queue
        self._until = self._read()
        self._unwritten: str | None = None
        if self.is_on:
            queue.hold(self._left)

    @property
    def is_on(self) -> bool:
        return self._left() > 0

    def _left(self) -> float:
        """Seconds by the clock on the wall: a pause until noon is over at noon, whoever slept meanwhile."""
        return self._until - time.time()

    def begin(self, seconds: float | None) -> None:
        """Pause for this time, or until :meth:`end`; a pause that goes on already is replaced.

        Where that cannot be written down, it is a pause all the same, as long as this process runs.
        """
        until = math.inf if seconds is None else time.time() + seconds
        try:
            write_durably(self._file, f"{until}\n")
        except OSError as error:
            self._unwritten = fault(error)
            with contextlib.suppress(OSError):  # of what it said before, no restart may make a pause again
                self._remove()
            log.warning("the pause does not outlive a restart: %s", self._unwritten)
        else:
            self._unwritten = None
        self._until = until
        self._queue.hold(self._left)

    def end(self) -> None:
        """Go on; no error if nothing was paused.

        :raises StoreError: it could not be written down, and nothing was changed.
        """
        try:
            self._remove()
        except OSError as error:
            raise StoreError(f"{self._file} cannot be removed: {error.strerror}.") from error
        self._until, self._unwritten = -math.inf, None
        self._queue.release()

    def _remove(self) -> None:
        # A file system that is read-only refuses to remove even what is not there.
        if os.path.lexists(self._file):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file)

    def check(self) -> None:
        """:raises PausedError: indexing is paused; the message says until when."""
        if self.is_on:
            raise PausedError(f"{self.in_words()} `imagedb resume` goes on.")

    def in_words(self) -> str:
        words = f"Indexing is paused until {self._end_in_words()}."
        if self._unwritten is None:
            return words
        return f"{words} A restart ends that, as it could not be written down: {self._unwritten}."

    def _end_in_words(self) -> str:
        if self._until == math.inf:
            return "somebody resumes it"
        form = next((form for within, form in _CLOCKS if self._left() < within), "%Y-%m-%d %H:%M")
        return time.strftime(form, time.localtime(self._until))

    def public(self) -> dict[str, Any] | None:
        """``until`` in UTC, which is ``None`` for a pause without an end; ``None`` if there is no pause."""
        if not self.is_on:
            return None
        return {"until": None if self._until == math.inf else iso_utc(self._until)}

    def _read(self) -> float:
        try:
            with open(self._file, encoding="ascii") as file:
                until = float(file.read())
        except FileNotFoundError:
            return -math.inf
        except (OSError, ValueError):
            # It is there, so somebody wanted a pause; that can be ended, and work unasked cannot be undone.
            return math.inf
        return math.inf if math.isnan(until) else until
