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
from imagedbd.stores.salvage import save_rows

if TYPE_CHECKING:
    from imagedbd.config import Settings


def repair(settings: Settings) -> list[str]:
    """Check ledger and store, and set aside the one that is damaged; nothing is deleted.

    A ledger is built anew from the store and the folders, by hashing; a store from what can be read of it,
    and the rest is embedded anew.

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
        rows = _checked_rows(settings.store, folder)
    except StoreError as error:
        return f"{error.message} {_renew_store(settings.store, folder)}"
    return f"The store {folder} is in order, with {rows} rows."


def _checked_rows(kind: str, folder: str) -> int:
    """Read all that the store has.

    :returns: how many rows it has.
    :raises StoreError: if anything is damaged.
    """
    store = open_store(kind, folder, exclusive=True)
    try:
        if faults := [fault for fault in store.scrub() if fault]:
            raise StoreUnreadableError(faults[0])
        return sum(1 for _ in store.scan())
    finally:
        store.close()


def _renew_store(kind: str, folder: str) -> str:
    """Make a store of what can be read of a damaged one, and put it in its place.

    :raises StoreError: if there is no room for it; the damaged one stays where it is.
    """
    fresh = f"{folder}.saved"
    try:
        saved, lost = save_rows(kind, folder, fresh)
    except StoreUnreadableError as error:
        return f"{error.message} It was set aside as {_set_aside(folder)}; its pictures are embedded anew."
    aside = _set_aside(folder)
    os.rename(fresh, folder)
    rest = "what it lost is" if lost is None else f"{lost} that were lost are"
    return f"{saved} pictures were saved into a new store, and {rest} embedded anew; the old one is {aside}."


def _set_aside(*paths: str) -> str:
    """Rename these; returns the new name of the first."""
    mark = time.strftime("damaged-%Y%m%dT%H%M%S")
    for path in paths:
        if os.path.lexists(path):
            os.rename(path, f"{path}.{mark}")
    return f"{paths[0]}.{mark}"
