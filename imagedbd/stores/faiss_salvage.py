"""Reading what can still be read of a damaged faiss store."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagedbd.datatypes import StoredPicture
from imagedbd.errors import StoreUnreadableError
from imagedbd.ranking import unit

from .checks import ENGINE_ERRORS
from .contents import Contents, Draft, whole
from .entries import decode
from .frame import frame_of
from .journal import salvage_journal
from .manifest import SPARE, read_manifest
from .rows import RECORD_COLUMNS, records, table_schema
from .salvage import Salvage
from .snapshot import BLOCK, StoredFile, damage_by_block, journal_name, metadata_name, read_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from imagedbd.datatypes import ModelInfo

_log = logging.getLogger(__name__)

_METADATA: Final = re.compile(r"metadata-(\d+)\.parquet")

_PAGE: Final = 2_000


def salvage_faiss(folder: str) -> Salvage:
    """Every row that can be read of a damaged store.

    Parts stand or fall by themselves: groups of records, blocks of vectors, batches in the journal. Where a
    vector is lost, or cannot be told from damage, its record comes without one. Deletions that were lost
    with their batch are not known here: their rows come back.

    :raises StoreUnreadableError: if nothing can be read.
    """
    model = _model(folder)
    dimension = model.dimension if model else None
    number = _number(folder)
    if number is None:
        raise StoreUnreadableError(f"There is no snapshot in {folder}.")
    table, codes = _snapshot_rows(folder, number, dimension)
    contents, rows = whole(frame_of(table))
    draft = Draft(contents, rows, codes, dimension)
    for payload in salvage_journal(os.path.join(folder, journal_name(number))):
        try:
            draft.add(decode(payload, dimension))
        except ENGINE_ERRORS as error:
            _log.warning("a batch in the journal makes no sense and is left out: %s", error)
    change = draft.change()
    every = np.concatenate([codes, change.codes]) if dimension else None
    return Salvage(model, None, _pictures(change.contents, every))


def _model(folder: str) -> ModelInfo | None:
    for place in (folder, os.path.join(folder, SPARE)):
        try:
            manifest = read_manifest(place)
        except StoreUnreadableError as error:
            _log.warning("%s", error.message)
            continue
        if manifest is not None:
            return manifest.model
    return None


def _number(folder: str) -> int | None:
    """The valid snapshot, or if nothing says which that is, the newest."""
    try:
        snapshot = read_snapshot(folder)
    except StoreUnreadableError:
        snapshot = None
    if snapshot is not None:
        return snapshot.number
    names = (_METADATA.fullmatch(name) for name in os.listdir(folder))
    numbers = sorted((int(match[1]) for match in names if match), reverse=True)
    # The newest may be one that a crash left half written.
    whole_ones = (n for n in numbers if any(_row_groups(os.path.join(folder, metadata_name(n)))))
    return next(whole_ones, numbers[0] if numbers else None)


def _snapshot_rows(folder: str, number: int, dimension: int | None) -> tuple[pa.Table, NDArray[np.float16]]:
    """The records that can be read, and for each its vector, or zeros."""
    path = os.path.join(folder, metadata_name(number))
    tables, kept = [], []
    start = 0
    for table, length in _row_groups(path):
        if table is not None:
            tables.append(table)
            kept.append(np.arange(start, start + length))
        start += length
    codes = _codes(folder, number, start, dimension)
    schema = table_schema(None)
    whole_table = pa.concat_tables([schema.empty_table(), *tables])
    rows = np.concatenate([np.empty(0, dtype=np.int64), *kept])
    return whole_table, codes[rows]


def _row_groups(path: str) -> Iterator[tuple[pa.Table | None, int]]:
    """Each group of records, or ``None`` if it is damaged; and how many it has."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except ENGINE_ERRORS as error:
        _log.warning("%s cannot be read: %s", path, error)
        return
    with file:
        for group in range(file.num_row_groups):
            yield _row_group(file, group), file.metadata.row_group(group).num_rows


def _row_group(file: pq.ParquetFile, group: int) -> pa.Table | None:
    try:
        table: pa.Table = file.read_row_group(group).replace_schema_metadata(None).cast(table_schema(None))
        table.validate(full=True)
    except ENGINE_ERRORS as error:
        _log.warning("a group of records is damaged and left out: %s", error)
        return None
    return table


def _codes(folder: str, number: int, rows: int, dimension: int | None) -> NDArray[np.float16]:
    """The vectors of a snapshot, shape ``(rows, dimension)``, zeros where they are lost."""
    codes = np.zeros((rows, dimension or 0), dtype=np.float16)
    name = f"vectors-{number}.f16"
    if not codes.size or not os.path.exists(os.path.join(folder, name)):
        return codes
    try:
        found = np.fromfile(os.path.join(folder, name), dtype="<f2")[: codes.size]
    except OSError as error:
        _log.warning("%s cannot be read, and its vectors are lost: %s", name, error)
        return codes
    codes.reshape(-1)[: len(found)] = found
    for start, end in _damaged_bytes(folder, name, codes.nbytes):
        codes[start // (2 * codes.shape[1]) : -(-end // (2 * codes.shape[1]))] = 0
    return codes


def _damaged_bytes(folder: str, name: str, size: int) -> Iterator[tuple[int, int]]:
    file = _listed(folder, name)
    if file is None:
        return  # nothing says what they should be; only a lost snapshot.json makes that so
    if os.path.getsize(os.path.join(folder, name)) != file.size:
        yield 0, size
        return
    for number, damage in enumerate(damage_by_block(folder, file)):
        if damage is not None:
            yield number * BLOCK, min(size, (number + 1) * BLOCK)


def _listed(folder: str, name: str) -> StoredFile | None:
    try:
        snapshot = read_snapshot(folder)
    except StoreUnreadableError:
        return None
    return next((file for file in snapshot.files if file.name == name), None) if snapshot else None


def _pictures(contents: Contents, codes: NDArray[np.float16] | None) -> Iterator[StoredPicture]:
    rows = np.flatnonzero(contents.alive)
    for start in range(0, len(rows), _PAGE):
        page = rows[start : start + _PAGE]
        for row, record in zip(page, records(contents.frame.take(page, RECORD_COLUMNS)), strict=True):
            vector = None if codes is None or not _usable(codes[row]) else unit(codes[row])
            yield StoredPicture(record, vector)


def _usable(code: NDArray[np.float16]) -> bool:
    return bool(code.any() and np.isfinite(code).all())
