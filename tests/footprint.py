"""What a daemon takes of the machine, and whether it gives back what its clients made it take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from machine import Machine

GROWTH = 48 << 20
"""Bytes that memory may differ by: allocators keep what they had, but a leak has no bound."""


def footprint(machine: Machine) -> tuple[int, int, int]:
    """Resident bytes, threads and open files of the daemon's own process."""
    assert machine.process is not None
    process = psutil.Process(machine.process.pid)
    return process.memory_info().rss, process.num_threads(), process.num_fds()


def settled(machine: Machine, before: tuple[int, int, int]) -> None:
    """Wait until the daemon has closed what its clients had opened, and nothing is left of them."""

    def is_as_before() -> bool:
        rss, threads, files = footprint(machine)
        # A pool of threads fills up to its bound once, and leaves when it has been idle.
        return files <= before[2] + 4 and threads <= before[1] + 80 and rss <= before[0] + GROWTH

    machine.until(is_as_before, 30)
