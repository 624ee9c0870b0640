"""Reads the store's files over again in quiet, so that damage is found before somebody needs what it hit."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imagedbd.errors import ImagedbError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from imagedbd.datatypes import Store

log = logging.getLogger(__name__)

FIRST_S: Final = 600.0
"""The first pass begins so long after the start, when a machine has other things to do; and the one after a
pass that found damage, which may have been mended by then."""
EVERY_S: Final = 86_400.0
DOUBT_S: Final = 600.0
"""A read that failed has everything looked through at once, but not more often than this."""
PACE_S: Final = 1.0
"""Pause between two pieces: a pass is long, and nobody notices it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    store: Store
    damage: str


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
        doubt_s: float = DOUBT_S,
    ) -> None:
        self._in_use = in_use
        self._is_current = is_current
        self._first_s, self._every_s, self._pace_s = first_s, every_s, pace_s
        self._soon_s = min(first_s, every_s)
        self._doubt_s = doubt_s
        self._doubted_at: float | None = None
        self._found: _Found | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrubber", daemon=True)

    @property
    def damage(self) -> str | None:
        """What the last pass found wrong with the store in use, in a sentence that names what helps."""
        found = self._found
        return found.damage if found and self._is_current(found.store) else None

    def start(self) -> None:
        self._thread.start()

    def request(self) -> None:
        """Look through everything now, without pauses: something failed that damage would explain.

        Any thread may ask, as often as it likes; what was looked through lately is not again.
        """
        now = time.monotonic()
        if self._doubted_at is None or now - self._doubted_at >= self._doubt_s:
            self._doubted_at = now
            self._wake.set()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = self._first_s
        while True:
            in_doubt = self._wake.wait(pause)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self._pass(0.0 if in_doubt else self._pace_s)
            except ImagedbError as error:
                log.warning("the store could not be scrubbed: %s", error.message)
            # The thread must outlive its bugs: without it damage would never be told.
            except Exception:
                log.exception("the scrubber met a bug")
            pause = self._soon_s if self._found else self._every_s

    def _pass(self, pace_s: float) -> None:
        """One look at everything; what an earlier one found is forgotten if this one comes through clean."""
        found: _Found | None = None
        with self._in_use() as store:
            for damage in store.scrub():
                if damage is not None and found is None:
                    found = _Found(store, damage.message)
                    self._tell(found)
                # Whoever doubts it meanwhile wants to know soon: the rest of this pass hurries.
                self._wake.wait(pace_s)
                pace_s = 0.0 if self._wake.is_set() else pace_s
                if self._stopping.is_set() or not self._is_current(store):
                    return
        self._found = found

    def _tell(self, found: _Found) -> None:
        if found.damage != self.damage:
            log.error("the store is damaged: %s", found.damage)
        self._found = found
