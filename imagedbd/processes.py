"""Processes of ours: how they are started, by whom else they can be, and when they have to go."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours. ``-P``: a ``json.py`` in the current folder is not ours."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """What such a process gets, beside these variables: it imports from where this one does."""
    folders = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(folder for folder in folders if folder)),
        "PYTHONWARNINGS": "ignore",
        **more,
    }


def has_systemd() -> bool:
    """Whether systemd starts and watches over what runs on this machine: sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends: prctl(2), PR_SET_PDEATHSIG.

    A parent that had ended before is not noticed.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def be_killed_early(badness: int) -> None:
    """Where the machine's memory runs out, go before others do.

    :param badness: from 0 to 1000, of which the highest goes first: proc_pid_oom_score_adj(5).
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(badness))


def give_memory_back() -> None:
    """Return what this process has freed to the system: malloc_trim(3), where libc has that (glibc)."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
