"""The index of vectors against comparing all of them."""

from __future__ import annotations

import io

import numpy as np
import pytest

from imagedbd.ranking import unit
from imagedbd.stores.vector_index import VectorIndex

DIMENSION = 24


def vectors(count, seed=0, clusters=20):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, DIMENSION))
    points = centres[rng.integers(clusters, size=count)] + 0.4 * rng.standard_normal((count, DIMENSION))
    return unit(points.astype(np.float32)).astype(np.float16)


def brute(codes, query, limit, among):
    scores = np.where(among, codes.astype(np.float32) @ query, -np.inf)
    return np.argsort(-scores, kind="stable")[: min(limit, int(among.sum()))]


@pytest.fixture(params=["exact", "approximate"])
def index(request):
    codes = vectors(3_000)
    codes[::7] = 0
    index = VectorIndex(DIMENSION, codes=codes)
    if request.param == "approximate":
        rows = np.flatnonzero(codes.any(axis=1))
        index.adopt(index.trained(rows), len(rows))
    return index


def present(index):
    return index.codes().any(axis=1)


def recall(index, among, limit=10):
    hits = wanted = 0
    for query in unit(vectors(40, seed=9)):
        found, _ = index.search(query, limit, among)
        expected = brute(index.codes(), query, limit, among)
        hits += len(set(found.tolist()) & set(expected.tolist()))
        wanted += len(expected)
    return hits / wanted


def test_the_vectors_come_back_to_the_last_bit(index):
    expected = vectors(3_000)
    expected[::7] = 0
    assert np.array_equal(index.codes(), expected)
    more = vectors(100, seed=5)
    index.append(more)
    assert np.array_equal(index.codes(), np.concatenate([expected, more]))


def test_what_is_found_is_what_comparing_all_finds(index):
    assert recall(index, present(index)) == (1.0 if not index.approximate else pytest.approx(1, abs=0.01))


@pytest.mark.parametrize("share", [0.5, 0.2, 0.04, 0.002])
def test_only_rows_that_take_part_are_found(index, share):
    among = present(index) & (np.random.default_rng(3).random(len(index)) < share)
    for query in unit(vectors(5, seed=8)):
        found, _ = index.search(query, 1_000, among)
        assert among[found].all()
        assert len(set(found.tolist())) == len(found)
    assert recall(index, among) >= 0.99


def test_an_exact_search_tells_the_last_similarity(index):
    query = unit(vectors(1, seed=4))[0]
    found, least = index.search(query, 10, present(index))
    if index.approximate:
        assert least is None
    else:
        assert least == pytest.approx(float(index.codes()[found[-1]].astype(np.float32) @ query), abs=1e-6)


def test_nobody_takes_part(index):
    found, _ = index.search(unit(vectors(1))[0], 10, np.zeros(len(index), dtype=bool))
    assert len(found) == 0


def test_added_rows_are_found_and_removed_ones_are_not(index):
    new = vectors(50, seed=77)
    start = len(index)
    index.append(new)
    among = present(index)
    for number in range(50):
        found, _ = index.search(unit(new[number]), 1, among)
        assert found[0] == start + number
    removed = np.arange(start, start + 50)
    index.remove(removed)
    among[removed] = False
    for number in range(50):
        found, _ = index.search(unit(new[number]), 5, among)
        assert not set(found.tolist()) & set(removed.tolist())


def test_removing_is_for_real():
    codes = vectors(1_000)
    index = VectorIndex(DIMENSION, codes=codes)
    index.adopt(index.trained(np.arange(1_000)), 1_000)
    index.remove(np.arange(0, 1_000, 2))
    index.remove(np.array([0, 2, 5_000]))  # those that are not there are no error
    buffer = io.BytesIO()
    index.write_approximate(buffer)
    assert index._ivf.ntotal == 500


def test_a_compacted_index_is_numbered_anew(index):
    removed = np.arange(0, 1_500)
    index.remove(removed)
    keep = np.arange(1_500, 3_000)
    made = index.compacted(keep)
    assert np.array_equal(made.codes(), index.codes()[keep])
    assert made.approximate == index.approximate
    assert recall(made, present(made)) >= 0.99
    new = vectors(3, seed=50)
    made.append(new)
    assert made.search(unit(new[1]), 1, present(made))[0][0] == 1_501


def test_an_approximate_index_survives_its_file(tmp_path):
    codes = vectors(2_000)
    index = VectorIndex(DIMENSION, codes=codes)
    index.adopt(index.trained(np.arange(2_000)), 2_000)
    with (tmp_path / "index").open("wb") as file:
        index.write_approximate(file)
    again = VectorIndex(DIMENSION, codes=codes)
    again.read_approximate(str(tmp_path / "index"), 2_000, 7)
    assert (again.trained_rows, again.added_rows) == (2_000, 7)
    assert recall(again, np.ones(2_000, dtype=bool)) >= 0.99
    again.append(vectors(10, seed=3))
    again.remove(np.array([1, 2, 3]))


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
def test_a_file_that_is_no_index_is_an_error(tmp_path, content):
    (tmp_path / "index").write_bytes(content)
    with pytest.raises(RuntimeError):
        VectorIndex(DIMENSION).read_approximate(str(tmp_path / "index"), 1, 0)


def test_an_index_of_another_dimension_is_an_error(tmp_path):
    other = VectorIndex(8, codes=np.eye(8, dtype=np.float16))
    other.adopt(other.trained(np.arange(8)), 8)
    with (tmp_path / "index").open("wb") as file:
        other.write_approximate(file)
    with pytest.raises(RuntimeError, match="dimensions"):
        VectorIndex(DIMENSION).read_approximate(str(tmp_path / "index"), 8, 0)


def test_what_a_condition_leaves_is_found_wherever_it_lies():
    """Photos are asked for, and only screenshots may be found: none of them is in the lists nearby."""
    rng = np.random.default_rng(0)
    here, there = np.zeros(DIMENSION), np.zeros(DIMENSION)
    here[0], there[1] = 1, 1
    near = unit((here + 0.1 * rng.standard_normal((2_500, DIMENSION))).astype(np.float32))
    far = unit((there + 0.1 * rng.standard_normal((4_000, DIMENSION))).astype(np.float32))
    index = VectorIndex(DIMENSION, codes=np.concatenate([near, far]).astype(np.float16))
    rows = np.arange(6_500)
    index.adopt(index.trained(rows), 6_500)
    for among in (rows >= 2_500, rows >= 4_000, rows < 2_500):
        query = near[0] if among[-1] else far[0]
        found, _ = index.search(query, 50, among)
        assert set(found.tolist()) == set(brute(index.codes(), query, 50, among).tolist())
