"""A clock on the wall that jumps: ``IMAGEDBD_TEST_CLOCK`` names a file with the seconds that it is wrong by.

The kernel's own clock, by which files are stamped, goes on as it did.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


def wind() -> None:
    """Have ``time.time`` of this process read the file, whenever it is asked."""
    right, file = time.time, Path(os.environ["IMAGEDBD_TEST_CLOCK"])

    def wrong() -> float:
        return right() + float(file.read_text("ascii"))

    time.time = wrong
    time.time_ns = lambda: int(1e9 * wrong())
