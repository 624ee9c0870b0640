"""Flushing to the disk what another library wrote and did not flush."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from imagedbd.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def flush(folder: str, paths: Iterable[str]) -> None:
    """Make new files below a folder durable, and the folders that name them.

    :raises OSError: if the disk refuses.
    """
    folders: set[str] = set()
    for path in paths:
        _sync_file(path)
        folders |= _folders_between(path, folder)
    for name in folders:
        sync_folder(name)


def _folders_between(path: str, top: str) -> set[str]:
    """The folder of a file and those above it, up to the top: any of them may be new as well."""
    found = set()
    at = os.path.dirname(path)
    while at.startswith(top):
        found.add(at)
        at = os.path.dirname(at)
    return found


def files_below(folder: str) -> Iterator[os.DirEntry[str]]:
    """All files in a folder and in those below it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(entry.path)
            else:
                yield entry


def size_of(entry: os.DirEntry[str]) -> int:
    """Bytes of a file; none if it has been removed meanwhile."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
