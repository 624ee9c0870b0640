"""Puts the stub in the place of ``imagedbd.openclip``, in every Python that has this folder on its path.

Python imports a module of this name at its start. Loading torch takes most of a daemon's start; everything
around it (the process, the pipe, the messages) stays the real thing.

With ``IMAGEDBD_STUB_FREEZES`` set, SIGUSR2 freezes the thread that receives signals, which in a daemon is the
one of its control loop.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path


class _StubFinder:
    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        if name != "imagedbd.openclip":
            return None
        return importlib.util.spec_from_file_location(name, Path(__file__).with_name("openclip.py"))


def freeze(*_: object) -> None:
    print("frozen", file=sys.stderr, flush=True)
    time.sleep(3600)


if os.environ.get("IMAGEDBD_STUB_FREEZES"):
    signal.signal(signal.SIGUSR2, freeze)
sys.meta_path.insert(0, _StubFinder)  # type: ignore[arg-type]
