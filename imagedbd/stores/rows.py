"""Rows as both stores keep them: the Arrow columns, and records turned into rows and back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from imagedbd.datatypes import (
    METADATA_FIELDS,
    RECORD_FIELDS,
    FieldType,
    ImageRecord,
    Metadata,
    Signature,
)

from .columns import FOLDED_FIELDS, LARGEST_INTEGER, field_values, folded, folded_values, path_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    StoredVector = NDArray[np.float16]
    """A vector as it is on disk, shape ``(dimension,)``."""

VECTOR: Final = "vector"

HAS_VECTOR: Final = "has_vector"
"""Whether a row has a vector: to look for nulls among the vectors is to read them all."""

OWNER: Final = "owner"
"""Which daemon wrote a row: many may share one remote table."""

_WORDS = pa.list_(pa.string())

_ARROW_TYPES = {
    FieldType.TEXT: pa.string(),
    FieldType.INTEGER: pa.int64(),
    FieldType.NUMBER: pa.float64(),
    FieldType.DATE: pa.string(),
    FieldType.WORDS: _WORDS,
}

_SIGNATURE_FIELDS = (
    # The kernel's device and inode numbers use all of their 64 bits.
    pa.field("device", pa.uint64()),
    pa.field("inode", pa.uint64()),
    pa.field("mtime_ns", pa.int64()),
    pa.field("ctime_ns", pa.int64()),
)

_SCHEMA = pa.schema(
    [
        *(pa.field(name, _ARROW_TYPES[kind], nullable=name != "id") for name, kind in RECORD_FIELDS.items()),
        pa.field("path_bytes", pa.binary()),
        *_SIGNATURE_FIELDS,
        *(pa.field(folded(name), pa.string()) for name in FOLDED_FIELDS),
        pa.field(folded("keywords"), _WORDS),
        pa.field("word_count", pa.int32()),
        pa.field(HAS_VECTOR, pa.bool_()),
        pa.field(OWNER, pa.string()),
    ]
)

RECORD_COLUMNS: Final = [
    "id",
    "path_bytes",
    "size",
    *(field.name for field in _SIGNATURE_FIELDS),
    "content_hash",
    *METADATA_FIELDS,
    "indexed_at",
]
"""The columns that :func:`records` needs."""

PLACE_COLUMNS: Final = ["id", "path_bytes"]
"""The columns that :func:`places` needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A record with its vector as it is stored."""

    record: ImageRecord
    vector: StoredVector | None


def table_schema(dimension: int | None) -> pa.Schema:
    """The table's columns; without a vector while its dimension is not known."""
    return _SCHEMA if dimension is None else _SCHEMA.append(vector_field(dimension))


def vector_field(dimension: int) -> pa.Field[Any]:
    return pa.field(VECTOR, pa.list_(pa.float16(), dimension))


def to_arrow(rows: Sequence[Row], dimension: int | None, owner: str) -> pa.Table:
    """The rows as an Arrow table of :func:`table_schema`."""
    table = pa.Table.from_pylist([{**_values(row), OWNER: owner} for row in rows], schema=_SCHEMA)
    if dimension is None:
        return table
    vectors = _vector_array([row.vector for row in rows], dimension)
    return table.append_column(vector_field(dimension), vectors)


def records(table: pa.Table | pa.RecordBatch) -> list[ImageRecord]:
    """The records of rows that have :data:`RECORD_COLUMNS`."""
    # By columns: a dictionary a row would take three times as long.
    columns = [table.column(name).to_pylist() for name in RECORD_COLUMNS]
    return [_record(*values) for values in zip(*columns, strict=True)]


def places(table: pa.Table) -> list[tuple[str, str]]:
    """The ids and paths of rows that have :data:`PLACE_COLUMNS`."""
    ids, paths = table["id"].to_pylist(), table["path_bytes"].to_pylist()
    return [(str(key), os.fsdecode(path or b"")) for key, path in zip(ids, paths, strict=True)]


def stored_vectors(column: pa.ChunkedArray[Any]) -> list[StoredVector | None]:
    """The vectors of a column, as they are stored."""
    array = column.combine_chunks()
    present = iter(vector_matrix(column))
    return [next(present) if valid else None for valid in array.is_valid().to_pylist()]


def vector_matrix(column: pa.ChunkedArray[Any]) -> NDArray[np.float16]:
    """The vectors of a column without its nulls, shape ``(n, dimension)``."""
    array: Any = column.combine_chunks()
    matrix: NDArray[np.float16] = array.flatten().to_numpy().reshape(-1, array.type.list_size)
    return matrix


def _values(row: Row) -> dict[str, Any]:
    record = row.record
    values = field_values(record)
    return {
        **values,
        **folded_values(values),
        "path_bytes": path_bytes(record.path),
        "device": record.signature.device,
        "inode": record.signature.inode,
        "mtime_ns": _clamped(record.signature.mtime_ns),
        "ctime_ns": _clamped(record.signature.ctime_ns),
        "word_count": len(str(values["text"]).split()),
        HAS_VECTOR: row.vector is not None,
    }


def _clamped(nanoseconds: int) -> int:
    """A time that a column can hold: some file systems know times far beyond the year 2262."""
    return max(-LARGEST_INTEGER, min(LARGEST_INTEGER, nanoseconds))


def _vector_array(vectors: Sequence[StoredVector | None], dimension: int) -> pa.Array[Any]:
    nothing = np.zeros(dimension, dtype=np.float16)
    flat = np.concatenate([nothing if vector is None else vector for vector in vectors] or [nothing[:0]])
    missing = pa.array([vector is None for vector in vectors], type=pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), dimension, mask=missing)


def _record(  # noqa: PLR0917 - the columns in their order
    key: str,
    path: bytes,
    size: int,
    device: int,
    inode: int,
    mtime_ns: int,
    ctime_ns: int,
    content_hash: str,
    *rest: Any,
) -> ImageRecord:
    *values, indexed_at = rest
    metadata = dict(zip(METADATA_FIELDS, values, strict=True))
    metadata["keywords"] = tuple(metadata["keywords"])
    return ImageRecord(
        id=key,
        path=os.fsdecode(path),
        signature=Signature(device, inode, size, mtime_ns, ctime_ns),
        content_hash=content_hash,
        metadata=Metadata(**metadata),
        indexed_at=indexed_at,
    )
