"""Searches of all kinds beside a writer that writes, deletes and compacts: none fails or sees half of it."""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest
from store_rows import MODEL, picture, record, vector

from imagedbd.datatypes import Batch, Like
from imagedbd.stores import KINDS, open_store

pytestmark = pytest.mark.in_memory

GROUP = 8
"""The rows that each batch marks alike."""

CHURN = 40
"""Rows that come and go."""


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def batch(number):
    """All of the group gets the same mark, in its path too, and some of the rows around it come or go."""
    churned = [f"c{(number * 7 + n) % CHURN}" for n in range(6)]
    upserts = [picture(f"g{n}", n + 1, path=marked(n, number)) for n in range(0, GROUP, 2)]
    patches = [record(f"g{n}", path=marked(n, number)) for n in range(1, GROUP, 2)]
    upserts += [picture(key, number + 100, mark=-1) for key in churned[:3]]
    return Batch(tuple(upserts), tuple(patches), tuple(churned[3:]))


def marked(n, mark):
    return f"/{mark}/g{n}.jpg"


def group(rows):
    """The paths of the group, of records or matches."""
    return [row.path for row in rows if row.id.startswith("g")]


READS = {
    "scan": lambda store: group(store.scan()),
    "pictures": lambda store: group(p.record for p in store.pictures()),
    "get": lambda store: group(p.record for p in store.get([f"g{n}" for n in range(GROUP)])),
    "nearest": lambda store: group(store.nearest(vector(3), 1_000)),
    "nearest of some": lambda store: group(store.nearest(vector(3), 1_000, Like("path", "%/g%"))),
    "words": lambda store: group(store.matching(["dog"], 1_000)),
}


def keep_reading(look, store, done, counts, faults):
    name, read = look
    while not done.is_set():
        try:
            found = read(store)
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            faults.append((name, repr(error)))
            return
        counts[name] += 1
        marks = {path.split("/")[1] for path in found}
        if len(found) != GROUP or len(marks) != 1:
            faults.append((name, len(found), marks))


def churn(kind, folder, batches):
    store = open_store(kind, folder, exclusive=True)
    store.bind(MODEL)
    first = tuple(picture(f"g{n}", n + 1, path=marked(n, 0)) for n in range(GROUP))
    store.apply(Batch((*first, *(picture(f"c{n}", n + 50, mark=-1) for n in range(CHURN)))))
    done, counts, faults = threading.Event(), Counter(), []
    threads = [
        threading.Thread(target=keep_reading, args=(look, store, done, counts, faults))
        for look in READS.items()
    ]
    for thread in threads:
        thread.start()
    try:
        number = 0
        while not faults and (number < batches or any(counts[name] < 3 for name in READS)):
            number += 1
            store.apply(batch(number))
            store.maintain(idle=number % 8 == 0)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert set(group(store.scan())) == {marked(n, number) for n in range(GROUP)}
    size = store.stats().bytes_on_disk
    store.maintain(idle=True)
    store.close()
    return counts, size


@pytest.mark.parametrize("indexed", [False, True])
def test_reading_beside_writing(kind, tmp_path, monkeypatch, indexed):
    if indexed:
        monkeypatch.setattr(f"imagedbd.stores.{kind}.INDEX_FROM", 20)
    churn(kind, os.fspath(tmp_path / "store"), 16)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("indexed", [False, True])
def test_reading_beside_ten_thousand_writes(kind, tmp_path, monkeypatch, indexed):
    if indexed:
        monkeypatch.setattr(f"imagedbd.stores.{kind}.INDEX_FROM", 20)
    counts, size = churn(kind, os.fspath(tmp_path / "store"), 1_000)
    print(counts, size)
