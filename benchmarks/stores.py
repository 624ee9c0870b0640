"""How the stores do: build time, latency, recall, size on disk, and growth under many small writes.

    python benchmarks/stores.py                         # 100,000 pictures of 512 dimensions, both stores
    python benchmarks/stores.py --rows 10000 --kinds faiss --json result.json
    python benchmarks/stores.py --rows 1000000 --updates 0     # takes 12 GB, and most of an hour

Each store works in a process of its own, one after the other, on the same made-up library. The approximate
index is forced on. Times are of this machine: compare them with each other, not with those of another.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from library import SUBJECTS, Library, clustered, make_library
from report import apart, measured, percentiles, timed

from imagedbd.datatypes import Batch, Compare
from imagedbd.stores import KINDS, open_store
from imagedbd.text import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from imagedbd.datatypes import Store

QUERIES = 200
BUILD_ROWS = 1_000
LIMIT = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--updates", type=int, default=10_000, help="single-row upserts; 0: none")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    measured(parser, measure, lambda result: _print_table(result["stores"]))


def measure(home: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Everything of each store, in milliseconds and bytes where nothing else is said."""
    return {"stores": [_of_one_store(kind, f"{home}/{kind}", wanted) for kind in wanted.kinds]}


def _of_one_store(kind: str, home: str, wanted: argparse.Namespace) -> dict[str, Any]:
    folder = os.path.join(home, "made")
    try:
        made = apart(_made, kind, folder, wanted.rows, wanted.dimension)
        asked = apart(_at_work, kind, folder, wanted.dimension)
        if not wanted.updates:
            return made | asked
        return made | asked | apart(_worn, kind, home, wanted.rows, wanted.dimension, wanted.updates)
    finally:
        shutil.rmtree(home)


def _made(kind: str, folder: str, rows: int, dimension: int) -> dict[str, Any]:
    library = make_library(rows, dimension=dimension)
    result: dict[str, Any] = {"kind": kind, "rows": rows}
    started = time.perf_counter()
    store = _build(kind, folder, library)
    result["build_s"] = time.perf_counter() - started
    result["size"] = store.stats().bytes_on_disk
    result["recall@10"] = _recall(store, library)
    result |= _latencies(store, library)
    store.close()
    return result


def _at_work(kind: str, folder: str, dimension: int) -> dict[str, Any]:
    """Opening a store, and the memory of a process that has nothing but a store that has been asked."""
    seconds, store = timed(lambda: _opened(kind, folder))
    for query in clustered(QUERIES, dimension, np.random.default_rng(5)):
        store.nearest(query, LIMIT)
    store.close()
    return {"open_s": seconds, "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _worn(kind: str, home: str, rows: int, dimension: int, updates: int) -> dict[str, Any]:
    """How it is after many small writes, beside one that holds the same and was made at once."""
    result: dict[str, Any] = {}
    library = make_library(rows, dimension=dimension)
    store = _opened(kind, os.path.join(home, "made"))
    library, result["update_ms"] = _wear(store, library, updates)
    store.close()
    store = _opened(kind, os.path.join(home, "made"))
    worn = _latencies(store, library)["nearest"]
    result["recall@10_worn"] = _recall(store, library)
    result["size_worn"] = store.stats().bytes_on_disk
    store.close()
    fresh = _build(kind, os.path.join(home, "fresh"), library)
    result["growth"] = result["size_worn"] / (fresh.stats().bytes_on_disk or 1)
    result["p95_worn_to_fresh"] = worn["p95"] / _latencies(fresh, library)["nearest"]["p95"]
    fresh.close()
    return result


def _opened(kind: str, folder: str) -> Store:
    """A store whose approximate index is on, however few its vectors are."""
    importlib.import_module(f"imagedbd.stores.{kind}").INDEX_FROM = 1_000
    return open_store(kind, folder, exclusive=True)


def _build(kind: str, folder: str, library: Library) -> Store:
    store = _opened(kind, folder)
    store.bind(library.model)
    for pictures in library.batches(BUILD_ROWS):
        store.apply(Batch(upserts=pictures))
        store.maintain()
    store.maintain(idle=True)
    return store


def _wear(store: Store, library: Library, updates: int) -> tuple[Library, float]:
    """Upsert pictures one by one, each with a new vector; the library as it is then, and the time of one."""
    chosen = random.Random(2)
    vectors = clustered(updates, library.model.dimension, np.random.default_rng(3))
    pictures = list(library.pictures)
    spent = 0.0
    for vector in vectors:
        number = chosen.randrange(len(pictures))
        pictures[number] = replace(pictures[number], vector=vector)
        started = time.perf_counter()
        store.apply(Batch(upserts=(pictures[number],)))
        store.maintain()
        spent += time.perf_counter() - started
    store.maintain(idle=True)
    return Library(tuple(pictures), library.model), 1_000 * spent / max(1, updates)


def _queries(library: Library) -> NDArray[np.float32]:
    """Near to what is there, and no copies of it."""
    rng = np.random.default_rng(4)
    near = library.vectors[rng.integers(len(library.vectors), size=QUERIES)]
    moved = near + 0.5 * clustered(QUERIES, near.shape[1], rng)
    unit: NDArray[np.float32] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return unit


def _recall(store: Store, library: Library) -> float:
    held = [picture for picture in library.pictures if picture.vector is not None]
    vectors = library.vectors.astype(np.float16).astype(np.float32)
    hits = 0
    for query in _queries(library):
        exact = {held[row].record.id for row in np.argpartition(-(vectors @ query), LIMIT)[:LIMIT]}
        hits += len(exact & {match.id for match in store.nearest(query, LIMIT)})
    return hits / (QUERIES * LIMIT)


def _latencies(store: Store, library: Library) -> dict[str, dict[str, float]]:
    queries, chosen = _queries(library), random.Random(6)
    some = Compare("iso", ">=", 800)
    pictures = chosen.choices(library.pictures, k=QUERIES)
    words = [fold(word) for word in chosen.choices(SUBJECTS, k=QUERIES)]
    asked: dict[str, Iterable[Callable[[], object]]] = {
        "nearest": [lambda q=q: store.nearest(q, LIMIT) for q in queries],
        "nearest_filtered": [lambda q=q: store.nearest(q, LIMIT, some) for q in queries],
        "words": [lambda w=w: store.matching([w], LIMIT) for w in words],
        "get": [lambda p=p: store.get([p.record.id]) for p in pictures],
        "find_vector": [lambda p=p: store.find_vector(p.record.content_hash) for p in pictures],
        "count_filtered": [lambda: store.count(some) for _ in queries[:50]],
    }
    return {name: percentiles([timed(call)[0] for call in calls]) for name, calls in asked.items()}


def _print_table(results: Sequence[dict[str, Any]]) -> None:
    for name in results[0]:
        cells = [_cell(name, result[name]) for result in results]
        print(f"{name:<20}" + "".join(f"{cell:>24}" for cell in cells))


def _cell(name: str, value: Any) -> str:
    match value:
        case {"p50": middle, "p95": high}:
            return f"{middle:.2f} / {high:.2f} ms"
        case int() if name.startswith(("size", "peak")):
            return f"{value / 1e6:,.1f} MB"
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)


if __name__ == "__main__":
    main()
