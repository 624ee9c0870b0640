"""Which rows have a word: an inverted index over the ``text`` column, in memory, made anew at will."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class WordIndex:
    """Postings of a table that does not change.

    :param vocabulary: each word once.
    :param bounds: where the rows of a word begin and end in ``rows``; one number more than there are words.
    :param rows: row numbers, ascending within a word.
    """

    vocabulary: pa.StringArray
    bounds: NDArray[np.int64]
    rows: NDArray[np.int32]

    def rows_with(self, word: str) -> NDArray[np.int32]:
        """The rows whose text has this word, ascending."""
        place = pc.index(self.vocabulary, pa.scalar(word, pa.string())).as_py()
        return self.rows[:0] if place < 0 else self.rows[self.bounds[place] : self.bounds[place + 1]]


def index_words(texts: Any) -> WordIndex:
    """The index of a column of texts, whose words are separated by single spaces; rows count from 0."""
    words: Any = pc.split_pattern(texts, " ").combine_chunks()
    coded = words.flatten().dictionary_encode()
    codes = coded.indices.to_numpy()
    # Row numbers come out ascending within a word, because the sort is stable.
    order = np.argsort(codes, kind="stable")
    rows = pc.list_parent_indices(words).to_numpy()[order].astype(np.int32)
    bounds = np.zeros(len(coded.dictionary) + 1, dtype=np.int64)
    np.cumsum(np.bincount(codes, minlength=len(coded.dictionary)), out=bounds[1:])
    return WordIndex(coded.dictionary, bounds, rows)


def rows_with_word(texts: Any, word: str) -> NDArray[np.int32]:
    """The same by looking at every text: for few of them, which are not worth an index."""
    padded = pc.binary_join_element_wise("", texts, "", " ")
    return np.flatnonzero(pc.match_substring(padded, f" {word} ")).astype(np.int32)
