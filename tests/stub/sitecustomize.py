"""Puts the stub in the place of ``imagedbd.openclip``, in every Python that has this folder on its path.

Python imports a module of this name at its start. Loading torch takes most of a daemon's start; everything
around it (the process, the pipe, the messages) stays the real thing.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path


class _StubFinder:
    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        if name != "imagedbd.openclip":
            return None
        return importlib.util.spec_from_file_location(name, Path(__file__).with_name("openclip.py"))


sys.meta_path.insert(0, _StubFinder)  # type: ignore[arg-type]
