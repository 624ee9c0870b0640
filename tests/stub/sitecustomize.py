"""Puts the stub in the place of ``imagedbd.openclip``, in every Python that has this folder on its path.

Python imports a module of this name at its start. Loading torch takes most of a daemon's start; everything
around it (the process, the pipe, the messages) stays the real thing. Decoders obey what :mod:`poison` says.

With ``IMAGEDBD_STUB_FREEZES`` set, SIGUSR2 freezes the thread that receives signals, which in a daemon is the
one of its control loop.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


class _StubFinder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, *_: object) -> ModuleSpec | None:
        if name == "imagedbd.openclip":
            return importlib.util.spec_from_file_location(name, HERE / "openclip.py")
        if name == "imagedbd.decoder_worker":
            return _infected(PathFinder.find_spec(name, path))
        return None


def _infected(spec: ModuleSpec | None) -> ModuleSpec | None:
    assert spec is not None
    assert spec.loader is not None
    run = spec.loader.exec_module

    def run_and_infect(module: ModuleType) -> None:
        run(module)
        _poison().infect(module)

    spec.loader.exec_module = run_and_infect  # type: ignore[method-assign]
    return spec


def _poison() -> ModuleType:
    """By its file: the folder that it lies in is not to be on everybody's path."""
    spec = importlib.util.spec_from_file_location("poison", HERE.parent / "poison.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def freeze(*_: object) -> None:
    print("frozen", file=sys.stderr, flush=True)
    time.sleep(3600)


if os.environ.get("IMAGEDBD_STUB_FREEZES"):
    signal.signal(signal.SIGUSR2, freeze)
sys.meta_path.insert(0, _StubFinder)  # type: ignore[arg-type]
