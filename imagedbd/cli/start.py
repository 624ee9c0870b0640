"""Where both programs begin: Ctrl-C ends them without a word also while they import what they need."""

from __future__ import annotations

import gc
import os
import signal
import sys

_RARELY = 100_000
"""After how many new objects garbage is looked for. Those of the imports stay, and at the usual 700 looking
through them takes a tenth of what most commands take."""


def imagedb() -> int:
    """Run ``imagedb``; the exit code is returned."""
    _open_closed_streams()
    interruptible = _end_at_ctrl_c()
    gc.set_threshold(_RARELY)
    from imagedbd.cli.main import main

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main()
    # What is there now ends with the process: the interpreter would go through all of it once more.
    gc.freeze()
    return code


def imagedbd() -> int:
    """Run ``imagedbd``; the exit code is returned."""
    _open_closed_streams()
    interruptible = _end_at_ctrl_c()
    from imagedbd.cli.daemon import main

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()


def _end_at_ctrl_c() -> bool:
    """Whether that is how it was: in the background of a script, Ctrl-C is not for us."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return True


def _open_closed_streams() -> None:
    """Standard streams that were closed (``>&-``) lead nowhere; else the next file opened would be one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - as long as the process
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115 - as long as the process
