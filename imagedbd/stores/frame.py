"""The records of the faiss store: a pandas data frame, and what was appended to it since, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .rows import HAS_VECTOR, table_schema

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import BinaryIO

    from numpy.typing import NDArray

ROW_GROUP: Final = 8_192
"""Rows of a Parquet file that stand or fall together."""

_MOST_CHUNKS: Final = 32
"""Pieces of a column, each of which slows every look at the whole."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordFrame:
    """Rows numbered from 0, which never change: appending gives a new value that shares what is there.

    :param frame: the rows of the last snapshot as pandas has them, Arrow beneath.
    :param table: the same memory as masks and records want it, and behind it the rows that came since.
    """

    frame: pd.DataFrame
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def append(self, rows: pa.Table) -> RecordFrame:
        """These rows behind those that are there."""
        table = pa.concat_tables([self.table, rows])
        if table["id"].num_chunks > _MOST_CHUNKS:
            # They grow together among themselves: the frame is too large to be copied each time.
            fresh = table.slice(len(self.frame)).combine_chunks()
            table = pa.concat_tables([table.slice(0, len(self.frame)), fresh])
        return RecordFrame(self.frame, table)

    def take(self, rows: NDArray[np.integer[Any]], columns: list[str]) -> pa.Table:
        """These rows in this order, with these columns."""
        return self.table.select(columns).take(pa.array(rows))

    def compacted(self, rows: NDArray[np.integer[Any]]) -> RecordFrame:
        """A frame of these rows alone, numbered anew in their order."""
        return frame_of(self.table.take(pa.array(rows)))

    def rows_of_content(self, content_hash: str) -> NDArray[np.int64]:
        wanted = pa.scalar(content_hash, pa.string())
        return np.flatnonzero(_bools(pc.equal(self.table["content_hash"], wanted)))

    def rows_of_contents(self, content_hashes: Collection[str]) -> NDArray[np.int64]:
        wanted = pa.array(list(content_hashes), pa.string())
        return np.flatnonzero(_bools(pc.is_in(self.table["content_hash"], value_set=wanted)))

    def write(self, file: BinaryIO) -> None:
        """As Parquet, with a checksum for each page; a frame in one piece, as :meth:`compacted` gives it.

        :raises OSError: if the disk refuses.
        """
        self.frame.to_parquet(
            file, index=False, row_group_size=ROW_GROUP, compression="zstd", write_page_checksum=True
        )


def ids_of(rows: pa.Table) -> list[str]:
    ids: list[Any] = rows["id"].to_pylist()
    return ids


def has_vector(rows: pa.Table) -> NDArray[np.bool_]:
    """For each row, whether it has a vector."""
    return _bools(rows[HAS_VECTOR])


def frame_of(rows: pa.Table) -> RecordFrame:
    """A frame of these rows, in one piece."""
    whole = rows.combine_chunks()
    return RecordFrame(whole.to_pandas(types_mapper=pd.ArrowDtype), whole)


def empty_frame() -> RecordFrame:
    return frame_of(table_schema(None).empty_table())


def read_frame(path: str) -> RecordFrame:
    """What :meth:`RecordFrame.write` wrote.

    :raises OSError: if it cannot be read.
    :raises pyarrow.ArrowException: if it is no such file.
    """
    frame = pd.read_parquet(path, dtype_backend="pyarrow")
    return frame_of(_table(frame))


def _table(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, schema=table_schema(None), preserve_index=False)
    return table.replace_schema_metadata(None)


def _bools(column: Any) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = column.fill_null(pa.scalar(False)).to_numpy().astype(bool)  # noqa: FBT003 - a value
    return values
