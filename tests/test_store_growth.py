"""Many small writes, and what they leave: hardly more on the disk than the rows; no slower search."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from store_rows import MODEL, picture, vector

from imagedbd.datatypes import Batch
from imagedbd.stores import KINDS, open_store

pytestmark = pytest.mark.in_memory

QUERIES = 200


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def timed(action):
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3


def search_p95(store):
    """In milliseconds."""
    return float(np.percentile([timed(lambda n=n: store.nearest(vector(n), 10)) for n in range(QUERIES)], 95))


def rewritten(kind, folder, store):
    """A new store with the same rows."""
    fresh = open_store(kind, folder, exclusive=True)
    fresh.bind(MODEL)
    fresh.apply(Batch(upserts=tuple(store.pictures())))
    fresh.maintain(idle=True)
    return fresh


def grown(kind, folder, writes, rows):
    """A store of some rows that were written one at a time, over and over."""
    store = open_store(kind, folder, exclusive=True)
    store.bind(MODEL)
    rng = np.random.default_rng(0)
    times = []
    for number in range(writes):
        key = f"p{rng.integers(rows)}"
        row = picture(key, number, mark=number)
        times.append(timed(lambda row=row: store.apply(Batch(upserts=(row,)))))
        store.maintain()
    store.maintain(idle=True)
    p50, p95 = np.percentile(times, (50, 95))
    print(f"{kind}: a write takes {p50:.1f} ms, at p95 {p95:.1f} ms")
    return store


def compare(store, fresh):
    size, fresh_size = store.stats().bytes_on_disk, fresh.stats().bytes_on_disk
    slow, fresh_slow = search_p95(store), search_p95(fresh)
    print(f"{size:,} bytes, written anew {fresh_size:,}; searches p95 {slow:.1f} ms, {fresh_slow:.1f} ms")
    return size / fresh_size, slow / fresh_slow


@pytest.mark.parametrize(
    ("kind", "writes", "rows"), [("lance", 80, 40), ("faiss", 120, 40), ("faiss", 30, 3)]
)
def test_a_store_does_not_grow_with_its_writes(kind, tmp_path, writes, rows):
    store = grown(kind, os.fspath(tmp_path / "old"), writes, rows)
    fresh = rewritten(kind, os.fspath(tmp_path / "new"), store)
    growth, _ = compare(store, fresh)
    assert growth <= 2
    assert {r.id for r in store.scan()} == {r.id for r in fresh.scan()}
    store.close()
    fresh.close()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("indexed", [False, True])
def test_ten_thousand_writes_neither_grow_nor_slow_a_store(kind, tmp_path, monkeypatch, indexed):
    if indexed:
        monkeypatch.setattr(f"imagedbd.stores.{kind}.INDEX_FROM", 1_000)
    store = grown(kind, os.fspath(tmp_path / "old"), 10_000, 5_000)
    fresh = rewritten(kind, os.fspath(tmp_path / "new"), store)
    growth, slowing = compare(store, fresh)
    assert growth <= 2
    assert slowing <= 2
    store.close()
    fresh.close()
