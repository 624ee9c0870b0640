"""What a damaged LanceDB table still gives: read in pieces, around what cannot be read, each row checked.

LanceDB opens a table only as a whole: a damaged version is put out of its way, so that it opens the one
before, and so is a damaged list of deleted rows. Those rows come back with it, until the folders are scanned.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import shutil
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from imagedbd.datatypes import StoredPicture
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.ranking import unit
from imagedbd.text import count

from .columns import plain
from .inventory import Inventory
from .lance_folder import TABLE_FOLDER, VERSIONS, LanceFolder, may_change
from .lance_place import TABLE
from .manifest import SPARE, read_manifest
from .rows import HAS_VECTOR, VECTOR, records, stored_vectors
from .salvage import Salvage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagedbd.datatypes import ImageRecord, ModelInfo, Vector

    from .rows import StoredVector

_log = logging.getLogger(__name__)

_PAGE: Final = 256

_DELETIONS = f"{TABLE_FOLDER}/_deletions/"

_ASIDE = ".damaged"

_LENGTH_SLACK = 2e-3
"""How far rounding to float16 may take the length of a unit vector from one."""

_DELETED_ROWS = pa.schema([pa.field("row_id", pa.uint32(), nullable=False)])
"""A list of deleted rows, in a file of Arrow's."""

_NOTHING_IN_A_BITMAP = struct.pack("<II", 12346, 0)
"""A Roaring bitmap without a member, as it is written to a file."""


def salvage_lance(folder: str) -> Salvage:
    """As :func:`imagedbd.stores.salvage.salvage`.

    :raises StoreUnreadableError: if no version of the table can be opened.
    """
    model = _model(folder)
    _clear_the_way(folder)
    table = _opened(folder)
    return Salvage(model, table.count_rows(), _pictures(table, with_vectors=model is not None))


def _model(folder: str) -> ModelInfo | None:
    for place in (folder, os.path.join(folder, SPARE)):
        try:
            if found := read_manifest(place):
                return found.model
        except StoreUnreadableError as error:
            _log.warning("%s", error)
    return None


# Putting what is damaged out of the engine's way.


def _clear_the_way(folder: str) -> None:
    damaged = _damaged(folder)
    for path in damaged:
        if path.startswith(VERSIONS):
            _put_aside(os.path.join(folder, path))
        elif path.startswith(_DELETIONS):
            _forget_deletions(os.path.join(folder, path))
    spare = os.path.join(folder, SPARE)
    for name in os.listdir(spare) if os.path.isdir(spare) else []:
        if name.endswith(".manifest") and f"{SPARE}/{name}" not in damaged:
            _bring_back(os.path.join(spare, name), os.path.join(folder, VERSIONS, name))


def _damaged(folder: str) -> list[str]:
    """The files that are not as they were written, relative to the folder, where that is known."""
    inventory = Inventory(folder, may_change)
    try:
        inventory.load()
    except StoreUnreadableError as error:
        _log.warning("%s", error)
        return []
    return inventory.damaged()


def _put_aside(path: str) -> None:
    if os.path.exists(path):
        os.rename(path, path + _ASIDE)


def _bring_back(spare: str, path: str) -> None:
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(spare, path)


def _forget_deletions(path: str) -> None:
    _put_aside(path)
    if path.endswith(".bin"):
        with open(path, "wb") as bitmap:
            bitmap.write(_NOTHING_IN_A_BITMAP)
        return
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, _DELETED_ROWS) as writer:
        writer.write_batch(pa.record_batch([pa.array([], pa.uint32())], schema=_DELETED_ROWS))


def _opened(folder: str) -> Any:
    """The newest version of the table that can be opened."""
    while versions := sorted(glob.glob(os.path.join(glob.escape(folder), VERSIONS, "*.manifest"))):
        newest = versions[0]  # their names count down
        with _forgiving(f"{newest} cannot be opened"):
            table = LanceFolder(folder, exclusive=False).connect().open_table(TABLE)
            if {"id", "path_bytes"}.issubset(table.schema.names):
                return table
        _put_aside(newest)
    raise StoreUnreadableError(f"Nothing can be read in {folder}.")


# Reading around what cannot be read.


def _pictures(table: Any, *, with_vectors: bool) -> Iterator[StoredPicture]:
    for batch in _batches(table):
        for start in range(batch.num_rows):
            with _forgiving("a row makes no sense"):
                yield _picture(batch.slice(start, 1), with_vectors=with_vectors)


def _batches(table: Any) -> Iterator[pa.Table]:
    """All rows at once, or, where that fails, in pieces: those that were read before come again."""
    with _forgiving("not all rows can be read at once"):
        for batch in table.search().to_batches(batch_size=_PAGE):
            yield pa.Table.from_batches([batch])
        return
    rows = table.count_rows()
    for start in range(0, rows, _PAGE):
        yield from _page(table, start, min(_PAGE, rows - start))


def _page(table: Any, start: int, rows: int) -> Iterator[pa.Table]:
    """What can be read of some rows in sequence, by halves, down to single ones."""
    with _forgiving(f"{count(rows, 'row')} from {start} on cannot be read together"):
        yield table.search().offset(start).limit(rows).to_arrow()
        return
    if rows > 1:
        yield from _page(table, start, rows // 2)
        yield from _page(table, start + rows // 2, rows - rows // 2)


@contextmanager
def _forgiving(what: str) -> Iterator[None]:
    """Log whatever an engine throws at what is damaged; its panics are no ordinary exceptions."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, StoreError):
        raise
    except BaseException as error:  # noqa: BLE001 - see above
        _log.info("%s: %s", what, error)


def _picture(row: pa.Table, *, with_vectors: bool) -> StoredPicture:
    """One row, if it agrees with itself.

    :raises ValueError: if it does not.
    """
    (record,) = records(row)
    vector = stored_vectors(row[VECTOR])[0] if with_vectors and VECTOR in row.column_names else None
    _check_record(record, row)
    if with_vectors and (vector is not None) != row[HAS_VECTOR][0].as_py():
        raise ValueError(f"{record.id} has a vector, or has none, against what it says")
    return StoredPicture(record, None if vector is None else _sound(vector))


def _check_record(record: ImageRecord, row: pa.Table) -> None:
    """What a row says twice must be the same; the rest is compared with its file when that is scanned."""
    said = {name: row[name][0].as_py() for name in ("path", "folder", "name", "text", "word_count")}
    expected = {
        "path": plain(record.path),
        "folder": plain(record.folder),
        "name": plain(record.name),
        "text": said["text"],
        "word_count": len(said["text"].split()),
    }
    if said != expected or not record.id or not record.content_hash:
        raise ValueError(f"{record.id} contradicts itself")


def _sound(vector: StoredVector) -> Vector:
    """The vector, if it is about as long as it was: other numbers are hardly ever."""
    length = float(np.linalg.norm(vector.astype(np.float32)))
    if not math.isfinite(length) or abs(length - 1) > _LENGTH_SLACK:
        raise ValueError(f"a vector has the length {length}")
    return unit(vector)
