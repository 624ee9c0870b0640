"""The index as a Parquet file."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagedbd import __version__
from imagedbd.datatypes import RECORD_FIELDS, FieldType

BLOCK: Final = 5_000
"""Rows that are written at once."""
_TYPES: Final[dict[FieldType, pa.DataType]] = {
    FieldType.TEXT: pa.string(),
    FieldType.INTEGER: pa.int64(),
    FieldType.NUMBER: pa.float64(),
    FieldType.DATE: pa.timestamp("s", "UTC"),
    FieldType.WORDS: pa.list_(pa.string()),
}
_FIELDS: Final = {name: kind for name, kind in RECORD_FIELDS.items() if name != "text"}
SCHEMA: Final = pa.schema(
    [
        ("path_bytes", pa.binary()),
        # The camera's own clock, with a zone only where the file names one: no timestamp can say that.
        *((name, pa.string() if name == "taken_at" else _TYPES[kind]) for name, kind in _FIELDS.items()),
        ("vector", pa.list_(pa.float32())),
    ]
)


def write_parquet(path: str, rows: Iterable[Mapping[str, Any]], *, model: str) -> int:
    """Write rows as the daemon gives them: all, or no file. A file that is there is replaced.

    :param model: whose vectors they have; kept in the file's own metadata.
    :returns: how many; without any, nothing is written.
    :raises OSError: it cannot be written.
    """
    draft, written = f"{path}.part", 0
    schema = SCHEMA.with_metadata({"imagedbd": __version__, "model": model})
    try:
        with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
            for block in _blocks(rows):
                writer.write_table(_table(block, schema))
                written += len(block)
        if written:
            os.replace(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
    return written


def _blocks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    iterator = iter(rows)
    while block := list(islice(iterator, BLOCK)):
        yield block


def _table(rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = {name: [_value(row.get(name), kind) for row in rows] for name, kind in _FIELDS.items()}
    columns["taken_at"] = [_text(row.get("taken_at")) for row in rows]
    columns["path_bytes"] = [os.fsencode(row["path"]) for row in rows]
    columns["vector"] = [_vector(row.get("vector")) for row in rows]
    return pa.table(columns, schema=schema)


def _value(value: Any, kind: FieldType) -> Any:
    match kind:
        case FieldType.TEXT:
            return _text(value)
        case FieldType.DATE:
            return None if value is None else _moment(str(value))
        case FieldType.WORDS:
            return [_text(word) for word in value or ()]
    return value


def _text(value: Any) -> str | None:
    """What is no character (a byte of a name that is not UTF-8) becomes a replacement."""
    return None if value is None else str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _vector(data: str | None) -> Any:
    return None if data is None else np.frombuffer(base64.b64decode(data), dtype="<f4")
