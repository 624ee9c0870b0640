"""What only the faiss store does: snapshots, its journal, and an approximate index that may be lost."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from library import make_library

from imagedbd.datatypes import Batch
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.stores import faiss as faiss_store
from imagedbd.stores.faiss import FaissStore
from imagedbd.stores.faiss_salvage import salvage_faiss

pytestmark = pytest.mark.in_memory

LIBRARY = make_library(600, dimension=16)


@pytest.fixture
def folder(tmp_path):
    return os.fspath(tmp_path / "store")


@pytest.fixture(autouse=True)
def _early_snapshots(monkeypatch):
    monkeypatch.setattr(faiss_store, "_FOLD_ROWS", 100)


def filled(folder):
    store = FaissStore(folder)
    store.bind(LIBRARY.model)
    for pictures in LIBRARY.batches(64):
        store.apply(Batch(upserts=pictures))
    return store


def everything(store):
    return {picture.record.id: picture for picture in store.pictures()}


def assert_same(found, expected):
    assert {key: p.record for key, p in found.items()} == {key: p.record for key, p in expected.items()}
    for key, picture in found.items():
        other = expected[key].vector
        assert (picture.vector is None) == (other is None), key
        assert other is None or np.array_equal(picture.vector, other), key


def names(folder):
    return sorted(os.listdir(folder))


# Snapshots.


def test_a_snapshot_takes_over_from_the_journal_and_changes_nothing(folder):
    store = filled(folder)
    store.apply(Batch(deletes=tuple(p.record.id for p in LIBRARY.pictures[:200])))
    before = everything(store)
    assert names(folder) == ["journal-1.log", "manifest.json", "metadata-1.parquet", "snapshot.json", "spare"]
    store.maintain()
    assert names(folder) == [
        "journal-2.log", "manifest.json", "metadata-2.parquet", "snapshot.json", "spare", "vectors-2.f16",
    ]  # fmt: skip
    assert os.path.getsize(os.path.join(folder, "journal-2.log")) == 8
    assert_same(everything(store), before)
    assert len(before) == 400
    store.close()
    again = FaissStore(folder)
    assert_same(everything(again), before)
    again.close()


def test_little_is_not_worth_a_snapshot(folder):
    store = filled(folder)
    store.maintain(idle=True)
    store.apply(Batch(upserts=LIBRARY.pictures[:90]))
    store.maintain(idle=True)
    assert "journal-2.log" in names(folder)
    store.apply(Batch(upserts=LIBRARY.pictures[:90]))
    store.maintain(idle=True)
    assert "journal-3.log" in names(folder)
    store.close()


def test_a_journal_that_outgrows_its_snapshot_is_folded_when_it_is_quiet(folder, monkeypatch):
    """So no more hangs on the end of one file than is in the checked ones, however few rows there are."""
    monkeypatch.setattr(faiss_store, "_FOLD_ROWS", 2_000)
    store = FaissStore(folder)
    store.bind(LIBRARY.model)
    store.maintain(idle=True)
    store.apply(Batch(upserts=LIBRARY.pictures[:3]))
    store.maintain()
    assert "journal-1.log" in names(folder)
    store.maintain(idle=True)  # the first rows at once
    assert "journal-2.log" in names(folder)
    store.apply(Batch(upserts=LIBRARY.pictures[3:10]))
    store.maintain(idle=True)
    assert "journal-2.log" in names(folder)
    store.apply(Batch(upserts=LIBRARY.pictures[10:300]))
    store.maintain(idle=True)
    assert "journal-3.log" in names(folder)
    store.close()


def test_deletions_alone_are_worth_a_snapshot(folder):
    store = filled(folder)
    store.maintain(idle=True)
    store.apply(Batch(deletes=tuple(p.record.id for p in LIBRARY.pictures[:300])))
    store.maintain(idle=True)
    assert "journal-3.log" in names(folder)
    assert store.count() == 300
    store.close()


def test_moving_writes_no_vector(folder):
    store = filled(folder)
    journal = os.path.join(folder, "journal-1.log")
    before = os.path.getsize(journal)
    pictures = [p for p in LIBRARY.pictures if p.vector is not None][:100]
    store.apply(Batch(patches=tuple(p.record for p in pictures)))
    moved = os.path.getsize(journal) - before
    store.apply(Batch(upserts=tuple(pictures)))
    upserted = os.path.getsize(journal) - before - moved
    assert upserted - moved > 100 * 16 * 2 * 0.9  # what the vectors take, in float16
    store.close()


def test_a_snapshot_that_fails_leaves_the_one_before_and_no_litter(folder, monkeypatch):
    store = filled(folder)
    before, files = everything(store), names(folder)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(faiss_store, "_FOLD_PAUSE_S", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(faiss_store, "commit_snapshot", refuse)
        with pytest.raises(StoreError, match="No space"):
            store.maintain()
    assert names(folder) == files
    assert_same(everything(store), before)
    store.apply(Batch(deletes=(LIBRARY.pictures[0].record.id,)))
    store.maintain()
    assert "journal-2.log" in names(folder)
    store.close()


def test_what_a_killed_snapshot_left_is_removed_at_the_next_start(folder):
    store = filled(folder)
    before = everything(store)
    store.close()
    for name in ("metadata-2.parquet", "vectors-2.f16", "journal-2.log", "index-2.ivf"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"half of it")
    again = FaissStore(folder, exclusive=True)
    assert not [name for name in names(folder) if "-2." in name]
    assert_same(everything(again), before)
    again.close()


def test_rows_from_before_the_first_vector_stay(folder):
    store = FaissStore(folder)
    bare = tuple(replace(p, vector=None) for p in LIBRARY.pictures[:300])
    store.apply(Batch(upserts=bare[:150]))
    store.maintain()
    store.apply(Batch(upserts=bare[150:]))
    store.bind(LIBRARY.model)
    store.apply(Batch(patches=tuple(p.record for p in bare[100:200]), upserts=LIBRARY.pictures[:50]))
    before = everything(store)
    store.close()
    again = FaissStore(folder)
    assert_same(everything(again), before)
    again.maintain()
    assert_same(everything(again), before)
    again.close()


# The journal's end.


def test_an_unfinished_write_is_dropped_with_a_word(folder, caplog):
    crashed = filled(folder)
    journal = os.path.join(folder, "journal-1.log")
    with open(journal, "r+b") as file:
        file.truncate(os.path.getsize(journal) - 5)
    with caplog.at_level(logging.WARNING):
        again = FaissStore(folder)
    assert "is taken back" in caplog.text
    assert again.count() == 600 - 600 % 64
    again.apply(Batch(upserts=LIBRARY.pictures[-10:]))
    again.close()
    last = FaissStore(folder)
    assert last.count() == 600 - 600 % 64 + 10
    last.close()
    crashed._journal.close()


def test_a_journal_that_lost_its_end_while_the_store_was_closed_is_damaged(folder):
    store = filled(folder)
    before = os.path.getsize(os.path.join(folder, "journal-1.log"))
    store.apply(Batch(deletes=(LIBRARY.pictures[0].record.id,)))
    store.close()
    os.truncate(os.path.join(folder, "journal-1.log"), before)
    with pytest.raises(StoreUnreadableError, match="it ends at byte"):
        FaissStore(folder)


# The approximate index.


def similar(store, seed=0):
    queries = np.random.default_rng(seed).standard_normal((10, 16)).astype(np.float32)
    return [[match.id for match in store.nearest(query, 10)] for query in queries]


def test_an_approximate_index_answers_alike_and_survives_a_restart(folder, monkeypatch):
    exact = filled(f"{folder}-exact")
    monkeypatch.setattr(faiss_store, "INDEX_FROM", 200)
    store = filled(folder)
    store.maintain()
    assert store._index.approximate
    assert similar(store) == similar(exact)
    changes = Batch(
        upserts=LIBRARY.pictures[:20], deletes=tuple(p.record.id for p in LIBRARY.pictures[100:150])
    )
    for each in (store, exact):
        each.apply(changes)
    assert similar(store) == similar(exact)
    store.close()

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(faiss_store.VectorIndex, "trained", never)
    again = FaissStore(folder)
    assert again._index.approximate
    assert similar(again) == similar(exact)
    again.maintain()
    for each in (again, exact):
        each.close()


def test_a_damaged_approximate_index_is_made_anew(folder, caplog, monkeypatch):
    monkeypatch.setattr(faiss_store, "INDEX_FROM", 200)
    store = filled(folder)
    store.maintain()
    expected = similar(store)
    store.close()
    (name,) = [name for name in names(folder) if name.endswith(".ivf")]
    path = os.path.join(folder, name)
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b"\xff" * 64)
    again = FaissStore(folder)
    assert "made anew" in caplog.text
    assert similar(again) == expected
    again.maintain()
    assert again._index.approximate
    assert similar(again) == expected
    assert list(again.scrub()) == [None] * len(list(again.scrub()))
    again.close()


# Damage, and what can be saved.


def damaged(folder, name, at, data=b"\xff" * 16):
    with open(os.path.join(folder, name), "r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_lost_manifest_is_reported_and_not_taken_for_a_new_store(folder):
    filled(folder).close()
    os.unlink(os.path.join(folder, "manifest.json"))
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        FaissStore(folder)


def test_a_crash_while_the_store_is_made_is_no_damage(folder):
    FaissStore(folder).close()
    os.unlink(os.path.join(folder, "manifest.json"))
    shutil.rmtree(os.path.join(folder, "spare"))  # which is made last
    store = FaissStore(folder)
    assert store.count() == 0
    store.close()


def test_scrubbing_finds_what_changed_behind_our_back(folder):
    store = filled(folder)
    store.maintain()
    store.apply(Batch(upserts=LIBRARY.pictures[:10]))
    assert set(store.scrub()) == {None}
    for name in ("vectors-2.f16", "metadata-2.parquet", "journal-2.log"):
        original = os.path.join(folder, name)
        shutil.copy(original, f"{original}.copy")
        damaged(folder, name, 100)
        (found,) = [damage for damage in store.scrub() if damage]
        assert name in found.message
        assert "imagedbd repair" in found.message
        os.replace(f"{original}.copy", original)
    store.close()


def test_what_was_damaged_since_it_was_read_is_written_anew(folder):
    store = filled(folder)
    store.maintain()
    expected = everything(store)
    damaged(folder, "vectors-2.f16", 100)
    damaged(folder, "metadata-2.parquet", 100)
    assert any(store.scrub())
    store.maintain()
    assert not any(store.scrub())
    store.close()
    again = FaissStore(folder)
    assert_same(everything(again), expected)
    again.close()


def test_what_was_damaged_is_written_anew_before_the_store_is_closed(folder):
    store = filled(folder)
    store.maintain()
    expected = everything(store)
    damaged(folder, "vectors-2.f16", 100)
    damaged(folder, "manifest.json", 50)
    assert any(store.scrub())
    store.close()
    again = FaissStore(folder)
    assert_same(everything(again), expected)
    again.close()


def test_a_file_that_cannot_be_read_is_damage(folder):
    store = filled(folder)
    store.maintain()
    store.close()
    path = os.path.join(folder, "vectors-2.f16")
    os.unlink(path)
    os.mkdir(path)  # reading it fails, as on a bad sector
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        FaissStore(folder)
    _, found = saved(folder)
    assert len(found) == 600
    assert not any(picture.vector is not None for picture in found.values())


def test_a_snapshot_that_a_crash_left_by_half_is_passed_over_by_saving(folder):
    store = filled(folder)
    store.maintain()
    store.close()
    os.truncate(os.path.join(folder, "snapshot.json"), 10)
    with open(os.path.join(folder, "metadata-3.parquet"), "wb") as file:
        file.write(b"PAR1 half of it")
    _, found = saved(folder)
    assert len(found) == 600


def saved(folder):
    found = salvage_faiss(folder)
    return found.model, {picture.record.id: picture for picture in found.pictures}


def test_everything_is_saved_from_a_store_that_is_whole(folder):
    store = filled(folder)
    store.maintain()
    store.apply(
        Batch(upserts=LIBRARY.pictures[:10], deletes=tuple(p.record.id for p in LIBRARY.pictures[50:60]))
    )
    expected = everything(store)
    store.close()
    model, found = saved(folder)
    assert model == LIBRARY.model
    assert_same(found, expected)


def test_a_damaged_block_costs_its_own_vectors_only(folder, monkeypatch):
    monkeypatch.setattr("imagedbd.stores.snapshot.BLOCK", 1_024)
    monkeypatch.setattr("imagedbd.stores.faiss_salvage.BLOCK", 1_024)
    store = filled(folder)
    store.maintain()
    expected = everything(store)
    store.close()
    damaged(folder, "vectors-2.f16", 5_000)
    with pytest.raises(StoreUnreadableError, match="block 4"):
        FaissStore(folder)
    _, found = saved(folder)
    assert {key: p.record for key, p in found.items()} == {key: p.record for key, p in expected.items()}
    lost = [key for key, p in found.items() if p.vector is None and expected[key].vector is not None]
    assert 0 < len(lost) <= 34


def test_a_damaged_batch_costs_its_own_rows_only(folder):
    store = filled(folder)
    store.close()
    damaged(folder, "journal-1.log", 20_000)
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        FaissStore(folder)
    _, found = saved(folder)
    assert len(found) == 600 - 64


@pytest.mark.parametrize("name", ["snapshot.json", "manifest.json", "metadata-2.parquet", "journal-2.log"])
@pytest.mark.parametrize("how", ["missing", "empty", "zeroed"])
def test_whatever_is_lost_saving_ends_well(folder, name, how):
    store = filled(folder)
    store.maintain()
    store.apply(Batch(upserts=LIBRARY.pictures[:5]))
    store.close()
    path = os.path.join(folder, name)
    size = os.path.getsize(path)
    os.unlink(path)
    if how != "missing":
        with open(path, "wb") as file:
            file.write(bytes(size if how == "zeroed" else 0))
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        FaissStore(folder)
    _, found = saved(folder)
    assert len(found) == (5 if name.startswith("metadata") else 600)
