"""What ``os.rename`` cannot do."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_EXCHANGE = 2


def exchange(one: str | os.PathLike[str], two: str | os.PathLike[str]) -> None:
    """Have two files or folders swap their names in one step: ``RENAME_EXCHANGE`` of renameat2(2).

    :raises OSError: they cannot.
    """
    if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
