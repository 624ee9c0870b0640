from __future__ import annotations

import random

import pyarrow as pa
import pytest

from imagedbd.stores.word_index import index_words, rows_with_word

VOCABULARY = ["a", "ab", "abc", "b", "日本", "ｘ", "zürich", "001", "1", "x" * 300]


def texts(seed, rows, chunks):
    rng = random.Random(seed)
    made = [" ".join(rng.sample(VOCABULARY, rng.randint(0, 5))) for _ in range(rows)]
    size = max(1, rows // chunks)
    return made, pa.chunked_array([made[n : n + size] for n in range(0, rows, size)], type=pa.string())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("chunks", [1, 7])
def test_both_ways_find_the_rows_that_splitting_finds(seed, chunks):
    made, column = texts(seed, 200, chunks)
    index = index_words(column)
    for word in [*VOCABULARY, "missing", "a b", "%", ""]:
        expected = [row for row, text in enumerate(made) if word and word in text.split(" ")]
        if word and " " not in word:
            assert index.rows_with(word).tolist() == expected
            assert rows_with_word(column, word).tolist() == expected


def test_no_rows_have_no_words():
    column = pa.chunked_array([], type=pa.string())
    assert index_words(column).rows_with("a").tolist() == []
    assert rows_with_word(column, "a").tolist() == []
