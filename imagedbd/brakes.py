"""What the machine itself has against indexing at the moment, where the settings say that this counts.

Searches and watching go on, as in a pause; unlike a pause, this ends by itself.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Final

import psutil

from imagedbd.errors import PausedError

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S: Final = 5.0
"""How often mains and disk are looked at while there is something to do."""
COUNT_S: Final = 0.5
"""How often CPU time is counted then: to find the processes takes some milliseconds."""
LONGEST_S: Final = 2.0
"""CPU time that was used too much is waited off in steps of this length; so much may be saved up as well."""
POWER_SUPPLIES: Final = "/sys/class/power_supply"
"""See the kernel's Documentation/ABI/testing/sysfs-class-power."""


class Brakes:
    """Says for how long nothing is to be begun; any thread may call any method.

    :param folder: where the index is.
    :param min_free: bytes that are left free on its disk.
    :param on_mains_alone: nothing is done on battery.
    :param max_cpu: per cent of the time of all cores that this process and its children may use, on the
        average of some seconds; 0 is no bound.
    """

    def __init__(
        self,
        folder: str,
        *,
        min_free: int,
        on_mains_alone: bool = False,
        max_cpu: int = 0,
        supplies: str = POWER_SUPPLIES,
        clock: Callable[[], float] = time.monotonic,
        cpu_seconds: Callable[[], float] | None = None,
    ) -> None:
        self._folder = folder
        self._supplies = supplies
        self._clock = clock
        self._cpu_seconds = cpu_seconds or _Family().cpu_seconds
        self._reason: str | None = None
        self._max_cpu = 0
        self._share: _Share | None = None
        self.adjust(min_free=min_free, on_mains_alone=on_mains_alone, max_cpu=max_cpu)

    def adjust(self, *, min_free: int, on_mains_alone: bool, max_cpu: int) -> None:
        """Go by other values from now on; they are those of the constructor."""
        self._min_free = min_free
        self._on_mains_alone = on_mains_alone
        self._looked_at = -math.inf
        if max_cpu != self._max_cpu:
            self._max_cpu = max_cpu
            self._share = _Share(max_cpu, self._clock, self._cpu_seconds) if max_cpu else None

    def left(self) -> float:
        """Seconds for which nothing is to be begun; 0 where nothing speaks against it."""
        if self.reason() is not None:
            return LOOK_S
        share = self._share  # another thread may take it away
        return share.overdrawn_s() if share else 0.0

    def reason(self) -> str | None:
        """What speaks against any work, in a sentence; a bound on CPU time slows down and stops nothing."""
        now = self._clock()
        if now - self._looked_at >= LOOK_S:
            self._looked_at, self._reason = now, self._look()
        return self._reason

    def check(self) -> None:
        """:raises PausedError: nothing is to be worked on now; the message says why."""
        if self._reason:  # it may have passed since
            self._looked_at = -math.inf
        if reason := self.reason():
            raise PausedError(reason)

    def _look(self) -> str | None:
        if self._on_mains_alone and is_on_battery(self._supplies):
            return "Indexing waits for mains power, as on_battery = 'pause' asks for."
        free = _free_bytes(self._folder)
        if free is not None and free < self._min_free:
            return (
                f"Indexing waits for room: {free >> 20} MB are free on the disk of {self._folder}, and "
                f"min_free leaves {self._min_free >> 20} MB to others."
            )
        return None


def is_on_battery(supplies: str = POWER_SUPPLIES) -> bool:
    """Whether the machine has a battery, and nothing else gives it power."""
    try:
        names = os.listdir(supplies)
    except FileNotFoundError:
        return False
    # Those of mice and headsets say that they are a device's.
    has_battery = any(
        _word(supplies, name, "type") == "Battery" and _word(supplies, name, "scope") != "Device"
        for name in names
    )
    is_fed = any(
        _word(supplies, name, "type") in {"Mains", "USB"}
        and _word(supplies, name, "online") not in {None, "0"}
        for name in names
    )
    return has_battery and not is_fed


def _word(*path: str) -> str | None:
    # A supply may be unplugged, and its driver may not be able to tell.
    with contextlib.suppress(OSError), open(os.path.join(*path), encoding="ascii") as file:
        return file.read().strip()
    return None


def _free_bytes(folder: str) -> int | None:
    """For who is not root; ``None`` if it cannot be told, which the store will say better."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


class _Share:
    """An account of CPU time: so much is paid in each second, and what is used is taken from it."""

    def __init__(self, percent: int, clock: Callable[[], float], cpu_seconds: Callable[[], float]) -> None:
        self._rate = percent / 100 * len(os.sched_getaffinity(0))
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self._counted_at = clock()
        self._used = cpu_seconds()
        self._saved = 0.0

    def overdrawn_s(self) -> float:
        """Seconds until as much has been paid in as was used."""
        now = self._clock()
        if now - self._counted_at >= COUNT_S:
            used = self._cpu_seconds()
            paid = (now - self._counted_at) * self._rate
            self._saved = min(self._saved + paid - (used - self._used), LONGEST_S * self._rate)
            self._counted_at, self._used = now, used
        # Between two counts what is paid in counts as well, or a short wait would follow upon another.
        waited = now - self._counted_at
        return min(max(0.0, -self._saved / self._rate - waited), LONGEST_S)


class _Family:
    """What this process and all processes that come from it take."""

    def __init__(self) -> None:
        self._alive: dict[tuple[int, float], float] = {}
        self._by_the_dead = 0.0

    def cpu_seconds(self) -> float:
        """What they have used so far, with those that have ended since, as far as that was seen."""
        this, alive = psutil.Process(), {}
        for process in (this, *this.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has just ended
                times = process.cpu_times()
                alive[process.pid, process.create_time()] = times.user + times.system
        self._by_the_dead += sum(used for who, used in self._alive.items() if who not in alive)
        self._alive = alive
        return self._by_the_dead + sum(alive.values())
