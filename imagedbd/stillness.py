"""A while in which nothing is written to the index, so that somebody can copy it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from imagedbd.errors import DaemonBusyError, DaemonStoppingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagedbd.indexer import Indexer

LONGEST_S: Final = 3600.0
"""After that, writing goes on whatever the other side does."""
PATIENCE_S: Final = 60.0
"""How long the writer may take to finish what it has in hand."""
LOOK_S: Final = 0.5


class Stillness:
    """Begins as soon as the writer has finished what is in hand, and ends with :meth:`release`.

    :param is_over: whether the daemon stops.
    """

    def __init__(self, indexer: Indexer, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over
        self._pulse = indexer.pulse
        self._begun = threading.Event()
        self._released = threading.Event()
        self._deadline = time.monotonic() + PATIENCE_S
        self._errand = indexer.between_batches(self._keep_still)

    def poll(self) -> bool:
        """Whether it has begun.

        :raises ImagedbError: it will not, as the daemon stops or is busy.
        """
        if self._begun.is_set():
            return True
        if self._is_over() or self._errand.cancelled():
            raise DaemonStoppingError("It was asked to stop.")
        if time.monotonic() >= self._deadline:
            raise DaemonBusyError("What is in hand does not come to an end. `imagedb status` says why.")
        return False

    def release(self) -> None:
        """Go on with writing; no error if it never stopped."""
        self._released.set()
        self._errand.cancel()

    def _keep_still(self) -> None:
        self._begun.set()
        end = time.monotonic() + LONGEST_S
        while not self._released.wait(LOOK_S) and not self._is_over() and time.monotonic() < end:
            self._pulse.promise(PATIENCE_S)  # the writer stands still on purpose
