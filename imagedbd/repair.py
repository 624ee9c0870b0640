"""Offline repair: what cannot be read is set aside, and built anew from the rest at the next start."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.ledger import Ledger
from imagedbd.library import ledger_file, store_folder
from imagedbd.locking import locked_data
from imagedbd.stores import open_store

if TYPE_CHECKING:
    from imagedbd.config import Settings


def repair(settings: Settings) -> list[str]:
    """Check ledger and store, and set aside the one that is damaged; nothing is deleted.

    A ledger is built anew from the store and the folders, by hashing; a store is embedded anew.

    :returns: what was found and done, a sentence each.
    :raises LockHeldError: if the daemon runs.
    """
    with locked_data(settings):
        return [_check_ledger(ledger_file(settings)), _check_store(settings)]


def _check_ledger(file: str) -> str:
    try:
        ledger = Ledger(file)
        try:
            ledger.check()
        finally:
            ledger.close()
    except StoreUnreadableError as error:
        aside = _set_aside(file, f"{file}-wal", f"{file}-shm")
        return f"{error.message} It was set aside as {aside} and is built anew at the next start."
    return f"The ledger {file} is in order."


def _check_store(settings: Settings) -> str:
    folder = store_folder(settings)
    try:
        store = open_store(settings.store, folder, exclusive=True)
        try:
            rows = sum(1 for _ in store.scan())
        finally:
            store.close()
    except StoreError as error:
        aside = _set_aside(folder)
        return f"{error.message} It was set aside as {aside}; its pictures are embedded anew."
    return f"The store {folder} is in order, with {rows} rows."


def _set_aside(*paths: str) -> str:
    """Rename these; returns the new name of the first."""
    mark = time.strftime("damaged-%Y%m%dT%H%M%S")
    for path in paths:
        if os.path.lexists(path):
            os.rename(path, f"{path}.{mark}")
    return f"{paths[0]}.{mark}"
