"""``python -m imagedbd`` is ``imagedbd``: how one process starts another without searching the PATH."""

from __future__ import annotations

import sys

from imagedbd.cli.start import imagedbd

if __name__ == "__main__":
    sys.exit(imagedbd())
