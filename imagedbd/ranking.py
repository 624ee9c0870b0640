"""How candidates are scored and rankings are fused: the same for every store.

Stores find candidates in their own ways; what decides their order is computed here, so that two stores
that hold the same pictures answer alike.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from .datatypes import Match, Vector

RECIPROCAL_RANK_K: Final = 60
"""How little the first places of a ranking outweigh the next ones, in :func:`fuse`."""

_BM25_K1 = 1.2
_BM25_B = 0.75


def cosines(vectors: NDArray[np.floating[Any]], query: Vector) -> NDArray[np.float32]:
    """Cosine similarities of vectors, shape ``(n, dimension)``, with a query; in float32, shape ``(n,)``.

    Lengths are taken out, so that what rounding did to a stored vector's length does not count. Each row
    is summed on its own: equal vectors score equal to the last bit, whatever stands beside them and however
    they lie in memory.
    """
    sums: NDArray[np.float32] = (unit(vectors) * unit(query)).sum(axis=-1, dtype=np.float32)
    return sums


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The vectors as float32 of length one, along the last axis; a zero vector stays what it is."""
    wide = np.asarray(vectors, dtype=np.float32, order="C")  # sums depend on the order of memory
    lengths = np.sqrt((wide * wide).sum(axis=-1, keepdims=True, dtype=np.float32))
    shortened: NDArray[np.float32] = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    return shortened


def bm25(frequencies: Sequence[int], *, rows: int, length: int, mean_length: float) -> float:
    """Okapi BM25 of a text that has all of the words of a query, each of them once.

    Texts list each word once, so that how often a word occurs in one says nothing: among the pictures
    that have all the words, those with the fewest others come first.

    :param frequencies: for each word, in how many rows it occurs.
    :param rows: rows in the store.
    :param length: words in this text.
    :param mean_length: words in a text of the store, on average.
    """
    relative = length / mean_length if mean_length > 0 else 1.0
    weight = (_BM25_K1 + 1) / (1 + _BM25_K1 * (1 - _BM25_B + _BM25_B * relative))
    return weight * sum(_rarity(frequency, rows) for frequency in frequencies)


def _rarity(frequency: int, rows: int) -> float:
    known = min(frequency, rows)  # the two may have been counted a commit apart
    return math.log1p((rows - known + 0.5) / (known + 0.5))


def fuse(
    rankings: Sequence[Sequence[Match]],
    *,
    weights: Sequence[float] | None = None,
    k: int = RECIPROCAL_RANK_K,
) -> list[Match]:
    """Reciprocal rank fusion: everything that any ranking has, each once, best first.

    A picture gets ``weight / (k + rank)`` from each ranking that it is in, where ranks count from 1; the
    sum is its score. Equal scores are ordered by the bytes of the path.

    :param weights: one above 0 for each ranking; all 1 if not given.
    """
    fused: dict[str, Match] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, match in enumerate(ranking, start=1):
            known = fused.get(match.id) or replace(match, score=0.0)
            fused[match.id] = replace(known, score=known.score + weight / (k + rank))
    return best_first(fused.values())


def best_first(matches: Iterable[Match]) -> list[Match]:
    """The highest scores first; equal ones by the bytes of the path."""
    return sorted(matches, key=lambda match: (-match.score, os.fsencode(match.path)))
