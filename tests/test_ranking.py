from __future__ import annotations

import os

import numpy as np
import pytest

from imagedbd.datatypes import Match
from imagedbd.ranking import bm25, cosines, fuse, unit


def match(path, score=0.0):
    return Match(path, path, score)


def paths(matches):
    return [m.path for m in matches]


def test_cosines_are_between_directions_whatever_the_lengths():
    vectors = np.array([[2, 0], [0, 0.5], [-3, 0], [1, 1]], dtype=np.float16)
    assert cosines(vectors, np.array([10, 0], np.float32)) == pytest.approx([1, 0, -1, 0.5**0.5])


def test_a_row_scores_the_same_whatever_stands_beside_it():
    vectors = np.random.default_rng(0).standard_normal((1_000, 512)).astype(np.float16)
    together = cosines(vectors, vectors[0].astype(np.float32))
    for n in range(0, 1_000, 97):
        assert cosines(vectors[n : n + 1], vectors[0].astype(np.float32))[0] == together[n]


def test_a_row_scores_the_same_however_it_lies_in_memory():
    rows = np.random.default_rng(0).standard_normal((100, 512)).astype(np.float16)
    query = rows[0].astype(np.float32)
    for same in (
        np.asfortranarray(rows),
        np.asfortranarray(rows.astype(np.float32)),
        np.repeat(rows, 2, 1)[:, ::2],
    ):
        assert (cosines(same, query) == cosines(rows, query)).all()


def test_a_zero_vector_is_like_nothing():
    assert cosines(np.zeros((1, 4), np.float32), np.ones(4, np.float32))[0] == 0
    assert unit(np.zeros(4, np.float32)).tolist() == [0, 0, 0, 0]


def test_bm25_is_okapis():
    idf = np.log(1 + (100 - 5 + 0.5) / (5 + 0.5))
    expected = idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 12 / 8))
    assert bm25([5], rows=100, length=12, mean_length=8.0) == pytest.approx(expected)


def test_bm25_grows_with_rare_words_and_falls_with_length():
    def score(frequencies=(5,), length=10):
        return bm25(frequencies, rows=100, length=length, mean_length=10.0)

    assert score((1,)) > score((50,)) > score((100,)) > 0
    assert score(length=5) > score(length=10) > score(length=50)
    assert score((5, 5)) == pytest.approx(2 * score((5,)))


def test_bm25_bears_an_empty_store_and_counts_of_different_moments():
    assert bm25([1], rows=0, length=0, mean_length=0.0) > 0
    assert bm25([11], rows=10, length=1, mean_length=1.0) > 0


def test_fusing_sums_reciprocal_ranks():
    fused = fuse([[match("a"), match("b")], [match("b"), match("c")]])
    assert paths(fused) == ["b", "a", "c"]
    assert [m.score for m in fused] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])


def test_equal_scores_are_ordered_by_the_bytes_of_the_path():
    odd = os.fsdecode(b"/\xff")
    fused = fuse([[match("/é")], [match(odd)], [match("/z")], [match("/\U0001f600")]])
    assert paths(fused) == ["/z", "/é", "/\U0001f600", odd]


def test_weights_favour_a_ranking():
    first, second = [match("a")], [match("b")]
    assert paths(fuse([first, second], weights=[1, 2])) == ["b", "a"]
    assert paths(fuse([first, second], weights=[2, 1])) == ["a", "b"]


def test_fusing_nothing_gives_nothing():
    assert fuse([]) == []
    assert fuse([[], []]) == []
