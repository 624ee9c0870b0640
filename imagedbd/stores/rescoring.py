"""How the candidates of any engine become the same answer: rescored alike, in one order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imagedbd.datatypes import Match
from imagedbd.ranking import bm25, cosines

from .rows import places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from imagedbd.datatypes import Vector

_SPARE: Final = 32
"""Candidates beyond the limit that a vector search asks an engine for at first."""

_SLACK: Final = 2e-3
"""How far an engine's similarity may be off: it may compute with a query rounded to float16 (at most 5e-4)
and with stored vectors whose lengths rounding has changed by as much."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The rows that an engine holds for the most similar ones.

    :param rows: as many as were asked for, or all that there are; with what :func:`places` needs.
    :param vectors: theirs, as stored, shape ``(n, dimension)``.
    :param least: the engine's own similarity for the last of them; ``None`` if it promises nothing about
        those that it left out, as an approximate index does.
    """

    rows: pa.Table
    vectors: NDArray[np.floating[Any]]
    least: float | None


@dataclass(frozen=True, slots=True)
class TextStatistics:
    """What BM25 needs to know of all texts of a store.

    :param frequencies: for each word of the query, in how many rows it occurs.
    """

    rows: int
    mean_length: float
    frequencies: tuple[int, ...]


def most_similar(ask: Callable[[int], Candidates], query: Vector, limit: int) -> list[Match]:
    """Ask an engine for ever more candidates, until none that it left out can be among the best."""
    wanted = limit + _SPARE
    while True:
        found = ask(wanted)
        similarities = cosines(found.vectors, query)
        if found.rows.num_rows < wanted or _settled(similarities, found.least, limit):
            return _best(found.rows, similarities, limit)
        wanted *= 4


def _settled(similarities: NDArray[np.float32], least: float | None, limit: int) -> bool:
    """Whether every row that the engine left out is surely worse than the last of the best."""
    return least is None or bool(np.sort(similarities)[-limit] > least + _SLACK)


def _best(rows: pa.Table, similarities: NDArray[np.float32], limit: int) -> list[Match]:
    scored = rows.append_column("similarity", pa.array(similarities))
    best = first(scored, limit, [("similarity", "descending"), ("path_bytes", "ascending")])
    scores = best["similarity"].to_pylist()
    return [Match(*place, score) for place, score in zip(places(best), scores, strict=True)]


def best_worded(matching: Any, limit: int) -> Any:
    """Of rows that have all of a query's words, those that score best: the fewer words, the higher.

    :param matching: an Arrow table with ``word_count`` and ``path_bytes``.
    """
    return first(matching, limit, [("word_count", "ascending"), ("path_bytes", "ascending")])


def scores_by_length(lengths: Sequence[int], known: TextStatistics) -> Mapping[int, float]:
    """The BM25 score of texts that have all of the words, by how many words they have."""
    return {
        length: bm25(known.frequencies, rows=known.rows, length=length, mean_length=known.mean_length)
        for length in set(lengths)
    }


def first(table: Any, limit: int, order: list[tuple[str, Literal["ascending", "descending"]]]) -> Any:
    """The rows that come first in an order, in that order."""
    return table.take(pc.select_k_unstable(table, min(limit, table.num_rows), order))
