"""A loop's word on when it will be heard of next, for whoever watches over it.

A heartbeat that is tied to progress would end an idle daemon or a long build of an index. So each loop says
itself, before whatever it does next, how long that may take: a night of waiting, hours of building, or
seconds. Only a loop that outstays its own word has stopped.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Pulse:
    """One loop's promises; each replaces the one before. Any thread may look at it.

    :param name: what the loop is called, as users read it.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._until: float | None = None

    def promise(self, seconds: float) -> None:
        """To be heard of again within this time."""
        self._until = self._clock() + seconds

    def end(self) -> None:
        """The loop has ended as it should; nothing more is promised."""
        self._until = None

    def overdue_s(self) -> float | None:
        """Seconds since a promise was broken; ``None`` while all are kept."""
        until = self._until
        late = 0.0 if until is None else self._clock() - until
        return late if late > 0 else None
