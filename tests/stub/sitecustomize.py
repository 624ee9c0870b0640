"""Puts the stub in the place of ``imagedbd.openclip``, in every Python that has this folder on its path.

Python imports a module of this name at its start. Loading torch takes most of a daemon's start; everything
around it (the process, the pipe, the messages) stays the real thing. Decoders obey what :mod:`poison` says,
and a process kills itself where :mod:`killpoint` has it do so.

With ``IMAGEDBD_STUB_FREEZES`` set, SIGUSR2 freezes the thread that receives signals, which in a daemon is the
one of its control loop.

With ``IMAGEDBD_TEST_CLOCK`` set, the clock on the wall is the one of :mod:`clock`; with
``IMAGEDBD_TEST_LOOSE``, files are found as :mod:`loose` says.

``IMAGEDBD_STUB_HIDES`` names modules, with commas between, that are as good as not installed.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
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
            return _changed(PathFinder.find_spec(name, path), _helper("poison").infect)
        if name == os.environ.get("IMAGEDBD_TEST_KILL", "").partition(":")[0]:
            return _changed(PathFinder.find_spec(name, path), _helper("killpoint").lay)
        return None


def _changed(spec: ModuleSpec | None, change: Callable[[ModuleType], None]) -> ModuleSpec | None:
    assert spec is not None
    assert spec.loader is not None
    run = spec.loader.exec_module

    def run_and_change(module: ModuleType) -> None:
        run(module)
        change(module)

    spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
    return spec


def _helper(name: str) -> ModuleType:
    """By its file: the folder that it lies in is not to be on everybody's path."""
    spec = importlib.util.spec_from_file_location(name, HERE.parent / f"{name}.py")
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
if os.environ.get("IMAGEDBD_TEST_CLOCK"):
    _helper("clock").wind()
if os.environ.get("IMAGEDBD_TEST_LOOSE"):
    _helper("loose").loosen()
sys.meta_path.insert(0, _StubFinder)  # type: ignore[arg-type]
sys.modules.update(dict.fromkeys(filter(None, os.environ.get("IMAGEDBD_STUB_HIDES", "").split(","))))  # type: ignore[arg-type]
