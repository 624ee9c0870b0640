"""The daemon's side of its supervision: when it is ready, what it is doing, and whether it is alive.

All of it runs on the control loop, so a loop that is frozen sends nothing. The other loops are believed
their :class:`~imagedbd.pulse.Pulse`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagedbd.notify import Notifier
    from imagedbd.pulse import Pulse

log = logging.getLogger(__name__)

KNOCK_S: Final = 0.05
BUSY_LOOK_S: Final = 2.0
"""Between two looks at what the daemon does while that changes."""
IDLE_LOOK_S: Final = 20.0
"""The same while nothing happens; a service manager that wants to hear more often shortens it."""
BUSY: Final = frozenset({"loading", "scanning", "indexing", "switching"})
"""States in which what the daemon does changes by the second."""
BEATS: Final = 3
"""Signs of life in the time in which one is wanted: one may come late."""


class Supervisor:
    """Tells a service manager how the daemon fares.

    :param activity: the daemon's state and one line on it; may take a while, and is called in a thread.
    :param watchdog_s: within how many seconds the manager wants signs of life; ``None`` if it wants none.
    :param on_crash: called if this itself met a bug.
    """

    def __init__(
        self,
        notifier: Notifier,
        pulses: Sequence[Pulse],
        activity: Callable[[], tuple[str, str]],
        watchdog_s: float | None,
        on_crash: Callable[[], object],
    ) -> None:
        self._notifier = notifier
        self._pulses = pulses
        self._activity = activity
        self._watchdog_s = watchdog_s
        self._on_crash = on_crash
        self._looking: asyncio.Future[tuple[str, str]] | None = None
        self._is_busy = True
        self._overdue: set[str] = set()

    async def run(self, socket_path: str) -> None:
        """Say that the daemon is ready once its socket answers; then, until cancelled, how it fares.

        Without a manager, what gives no sign of life is told in the log alone.
        """
        try:
            if self._notifier.enabled:
                await _answered(socket_path)
                self._notifier.ready()
            while True:
                self._beat()
                await asyncio.sleep(self._pause_s())
        # Without it systemd would end the daemon later, and nobody would know why.
        except Exception:
            log.exception("the supervision met a bug and stops the daemon")
            self._on_crash()

    def _pause_s(self) -> float:
        is_told_by_the_second = self._is_busy and self._notifier.enabled
        look_s = BUSY_LOOK_S if is_told_by_the_second else IDLE_LOOK_S
        return look_s if self._watchdog_s is None else min(look_s, self._watchdog_s / BEATS)

    def _beat(self) -> None:
        """One sign of life, if every loop keeps its word."""
        overdue = {pulse.name: late for pulse in self._pulses if (late := pulse.overdue_s()) is not None}
        for name in overdue.keys() - self._overdue:
            log.error("the %s has not been heard of for %.0f s longer than it said", name, overdue[name])
        self._overdue = set(overdue)
        if overdue:
            self._notifier.status(f"The {' and the '.join(sorted(overdue))} gives no sign of life.")
        elif self._watchdog_s is not None:
            self._notifier.alive()
        if self._notifier.enabled:
            self._look()

    def _look(self) -> None:
        """See what the daemon does. A disk that hangs holds up this look and the next, not the beat."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().run_in_executor(None, self._activity)
            self._looking.add_done_callback(self._seen)

    def _seen(self, looking: asyncio.Future[tuple[str, str]]) -> None:
        self._looking = None
        if looking.cancelled():
            return
        if (error := looking.exception()) is not None:
            log.warning("what the daemon does cannot be told: %s", error)
            return
        state, words = looking.result()
        self._is_busy = state in BUSY
        if not self._overdue:
            self._notifier.status(words)


async def _answered(socket_path: str) -> None:
    """Wait until there is an answer at the socket, whatever it is."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                writer.write(b"HEAD / HTTP/1.1\r\nHost: imagedbd\r\nConnection: close\r\n\r\n")
                if await reader.readline():
                    return
            finally:
                writer.close()
        await asyncio.sleep(KNOCK_S)
