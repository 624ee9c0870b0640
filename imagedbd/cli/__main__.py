"""``python -m imagedbd.cli`` is ``imagedb``, also where no script is on the path."""

from __future__ import annotations

import sys

from imagedbd.cli.start import imagedb

if __name__ == "__main__":
    sys.exit(imagedb())
