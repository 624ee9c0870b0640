"""How processes of ours are started: with what this one imports from, and nothing of the current folder."""

from __future__ import annotations

import os
import sys


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours. ``-P``: a ``json.py`` in the current folder is not ours."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """What such a process gets, beside these variables."""
    folders = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(folder for folder in folders if folder)),
        "PYTHONWARNINGS": "ignore",
        **more,
    }
