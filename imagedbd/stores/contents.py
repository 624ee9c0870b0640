"""What the faiss store holds in memory: rows that never change, and which of them are alive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .frame import RecordFrame, has_vector, ids_of
from .masks import mask
from .rows import table_schema
from .word_index import WordIndex, index_words, rows_with_word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from imagedbd.datatypes import Condition

    from .entries import Entry


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What a reader sees.

    :param alive: for each row of the frame, whether it is there still.
    :param vectored: whether it is alive and has a vector.
    :param words: an index over the first rows …
    :param worded: … and over how many.
    """

    frame: RecordFrame
    alive: NDArray[np.bool_]
    vectored: NDArray[np.bool_]
    words: WordIndex
    worded: int

    def selected(self, condition: Condition | None) -> NDArray[np.bool_]:
        """For each row, whether it is alive and meets the condition."""
        return self.alive if condition is None else self.alive & mask(condition, self.frame.table)

    def rows_with(self, word: str) -> NDArray[np.int32]:
        """The living rows whose text has this word."""
        indexed = self.words.rows_with(word)
        fresh = rows_with_word(self.frame.table["text"].slice(self.worded), word)
        found: NDArray[np.int32] = np.concatenate([indexed, fresh + np.int32(self.worded)])
        living: NDArray[np.int32] = found[self.alive[found]]
        return living

    def lengths(self) -> tuple[int, float]:
        """How many rows there are, and how many words their texts have on average."""
        rows = int(np.count_nonzero(self.alive))
        counts = self.frame.table["word_count"].to_numpy()
        return rows, int(counts[self.alive].sum()) / rows if rows else 0.0

    def grown(self, rows: pa.Table, dead: NDArray[np.int64]) -> Contents:
        """With these rows more, and then with those that are dead no longer alive."""
        alive = np.concatenate([self.alive, np.ones(rows.num_rows, dtype=bool)])
        vectored = np.concatenate([self.vectored, has_vector(rows)])
        alive[dead] = vectored[dead] = False
        frame = self.frame.append(rows) if rows.num_rows else self.frame
        return replace(self, frame=frame, alive=alive, vectored=vectored)


def whole(frame: RecordFrame) -> tuple[Contents, dict[str, int]]:
    """Contents whose rows are all alive, and the row of each id."""
    contents = Contents(
        frame,
        alive=np.ones(len(frame), dtype=bool),
        vectored=has_vector(frame.table),
        words=index_words(frame.table["text"]),
        worded=len(frame),
    )
    return contents, dict(zip(ids_of(frame.table), range(len(frame)), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What batches make of the contents.

    :param contents: the new ones.
    :param codes: the vectors of the rows that are added, shape ``(n, dimension)``; zeros for none.
    :param rows: the new row of each id that changed; ``None`` for one that is gone.
    :param dead: rows that are no longer alive, old ones and such as came and went.
    """

    contents: Contents
    codes: NDArray[np.float16]
    rows: Mapping[str, int | None]
    dead: NDArray[np.int64]


class Draft:
    """Works out what some batches, one after the other, make of the contents, before anybody sees it.

    :param rows: the row of each id that is there.
    :param codes: the vectors of the rows that are there.
    """

    def __init__(
        self,
        contents: Contents,
        rows: Mapping[str, int],
        codes: NDArray[np.float16],
        dimension: int | None,
    ) -> None:
        self._contents = contents
        self._held_rows = rows
        self._held_codes = codes
        self._dimension = dimension
        self._start = len(contents.frame)
        self._nothing = np.zeros(dimension or 0, dtype=np.float16)
        self._tables: list[pa.Table] = []
        self._codes: list[NDArray[np.float16]] = []
        self._rows: dict[str, int | None] = {}
        self._dead: list[int] = []

    def add(self, entry: Entry) -> None:
        brought = iter(entry.codes)
        for key, brings, patched in zip(
            ids_of(entry.rows), entry.brings_vector(), entry.patched, strict=True
        ):
            former = self._bury(key)
            kept = self._code(former) if patched and former is not None else self._nothing
            self._rows[key] = self._start + len(self._codes)
            self._codes.append(next(brought) if brings else kept)
        for key in entry.deletes:
            if self._bury(key) is not None:
                self._rows[key] = None
        self._tables.append(entry.rows)

    def change(self) -> Change:
        dead = np.array(self._dead, dtype=np.int64)
        contents = self._contents.grown(
            pa.concat_tables([table_schema(None).empty_table(), *self._tables]), dead
        )
        return Change(contents, stacked(self._codes, self._dimension), self._rows, dead)

    def _bury(self, key: str) -> int | None:
        """The row that this id has so far, which dies now."""
        former = self._rows[key] if key in self._rows else self._held_rows.get(key)
        if former is not None:
            self._dead.append(former)
        return former

    def _code(self, row: int) -> NDArray[np.float16]:
        if self._dimension is None:
            return self._nothing
        # A copy: the index may move what it holds when it grows.
        return self._held_codes[row].copy() if row < self._start else self._codes[row - self._start]


def stacked(codes: Sequence[NDArray[np.float16]], dimension: int | None) -> NDArray[np.float16]:
    """Vectors as one array, shape ``(n, dimension)``."""
    return np.stack(codes) if codes else np.empty((0, dimension or 0), dtype=np.float16)
