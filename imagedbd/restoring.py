"""Putting a backup in the place of the index, offline: what was there is set aside, nothing is deleted."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from imagedbd.backups import SETTINGS, Backup, copy_checked, generation_of
from imagedbd.data_folder import open_generation, running_mark
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.ledger import NAME as LEDGER
from imagedbd.ledger import Ledger
from imagedbd.locking import locked_data
from imagedbd.replacement import clear, draft_folder, parts, replace_index, settle
from imagedbd.text import count, fault

if TYPE_CHECKING:
    from imagedbd.config import Settings


def index_there(settings: Settings) -> bool:
    """Whether the data folder holds an index that would be set aside."""
    return bool(os.path.isdir(settings.data_dir) and list(parts(settings.data_dir)))


def restore(backup: Backup, settings: Settings) -> list[str]:
    """Check a backup, and make it the index of the data folder.

    :returns: what was done, a sentence each.
    :raises StoreUnreadableError: the backup is damaged, and the index stays as it is; or what moved halfway
        cannot be moved back.
    :raises StoreError: the backup cannot be read or copied; the index stays as it is.
    :raises LockHeldError: if the daemon runs.
    """
    with locked_data(settings):
        finished = settle(settings.data_dir)
        draft = draft_folder(settings.data_dir)
        try:
            copy_checked(backup, draft)
            rows = _check(draft, settings)
            _make_ready(draft, settings)
            aside = replace_index(settings.data_dir)
        except OSError as error:
            raise StoreError(
                f"The backup could not be restored: {fault(error)}. The index is as it was."
            ) from error
        finally:
            clear(settings.data_dir)
    done = [finished] if finished else []
    done.append(f"The index of {backup.created} is in {settings.data_dir}, with {count(rows, 'picture')}.")
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
        if faults := list(filter(None, store.scrub())):
            raise StoreUnreadableError(f"The backup is damaged: {faults[0]}")
        return store.count(own=True)
    finally:
        store.close()


def _make_ready(draft: str, settings: Settings) -> None:
    # Store and ledger are of one moment, but whoever reads them first should make sure of it.
    mark = os.path.basename(running_mark(settings))
    with open(os.path.join(draft, mark), "w", encoding="ascii"):
        pass
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(draft, SETTINGS))
