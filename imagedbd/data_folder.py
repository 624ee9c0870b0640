"""What lies in the data folder, and how the store there is opened by whoever holds its lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from imagedbd.generations import generations_of, owner_of
from imagedbd.ledger import NAME as LEDGER
from imagedbd.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagedbd.config import Settings
    from imagedbd.datatypes import Store
    from imagedbd.generations import Generation


def running_mark(settings: Settings) -> str:
    """The file that is there while a daemon runs, and after one that did not end cleanly."""
    return os.path.join(settings.data_dir, "running")


def ledger_file(settings: Settings) -> str:
    return os.path.join(settings.data_dir, LEDGER)


def store_folder(settings: Settings) -> str:
    """The folder or URI of the store that answers.

    :raises StoreUnreadableError: what says where it is cannot be read.
    """
    return generations_of(settings).active.where(settings.data_dir)


def open_generation(
    settings: Settings, generation: Generation, on_doubt: Callable[[], object] = lambda: None
) -> Store:
    """Open the store of a generation, for a caller who holds the data folder's lock.

    :param on_doubt: as for :func:`~imagedbd.stores.open_store`.
    :raises StoreUnreadableError: if it cannot be read.
    """
    # A folder here has one owner whoever that is; to lose the file that names it must not cost the index.
    owner = owner_of(settings.data_dir) if generation.is_remote else ""
    return open_store(
        generation.kind,
        generation.where(settings.data_dir),
        owner=owner,
        exclusive=not generation.is_remote,
        options=settings.storage_options if generation.is_remote else None,
        on_doubt=on_doubt,
    )
