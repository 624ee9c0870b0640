"""Which reads are under way: the versions of a table that they may see must stay."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class RunningReads:
    """Counts reads by the age of what they see. All times are POSIX seconds, as versions carry them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written = 0.0
        self._running: Counter[float] = Counter()

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            written = self._written
            self._running[written] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[written] -= 1
                if not self._running[written]:
                    del self._running[written]

    def superseded(self, since: float) -> None:
        """A version was written that reads see from now on.

        :param since: a time before it was written.
        """
        with self._lock:
            self._written = since

    def oldest(self) -> float | None:
        """A time before the oldest version that a read sees was written; ``None`` if there is no read."""
        with self._lock:
            return min(self._running, default=None)
