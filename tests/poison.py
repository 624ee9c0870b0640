"""What a codec's bug does to its process, set off by words at the end of a picture's file.

``POISON crash`` and its kin follow a picture that is whole: nothing but the words is wrong with it. With
``once:FILE`` behind them they work until that file is there, which they make. If ``IMAGEDBD_TEST_DECODES``
names a file, it gets a line for each picture that is opened.

While the file is there that ``IMAGEDBD_TEST_BAD_DISK`` names, reading fails as from a bad disk: that of one
file in so many as it says first, and of others if it says another number behind that.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import signal
import time
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

MARK = b"\nPOISON "


def words(kind: str, once: str | None = None) -> bytes:
    """What to append to a picture."""
    return MARK + (kind if once is None else f"{kind} once:{once}").encode()


def infect(decoder_worker: ModuleType) -> None:
    """Have the module's decoder obey."""
    decoder_worker.decode_file = _poisoned(decoder_worker.decode_file)  # type: ignore[attr-defined]
    decoder_worker.open = _opened  # type: ignore[attr-defined]


class _BadFile(io.FileIO):
    def read(self, _size: int | None = -1, /) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def _opened(descriptor: int, mode: str) -> Any:
    return _BadFile(descriptor) if _is_bad(descriptor) else open(descriptor, mode)


def _is_bad(descriptor: int) -> bool:
    try:
        with open(os.environ.get("IMAGEDBD_TEST_BAD_DISK", ""), encoding="ascii") as file:
            one_in, *others = map(int, file.read().split())
    except FileNotFoundError:
        return False
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    return (zlib.crc32(os.fsencode(path)) + sum(others)) % one_in == 0


def _poisoned(decode_file: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(decode_file)
    def decode(path: str, *arguments: Any) -> Any:
        if log := os.environ.get("IMAGEDBD_TEST_DECODES"):
            with open(log, "ab") as lines:
                lines.write(os.fsencode(path).replace(b"\n", b"?") + b"\n")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                file.seek(max(0, os.path.getsize(path) - 300))
                _, mark, text = file.read().rpartition(MARK)
            if mark:
                _obey(*text.decode().split(" once:"))
        return decode_file(path, *arguments)

    return decode


def _obey(kind: str, flag: str | None = None) -> None:
    if flag is not None:
        if os.path.exists(flag):
            return
        with open(flag, "wb"):
            pass
    _DEEDS[kind]()


def _hang() -> None:
    while True:
        time.sleep(60)


def _fill_memory() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))


_DEEDS: dict[str, Callable[[], None]] = {
    "crash": lambda: signal.raise_signal(signal.SIGSEGV),
    "abort": os.abort,
    "leave": lambda: os._exit(7),
    "killed": lambda: signal.raise_signal(signal.SIGKILL),
    "stand still": lambda: signal.raise_signal(signal.SIGSTOP),
    "hang": _hang,
    "fill memory": _fill_memory,
}
