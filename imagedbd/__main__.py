"""``python -m imagedbd`` is ``imagedbd``: how one process starts another without searching the PATH."""

from __future__ import annotations

import sys

from imagedbd.cli.daemon import main

if __name__ == "__main__":
    sys.exit(main())
