"""Files that a disk did not give: a bad sector, a share that hangs, a machine out of descriptors.

Nothing is known of what is in them, so what was indexed of them stays, and they are read again in a while.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_S: Final = 3600.0
"""A dying disk is not asked for the same thing more often than that, after a while."""


@dataclass(frozen=True, slots=True)
class _Unread:
    """:param wait_s: from one try to the next.
    :param due: when that is, by the clock of all of them.
    """

    reason: str
    wait_s: float
    due: float


class UnreadFiles:
    """Why each of them could not be read, and when it is tried again; any thread may call any method.

    :param first_s: seconds from a first failure to the next try; each time twice as long.
    :param clock: seconds, never going back.
    """

    def __init__(self, first_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._first_s = first_s
        self._clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, _Unread] = {}

    def add(self, path: str, reason: str) -> bool:
        """:param reason: a sentence.
        :returns: whether this one could be read before.
        """
        with self._lock:
            before = self._files.get(path)
            wait_s = min(2 * before.wait_s, LONGEST_S) if before else self._first_s
            self._files[path] = _Unread(reason, wait_s, self._clock() + wait_s)
            return before is None

    def discard(self, path: str) -> None:
        """It was read, or is not there any more. No error if nothing was known of it."""
        with self._lock:
            self._files.pop(path, None)

    def why(self, path: str) -> str | None:
        """Why it could not be read, as a sentence; ``None`` if it could."""
        unread = self._files.get(path)
        return unread.reason if unread else None

    def all(self) -> dict[str, str]:
        """Path → why it could not be read."""
        with self._lock:
            return {path: unread.reason for path, unread in self._files.items()}

    def due(self) -> list[str]:
        """Those to be tried again now."""
        now = self._clock()
        with self._lock:
            return [path for path, unread in self._files.items() if unread.due <= now]
