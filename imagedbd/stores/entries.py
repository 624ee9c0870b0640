"""What the faiss store writes into its journal: one batch, as rows."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from .frame import has_vector
from .rows import table_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTHS: Final = struct.Struct("<II")


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One batch.

    :param rows: those that it writes, upserts and patches.
    :param patched: for each of them, whether it keeps the vector that its id has.
    :param codes: the vectors of the others that have one, in their order; shape ``(n, dimension)``.
    :param deletes: ids.
    """

    rows: pa.Table
    patched: tuple[bool, ...]
    codes: NDArray[np.float16]
    deletes: tuple[str, ...]

    def brings_vector(self) -> NDArray[np.bool_]:
        """For each row, whether its vector is among the codes."""
        present: NDArray[np.bool_] = has_vector(self.rows) & ~np.array(self.patched, dtype=bool)
        return present


def encode(entry: Entry) -> bytes:
    """The entry as bytes: two lengths, JSON, an Arrow record batch without its schema, and the codes."""
    head = json.dumps({"patched": entry.patched, "deletes": entry.deletes}).encode("ascii")
    batch = entry.rows.combine_chunks().to_batches()[0] if entry.rows.num_rows else None
    rows = batch.serialize().to_pybytes() if batch is not None else b""
    return _LENGTHS.pack(len(head), len(rows)) + head + rows + entry.codes.astype("<f2").tobytes()


def decode(payload: memoryview, dimension: int | None) -> Entry:
    """What :func:`encode` wrote.

    :raises ValueError: if it makes no sense.
    :raises pyarrow.ArrowException: likewise.
    """
    head_length, rows_length = _LENGTHS.unpack_from(payload)
    rows_start = _LENGTHS.size + head_length
    head: dict[str, Any] = json.loads(bytes(payload[_LENGTHS.size : rows_start]))
    rows = _rows(payload[rows_start : rows_start + rows_length])
    codes = np.frombuffer(payload[rows_start + rows_length :], dtype="<f2")
    shaped = codes.reshape(-1, dimension) if dimension else codes.reshape(0, 0)
    return Entry(rows, tuple(head["patched"]), shaped, tuple(head["deletes"]))


def _rows(data: memoryview) -> pa.Table:
    schema = table_schema(None)
    if not data:
        return schema.empty_table()
    # A copy, so that a few rows do not keep a whole journal in memory.
    batch = pa.ipc.read_record_batch(pa.py_buffer(bytes(data)), schema)
    batch.validate(full=True)
    return pa.Table.from_batches([batch])
