"""Backups: a folder with a copy of the index, and a list of its files by which it can be checked.

A backup is written by the command, with its user's rights, while the daemon holds its writer still. It holds
the store that answers, the ledger, and the settings as they are; a remote store is named, and not copied.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from imagedbd import __version__
from imagedbd.durable import replace_file, sync_folder, write_durably
from imagedbd.errors import StoreError, StoreUnreadableError, UsageError
from imagedbd.generations import (
    Generation,
    Generations,
    generations_file,
    read_generations,
    write_generations,
)
from imagedbd.ledger import NAME as LEDGER
from imagedbd.rules import is_within
from imagedbd.text import fault

LIST: Final = "backup.json"
SETTINGS: Final = "config.toml"
FORMAT: Final = 1
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be kept, and where the daemon has it.

    :param model: the spec of the model whose vectors are in the store.
    """

    data_dir: str
    ledger: str
    config_file: str
    active: Generation
    model: str | None
    pictures: int

    @property
    def store_folder(self) -> str | None:
        """``None`` for a store that is elsewhere."""
        return None if self.active.is_remote else self.active.where(self.data_dir)

    def size(self) -> int:
        """Bytes of the store's files and the ledger, about."""
        files = _files_below(self.store_folder) if self.store_folder else ()
        return os.path.getsize(self.ledger) + sum(os.path.getsize(file) for file in files)


@dataclass(frozen=True, slots=True)
class Backup:
    """:param files: the size and BLAKE3 of each, by its path in the folder."""

    folder: str
    created: str
    version: str
    store: str
    model: str | None
    pictures: int
    files: Mapping[str, tuple[int, str]]


def write_backup(
    source: Source,
    folder: str,
    *,
    created: str,
    advance: Callable[[float], None],
    is_held: Callable[[], bool],
) -> int:
    """Write a backup into a new folder, whole or not at all.

    :param created: when, as ISO 8601.
    :param advance: called with the bytes that are written so far.
    :param is_held: whether nothing was written to the index up to now.
    :returns: the bytes that it takes.
    :raises UsageError: something is there already, or it would lie in the data folder itself.
    :raises StoreError: the index cannot be read, or the backup not be written.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder} is there already; a backup is written into a new folder.")
    parent, name = os.path.split(os.path.abspath(folder))
    # In the store's folder it would be copied into itself, without end.
    for own in filter(None, (source.data_dir, source.store_folder)):
        if is_within(os.path.realpath(parent), os.path.realpath(own)):
            raise UsageError(
                f"{folder} lies in {own}, of which it is to be a copy; name a folder elsewhere, such as "
                "`imagedb backup ~/index-backup`."
            )
    try:
        os.makedirs(parent, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=f".{name}-", dir=parent)
    except OSError as error:
        raise StoreError(f"The backup could not be written: {fault(error)}.") from error
    try:
        _copy_parts(source, draft, advance)
        _check_held(is_held)
        files = {os.path.relpath(file, draft): _described(file) for file in _files_below(draft)}
        told = {
            "format": FORMAT, "created": created, "version": __version__, "store": source.active.kind,
            "model": source.model, "pictures": source.pictures, "files": files,
        }  # fmt: skip
        write_durably(os.path.join(draft, LIST), json.dumps(told, indent=2) + "\n")
        os.rename(draft, folder)
        sync_folder(parent)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise StoreError(f"The backup could not be written: {fault(error)}.") from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return sum(size for size, _ in files.values())


def read_backup(folder: str) -> Backup:
    """What a backup says of itself.

    :raises UsageError: the folder is no backup, or of a newer format.
    """
    path = os.path.join(folder, LIST)
    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
        if told["format"] != FORMAT:
            raise UsageError(f"{path} has format {told['format']}; this imagedbd reads format {FORMAT}.")
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in told["files"].items()}
        backup = Backup(
            folder, told["created"], told["version"], told["store"], told["model"], told["pictures"], files
        )
    except FileNotFoundError as error:
        lacks = f"there is no {LIST} in it" if os.path.isdir(folder) else "there is no such folder"
        raise UsageError(f"{folder} is no backup: {lacks}.") from error
    except OSError as error:
        raise UsageError(f"{folder} is no backup: {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} is no backup: {error}.") from error
    if any(os.path.isabs(name) or ".." in name.split("/") for name in files):
        raise UsageError(f"{folder} is no backup: it names files elsewhere.")
    return backup


def copy_checked(backup: Backup, folder: str) -> None:
    """Copy a backup's files, and compare each with what it was when it was written.

    :raises StoreUnreadableError: a file is not what it was.
    :raises OSError: it cannot be read, or the copy not be written.
    """
    for name, (size, digest) in backup.files.items():
        target = os.path.join(folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        source = os.path.join(backup.folder, name)
        if not os.path.isfile(source):
            raise StoreUnreadableError(f"The backup is incomplete: {source} is not there.")
        _copy(source, target)
        if _described(target) != (size, digest):
            raise StoreUnreadableError(f"The backup is damaged: {source} is not what was written.")


def generation_of(folder: str) -> Generation:
    """The store of a backup, or of what was copied from one.

    :raises StoreUnreadableError: that cannot be read.
    """
    generations = read_generations(folder)
    if generations is None:
        raise StoreUnreadableError(f"{generations_file(folder)} is not there.")
    return generations.active


def _check_held(is_held: Callable[[], bool]) -> None:
    if not is_held():
        raise StoreError("The daemon stopped or went on writing before all was copied; nothing was kept.")


def _copy_parts(source: Source, draft: str, advance: Callable[[float], None]) -> None:
    done = 0
    if source.store_folder is not None:
        place = os.path.join(draft, source.active.place)
        for file in _files_below(source.store_folder):
            target = os.path.join(place, os.path.relpath(file, source.store_folder))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            done += _copy(file, target)
            advance(done)
    # Through SQLite: a plain copy would miss what is in its journal, or have half of it.
    with (
        closing(sqlite3.connect(f"file:{_quoted(source.ledger)}?mode=ro", uri=True)) as ledger,
        closing(sqlite3.connect(os.path.join(draft, LEDGER))) as copy,
    ):
        ledger.backup(copy)
    write_generations(draft, Generations(source.active))
    owner = os.path.join(source.data_dir, "owner")
    for file, name in ((owner, "owner"), (source.config_file, SETTINGS)):
        if os.path.exists(file):
            with open(file, "rb") as read:
                replace_file(os.path.join(draft, name), read.read())


def _quoted(path: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415 - of no use to commands that write no backup

    return quote(os.fsencode(path))


def _files_below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(names))


def _copy(source: str, target: str) -> int:
    shutil.copyfile(source, target)
    with open(target, "rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _described(path: str) -> tuple[int, str]:
    """Size and BLAKE3."""
    from blake3 import blake3  # noqa: PLC0415 - as above

    digest, size = blake3(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def source_of(told: Mapping[str, Any]) -> Source:
    """A source as the daemon tells it over the wire."""
    return Source(**{**told, "active": Generation(**told["active"])})
