"""Reads the store's files over again in quiet, so that damage is found before somebody needs what it hit."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from imagedbd.errors import ImagedbError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from imagedbd.datatypes import Store

log = logging.getLogger(__name__)

FIRST_S: Final = 600.0
"""The first pass begins so long after the start, when a machine has other things to do."""
EVERY_S: Final = 86_400.0
PACE_S: Final = 1.0
"""Pause between two pieces: a pass is long, and nobody notices it."""


class Scrubber:
    """One thread that scrubs the store in use, a piece at a time.

    :param in_use: the store that answers now, kept open while it is read.
    :param is_current: whether that store still is the one that answers; if not, a pass ends early.
    """

    def __init__(
        self,
        in_use: Callable[[], AbstractContextManager[Store]],
        is_current: Callable[[Store], bool],
        *,
        first_s: float = FIRST_S,
        every_s: float = EVERY_S,
        pace_s: float = PACE_S,
    ) -> None:
        self._in_use = in_use
        self._is_current = is_current
        self._first_s, self._every_s, self._pace_s = first_s, every_s, pace_s
        self._damage: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrubber", daemon=True)

    @property
    def damage(self) -> str | None:
        """What the last pass found wrong, in a sentence that names what helps."""
        return self._damage

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = self._first_s
        while not self._stopping.wait(pause):
            try:
                self._pass()
            except ImagedbError as error:
                log.warning("the store could not be scrubbed: %s", error.message)
            pause = self._every_s

    def _pass(self) -> None:
        """One look at everything; what an earlier one found is forgotten if this one comes through clean."""
        found: str | None = None
        with self._in_use() as store:
            for damage in store.scrub():
                if damage is not None and found is None:
                    found = damage
                    self._tell(damage)
                if self._stopping.wait(self._pace_s) or not self._is_current(store):
                    return
        self._damage = found

    def _tell(self, damage: str) -> None:
        if damage != self._damage:
            log.error("the store is damaged: %s", damage)
        self._damage = damage
