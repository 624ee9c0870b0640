"""How processes of ours are started: with what this one imports from, and nothing of the current folder."""

from __future__ import annotations

import os
import sys


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours. ``-P``: a ``json.py`` in the current folder is not ours."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """What such a process gets, beside these variables."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
        "PYTHONWARNINGS": "ignore",
        **more,
    }
