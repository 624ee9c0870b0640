"""Out of a damaged store into a new one: whatever rows can be read and make sense."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from imagedbd.datatypes import Batch
from imagedbd.durable import sync_folder
from imagedbd.errors import ConfigError, StoreError

from . import open_store
from .manifest import FILE_NAME as MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagedbd.datatypes import ModelInfo, Store, StoredPicture

_ROWS = 1_000
"""How many rows are written at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Salvage:
    """What a damaged store still gives.

    :param model: whose vectors these are; ``None`` if there are none.
    :param rows: how many rows there were before; ``None`` if that is not known.
    :param pictures: the rows that can be read. One id may come more than once: the last one is right.
    """

    model: ModelInfo | None
    rows: int | None
    pictures: Iterator[StoredPicture]


def salvage(kind: str, folder: str) -> Salvage:
    """What the store of a kind in a folder still gives. Nothing in the folder is deleted.

    :raises StoreUnreadableError: if nothing of it can be read.
    """
    match kind:
        case "lance":
            from .lance_salvage import salvage_lance  # noqa: PLC0415 - two seconds that only its users should pay

            return salvage_lance(folder)
        case "faiss":
            from .faiss_salvage import salvage_faiss  # noqa: PLC0415 - likewise

            return salvage_faiss(folder)
        case _:
            raise ConfigError(f"Nothing can be saved from a store called {kind!r}.")


def save_rows(kind: str, damaged: str, fresh: str) -> tuple[int, int | None]:
    """Make a new store in a folder, of the rows that a damaged one still gives.

    :param fresh: the new one, there only once it is complete; what an earlier attempt left is removed.
    :returns: how many rows were saved, and how many were lost, where that is known.
    :raises StoreUnreadableError: if nothing can be read.
    :raises StoreError: if the new store cannot be written.
    """
    draft = f"{fresh}.draft"
    for left in (fresh, draft):
        shutil.rmtree(left, ignore_errors=True)
    found = salvage(kind, damaged)
    store = open_store(kind, draft, exclusive=True)
    try:
        _fill(store, found)
        saved = store.count()
    finally:
        store.close()
    _rename(draft, fresh)
    return saved, None if found.rows is None else max(0, found.rows - saved)


def saved_place(folder: str) -> str:
    """Where the store is made that is to take the place of a damaged one."""
    return f"{folder}.saved"


def put_in_place(folder: str) -> bool:
    """Put a store that was saved in the place of the damaged one, which was set aside.

    A crash may have come between the two: without this, an empty store would be made there.

    :returns: whether there was one to put there.
    :raises StoreError: it cannot be renamed.
    """
    saved = saved_place(folder)
    if os.path.lexists(folder) or not os.path.exists(os.path.join(saved, MANIFEST)):
        return False
    _rename(saved, folder)
    return True


def _rename(old: str, new: str) -> None:
    try:
        os.rename(old, new)
    except OSError as error:
        raise StoreError(f"{old} cannot be renamed to {new}: {error.strerror}.") from error
    with contextlib.suppress(OSError):  # the other name is as good after a power cut
        sync_folder(os.path.dirname(new))


def _fill(store: Store, found: Salvage) -> None:
    if found.model is not None:
        store.bind(found.model)
    while some := {picture.record.id: picture for picture in islice(found.pictures, _ROWS)}:
        store.apply(Batch(upserts=tuple(some.values())))
    store.maintain(idle=True)
