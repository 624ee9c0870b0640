"""Sidecars: XMP files beside pictures, where editors write what they do not write into a picture itself.

``IMG_1.xmp`` belongs to every picture ``IMG_1.*`` in its folder, and ``IMG_1.CR2.xmp`` to ``IMG_1.CR2``. A
sidecar is no picture: it is a part of what its pictures say of themselves. So the ledger keeps with each
picture a mark of the sidecars that were read with it, and one whose sidecars have another mark is read again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imagedbd.datatypes import PictureState, Signature

if TYPE_CHECKING:
    from collections.abc import Collection

    from imagedbd.datatypes import LedgerEntry

_SUFFIXES: Final = (".xmp", ".XMP")
MAX_BYTES: Final = 8 << 20
"""A larger one is left out; the largest are those with a long history of edits, of a few megabytes."""

UNSURE: Final = "?"
"""The mark of sidecars that may have been written to unnoticed; no sidecars have it."""

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
OF_THE_FILE: Final = frozenset({*_ABSENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP})
"""What opening or reading a file fails of for its own sake: it is not there, no regular file, or not ours to
read. All other errors are a disk's, a share's or this machine's, and say nothing of the file."""


@dataclass(frozen=True, slots=True)
class Sidecars:
    """What was read beside one picture.

    :param mark: see :func:`mark_of`; :data:`UNSURE` if a write right after could not be told.
    :param packets: their contents, the one that says most exactly whose it is first.
    """

    mark: str | None
    packets: tuple[bytes, ...]


def is_sidecar(path: str) -> bool:
    """Whether a file of this name (or path) is one."""
    return path.endswith(_SUFFIXES)


def owners_stem(path: str) -> str:
    """What the pictures of a sidecar are called: this, or this with a suffix."""
    return os.path.splitext(path)[0]


def belongs_to(stem: str, picture: str) -> bool:
    """Whether a sidecar with this :func:`owners_stem` is one of this picture's; both are paths."""
    return stem in (picture, os.path.splitext(picture)[0])


def mark_of(picture: str, among: Collection[str] | None = None) -> str | None:
    """What tells the sidecars of a picture from any others and from what they were; ``None`` if it has none.

    :param among: the names of all sidecars in its folder, where they are known.
    :raises OSError: it cannot be told.
    """
    return _mark(_found(picture, among))


def has_its_sidecars(entry: LedgerEntry, among: Collection[str] | None = None) -> bool:
    """Whether what is in the index was read with the sidecars that are there now.

    What failed is not read again for a sidecar's sake.

    :param among: as for :func:`mark_of`.
    :raises OSError: that cannot be told.
    """
    if entry.state not in {PictureState.INDEXED, PictureState.WAITING}:
        return True
    return entry.sidecar == mark_of(entry.path, among)


def sidecars_of(picture: str) -> list[str]:
    """The paths of a picture's sidecars; none where it cannot be told."""
    with contextlib.suppress(OSError):
        return list(_found(picture, None))
    return []


def read_sidecars(picture: str) -> Sidecars:
    """Read the sidecars of a picture. One that may not be read says nothing: it is no fault of the picture's.

    :raises OSError: it cannot be told whether there is one, or a disk does not give what is in it.
    """
    read_at = time.time()
    found = _found(picture, None)
    if not found:
        return Sidecars(None, ())
    packets = tuple(packet for path in found if (packet := _packet(path)) is not None)
    is_sure = not any(signature.may_outlast_a_write(read_at) for signature in found.values())
    return Sidecars(_mark(found) if is_sure else UNSURE, packets)


def _found(picture: str, among: Collection[str] | None) -> dict[str, Signature]:
    found: dict[str, Signature] = {}
    if among is not None and not among:
        return found
    for base in (picture, os.path.splitext(picture)[0]):
        for path in (f"{base}{suffix}" for suffix in _SUFFIXES):
            if among is not None and os.path.basename(path) not in among:
                continue
            stat = _lstat(path)
            if stat is not None and stat_module.S_ISREG(stat.st_mode):
                found[path] = Signature.of(stat)
    return found


def _lstat(path: str) -> os.stat_result | None:
    """``None`` where there is none, as beside a picture whose name has no room for another suffix."""
    try:
        return os.lstat(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _mark(found: dict[str, Signature]) -> str | None:
    """Without the device, whose number may change with a reboot or a cable."""
    parts = (
        f"{os.path.basename(path)!r} {file.inode} {file.size} {file.mtime_ns} {file.ctime_ns}"
        for path, file in found.items()
    )
    return "; ".join(parts) or None


def read_packet(path: str) -> bytes | None:
    """What is in a sidecar; ``None`` if it cannot be read or is too large."""
    try:
        return _packet(path)
    except OSError:
        return None


def _packet(path: str) -> bytes | None:
    """:raises OSError: it may be read, and a disk or this machine fails to."""
    try:
        with open(os.open(path, _OPEN_FLAGS), "rb") as file:
            packet = file.read(MAX_BYTES + 1)
    except OSError as error:
        if error.errno in OF_THE_FILE:
            return None
        raise
    return packet if len(packet) <= MAX_BYTES else None
