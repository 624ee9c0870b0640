"""LanceDB's approximate index: made when it pays, as good as comparing with every vector, and kept up."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from store_rows import MODEL, record

from imagedbd.datatypes import Batch, Compare, StoredPicture
from imagedbd.stores import lance, open_store

pytestmark = pytest.mark.in_memory


def clustered(rows, dimension, seed=0):
    """Unit vectors in clusters of about two hundred, as pictures of the same things are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((max(2, rows // 200), dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    noise = rng.standard_normal((rows, dimension)) * (0.7 / np.sqrt(dimension))
    vectors = (centres[rng.integers(len(centres), size=rows)] + noise).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(folder, vectors):
    """A store of these vectors; each row's width is its number modulo 100."""
    store = open_store("lance", os.fspath(folder), exclusive=True)
    store.bind(replace(MODEL, dimension=vectors.shape[1]))
    for start in range(0, len(vectors), 2_000):
        put(store, vectors, range(start, min(start + 2_000, len(vectors))))
    return store


def put(store, vectors, numbers):
    rows = (StoredPicture(record(f"{n}", mark=n % 100), vectors[n]) for n in numbers)
    store.apply(Batch(upserts=tuple(rows)))


def recall(store, vectors, queries, condition=None, allowed=None):
    """How many of the ten most similar rows are found, of those that comparing with every vector finds."""
    similarities = queries @ vectors.astype(np.float16).astype(np.float32).T
    if allowed is not None:
        similarities[:, ~allowed] = -2
    best = np.argsort(-similarities, axis=1)[:, :10]
    hits = 0
    for query, expected in zip(queries, best, strict=True):
        found = {int(m.id) for m in store.nearest(query, 10, condition)}
        hits += len(found.intersection(expected.tolist()))
    return hits / best.size


def index(store):
    name = lance._vector_index(store._table)
    return None if name is None else store._table.index_stats(name)


@pytest.fixture
def indexed_from(monkeypatch):
    return lambda rows: monkeypatch.setattr(lance, "INDEX_FROM", rows)


def test_few_vectors_have_no_index(tmp_path, indexed_from):
    indexed_from(301)
    vectors = clustered(301, 32)
    store = made(tmp_path, vectors[:300])
    store.maintain(idle=True)
    assert index(store) is None
    put(store, vectors, [300])
    for n in range(8):
        put(store, vectors, [n])
    store.maintain(idle=True)
    assert index(store).index_type == "IVF_SQ"
    store.close()


def test_an_index_finds_what_comparing_with_every_vector_finds(tmp_path, indexed_from):
    indexed_from(1_000)
    vectors, queries = clustered(3_000, 64), clustered(50, 64, seed=1)
    store = made(tmp_path, vectors)
    store.maintain(idle=True)
    assert index(store).num_indexed_rows == 3_000
    assert recall(store, vectors, queries) >= 0.99
    numbers = np.arange(3_000) % 100
    assert recall(store, vectors, queries, Compare("width", "<", 50), numbers < 50) >= 0.99
    assert recall(store, vectors, queries, Compare("width", "=", 7), numbers == 7) >= 0.99
    again = open_store("lance", os.fspath(tmp_path))
    assert again._indexed
    assert recall(again, vectors, queries) >= 0.99
    again.close()
    store.close()


def test_scores_are_exact_and_equals_ordered_by_path(tmp_path, indexed_from):
    indexed_from(100)
    vectors = clustered(500, 32)
    store = made(tmp_path, np.concatenate([vectors, vectors[:1], vectors[:1]]))
    store.maintain(idle=True)
    first, *rest = store.nearest(vectors[0], 3)
    assert {m.id for m in (first, *rest)} == {"0", "500", "501"}
    assert [m.path for m in (first, *rest)] == ["/photos/0.jpg", "/photos/500.jpg", "/photos/501.jpg"]
    assert first.score == pytest.approx(1, abs=1e-6)
    assert len({m.score for m in (first, *rest)}) == 1
    store.close()


def test_rows_that_are_not_in_the_index_yet_are_found(tmp_path, indexed_from):
    indexed_from(100)
    vectors = clustered(600, 32)
    store = made(tmp_path, vectors[:500])
    store.maintain(idle=True)
    put(store, vectors, range(500, 600))
    store.apply(Batch(deletes=tuple(str(n) for n in range(50)), patches=(record("60", mark=-1),)))
    for n in (60, 499, 500, 550, 599):
        assert store.nearest(vectors[n], 1)[0].id == str(n)
    gone = {str(n) for n in range(50)}
    assert not gone.intersection(m.id for m in store.nearest(vectors[3], 550))
    assert len(store.nearest(vectors[3], 1_000)) == 550
    store.close()


def test_parts_do_not_pile_up(tmp_path, indexed_from):
    indexed_from(100)
    vectors = clustered(1_500, 32)
    store = made(tmp_path, vectors[:1_000])
    store.maintain(idle=True)
    for start in range(1_000, 1_500, 10):
        put(store, vectors, range(start, start + 10))
        store.maintain(idle=True)
        known = index(store)
        assert known.num_indices <= lance._INDEX_PARTS
        assert known.num_unindexed_rows <= 100
    assert recall(store, vectors, clustered(20, 32, seed=2)) >= 0.99
    store.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_recall_on_a_hundred_thousand_vectors(tmp_path):
    vectors, queries = clustered(100_000, 512), clustered(200, 512, seed=1)
    store = made(tmp_path, vectors)
    began = time.perf_counter()
    store.maintain(idle=True)
    print(f"maintenance with the index built: {time.perf_counter() - began:.1f} s")
    assert index(store).num_indexed_rows == 100_000
    numbers = np.arange(100_000) % 100
    for condition, allowed in (
        (None, None),
        (Compare("width", "<", 50), numbers < 50),
        (Compare("width", "<", 3), numbers < 3),
    ):
        began = time.perf_counter()
        found = recall(store, vectors, queries, condition, allowed)
        print(f"{condition}: recall {found:.4f}, {(time.perf_counter() - began) / len(queries) * 1e3:.1f} ms")
        assert found >= 0.99
    print(store.stats())
    store.close()
    began = time.perf_counter()
    open_store("lance", os.fspath(tmp_path), exclusive=True).close()
    opened_s = time.perf_counter() - began
    print(f"opened in {opened_s:.3f} s")
    assert opened_s < 1


def test_an_index_stays_in_memory_however_large_it_has_become(tmp_path, indexed_from, monkeypatch):
    indexed_from(1_000)
    monkeypatch.setattr(lance, "CACHE_BYTES", 4_096)
    vectors = clustered(20_000, 64)
    store = made(tmp_path, vectors)
    store.maintain(idle=True)
    again = open_store("lance", os.fspath(tmp_path))
    for opened in (store, again):
        assert parts_loaded(opened, vectors[0]) > 0
        assert parts_loaded(opened, vectors[0]) == 0
        opened.close()


def parts_loaded(store, vector):
    """How many partitions of the index one search reads from the disk."""
    plan = store._table.search(vector, vector_column_name="vector").limit(10).analyze_plan()
    return sum(int(number) for number in re.findall(r"parts_loaded=(\d+)", plan))
