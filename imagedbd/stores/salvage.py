"""Out of a damaged store into a new one: whatever rows can be read and make sense."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from imagedbd.datatypes import Batch
from imagedbd.errors import ConfigError

from . import open_store

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

    :param fresh: where the new one is made; what an interrupted attempt left there is removed.
    :returns: how many rows were saved, and how many were lost, where that is known.
    :raises StoreUnreadableError: if nothing can be read.
    :raises StoreError: if the new store cannot be written.
    """
    found = salvage(kind, damaged)
    shutil.rmtree(fresh, ignore_errors=True)
    store = open_store(kind, fresh, exclusive=True)
    try:
        _fill(store, found)
        saved = store.count()
    finally:
        store.close()
    return saved, None if found.rows is None else max(0, found.rows - saved)


def _fill(store: Store, found: Salvage) -> None:
    if found.model is not None:
        store.bind(found.model)
    while some := {picture.record.id: picture for picture in islice(found.pictures, _ROWS)}:
        store.apply(Batch(upserts=tuple(some.values())))
    store.maintain(idle=True)
