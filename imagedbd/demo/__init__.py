"""Self-contained demo: a sample photo library and a tiny OpenCLIP checkpoint that knows it.

Everything here works without a network connection: the pictures are drawn, not downloaded, and
the checkpoint ships inside the package.
"""

from pathlib import Path


def checkpoint_dir() -> Path:
    """Return the directory of the shipped checkpoint, in OpenCLIP's ``local-dir:`` layout."""
    return Path(__file__).resolve().parent / "checkpoint"
