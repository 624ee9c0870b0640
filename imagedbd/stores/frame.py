"""The records of the faiss store: a pandas data frame that only grows, seen as an Arrow table as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .rows import HAS_VECTOR, table_schema

if TYPE_CHECKING:
    from typing import BinaryIO

    from numpy.typing import NDArray

ROW_GROUP: Final = 8_192
"""Rows of a Parquet file that stand or fall together."""

_FRESH_FRAMES: Final = 32
"""Small frames beside the large one, each of which slows every look at the whole."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordFrame:
    """Rows numbered from 0, which never change: appending gives a new value that shares what is there.

    :param frames: the rows as pandas has them, Arrow beneath: a large frame and then small ones.
    :param table: the same rows and the same memory, as masks and records want them.
    """

    frames: tuple[pd.DataFrame, ...]
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def append(self, rows: pa.Table) -> RecordFrame:
        """These rows behind those that are there."""
        frames = (*self.frames, _frame(rows))
        if len(frames) <= _FRESH_FRAMES:
            return RecordFrame(frames, pa.concat_tables([self.table, rows]))
        large, *small = frames
        # Small ones grow together among themselves: the large frame is too large to be copied each time.
        merged = pd.concat(small, ignore_index=True)
        return RecordFrame((large, merged), pa.concat_tables([_table(large), _table(merged)]))

    def take(self, rows: NDArray[np.integer[Any]], columns: list[str]) -> pa.Table:
        """These rows in this order, with these columns."""
        return self.table.select(columns).take(pa.array(rows))

    def compacted(self, rows: NDArray[np.integer[Any]]) -> RecordFrame:
        """A frame of these rows alone, numbered anew in their order."""
        return frame_of(self.table.take(pa.array(rows)))

    def rows_of_content(self, content_hash: str) -> NDArray[np.int64]:
        wanted = pa.scalar(content_hash, pa.string())
        return np.flatnonzero(_bools(pc.equal(self.table["content_hash"], wanted)))

    def write(self, file: BinaryIO) -> None:
        """As Parquet, with a checksum for each page.

        :raises OSError: if the disk refuses.
        """
        frame = self.frames[0] if len(self.frames) == 1 else pd.concat(self.frames, ignore_index=True)
        frame.to_parquet(
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
    return RecordFrame((_frame(whole),), whole)


def empty_frame() -> RecordFrame:
    return frame_of(table_schema(None).empty_table())


def read_frame(path: str) -> RecordFrame:
    """What :meth:`RecordFrame.write` wrote.

    :raises OSError: if it cannot be read.
    :raises pyarrow.ArrowException: if it is no such file.
    """
    frame = pd.read_parquet(path, dtype_backend="pyarrow")
    return frame_of(_table(frame))


def _frame(rows: pa.Table) -> pd.DataFrame:
    return rows.to_pandas(types_mapper=pd.ArrowDtype)


def _table(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, schema=table_schema(None), preserve_index=False)
    return table.replace_schema_metadata(None)


def _bools(column: Any) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = column.fill_null(pa.scalar(False)).to_numpy().astype(bool)  # noqa: FBT003 - a value
    return values
