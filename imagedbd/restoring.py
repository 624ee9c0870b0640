"""Putting a backup in the place of the index, offline: what was there is set aside, nothing is deleted."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imagedbd.backups import LEDGER, SETTINGS, Backup, copy_checked, generation_of
from imagedbd.durable import free_name, sync_folder
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.ledger import Ledger
from imagedbd.library import open_generation, running_mark
from imagedbd.locking import locked_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagedbd.config import Settings

_DRAFT: Final = "restoring"
_STAYS: Final = frozenset({"lock", _DRAFT})
"""What is no part of an index."""


def index_there(settings: Settings) -> bool:
    """Whether the data folder holds an index that would be set aside."""
    return bool(os.path.isdir(settings.data_dir) and list(_parts(settings.data_dir)))


def restore(backup: Backup, settings: Settings) -> list[str]:
    """Check a backup, and make it the index of the data folder.

    :returns: what was done, a sentence each.
    :raises StoreUnreadableError: the backup is damaged; the index stays as it is.
    :raises LockHeldError: if the daemon runs.
    """
    with locked_data(settings):
        draft = os.path.join(settings.data_dir, _DRAFT)
        shutil.rmtree(draft, ignore_errors=True)
        try:
            copy_checked(backup, draft)
            rows = _check(draft, settings)
            aside = _set_aside(settings.data_dir)
        except OSError as error:
            raise StoreError(f"The backup could not be restored: {error}. The index is as it was.") from error
        finally:
            if not os.path.exists(os.path.join(draft, LEDGER)):
                shutil.rmtree(draft, ignore_errors=True)
        _move_in(draft, settings)
    done = [f"The index of {backup.created} is in {settings.data_dir}, with {rows} pictures."]
    if aside:
        done.append(f"What was there before is in {aside}; delete it when you do not need it any more.")
    if SETTINGS in backup.files:
        done.append(f"The settings of that time are {os.path.join(backup.folder, SETTINGS)}; yours stay.")
    return [
        *done,
        "Start the daemon: it compares the index with the folders, and follows what changed since.",
    ]


def _check(draft: str, settings: Settings) -> int:
    """Open what was copied; returns how many pictures it has."""
    ledger = Ledger(os.path.join(draft, LEDGER))
    try:
        ledger.check()
        expected = sum(ledger.counts().values())
    finally:
        ledger.close()
    generation = generation_of(draft)
    if generation.is_remote:
        return expected
    store = open_generation(replace(settings, data_dir=draft), generation)
    try:
        if faults := [fault for fault in store.scrub() if fault]:
            raise StoreUnreadableError(f"The backup is damaged: {faults[0]}")
        return store.count(own=True)
    finally:
        store.close()


def _set_aside(data_dir: str) -> str | None:
    """Move the index that is there into a folder of its own; returns which, if there was one."""
    if not (parts := list(_parts(data_dir))):
        return None
    aside = free_name(os.path.join(data_dir, time.strftime("before-restore-%Y%m%dT%H%M%S")))
    os.mkdir(aside, mode=0o700)
    for name in parts:
        os.rename(os.path.join(data_dir, name), os.path.join(aside, name))
    return aside


def _parts(data_dir: str) -> Iterator[str]:
    for name in sorted(os.listdir(data_dir)):
        if name not in _STAYS and not name.startswith("before-restore-"):
            yield name


def _move_in(draft: str, settings: Settings) -> None:
    # Store and ledger are of one moment, but whoever reads them first should make sure of it.
    with open(running_mark(settings), "a", encoding="ascii"):
        pass
    for name in sorted(os.listdir(draft)):
        if name != SETTINGS:
            os.rename(os.path.join(draft, name), os.path.join(settings.data_dir, name))
    shutil.rmtree(draft, ignore_errors=True)
    sync_folder(settings.data_dir)
