"""Flushing to the disk what another library wrote and did not flush."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .manifest import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


class FolderSync:
    """Makes a folder's files durable, each once: for files that are written whole and then never again."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._synced: set[tuple[str, int]] = set()

    def sync(self) -> None:
        """Flush every file that was not there the last time, and the folders that name them.

        :raises OSError: if the disk refuses; the next call tries the same files again.
        """
        present = {(entry.path, entry.inode()) for entry in files_below(self._folder)}
        fresh = [path for path, _ in present - self._synced]
        for path in fresh:
            _sync_file(path)
        for folder in self._folders_of(fresh):
            sync_folder(folder)
        self._synced = present

    def _folders_of(self, paths: list[str]) -> set[str]:
        """The folders of the files and those above them, up to our own: any of them may be new as well."""
        found: set[str] = set()
        for path in paths:
            folder = os.path.dirname(path)
            while folder not in found and folder.startswith(self._folder):
                found.add(folder)
                folder = os.path.dirname(folder)
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
