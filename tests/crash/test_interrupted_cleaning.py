"""Files are deleted on purpose, too: a kill at any step of that is no false alarm, and hides no loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from store_rows import MODEL, picture, vector

from imagedbd.datatypes import Batch
from imagedbd.errors import StoreUnreadableError
from imagedbd.stores import lance, open_store
from imagedbd.stores.inventory import Inventory, Work
from imagedbd.stores.lance_folder import LanceFolder

pytestmark = pytest.mark.in_memory

STEPS = [
    (LanceFolder, "begin"),
    (LanceFolder, "acknowledge"),
    (LanceFolder, "vouch"),
    (LanceFolder, "_keep_spare_version"),
    (Inventory, "start"),
    (lance.LanceStore, "_optimize_fully"),
    (lance.LanceStore, "_unused_for"),
]


class Killed(BaseException):
    """Stands for kill -9: nothing that would tidy up may run after it."""


@pytest.fixture
def folder(tmp_path):
    folder = os.fspath(tmp_path / "store")
    store = open_store("lance", folder, exclusive=True)
    store.bind(MODEL)
    for number in range(10):
        store.apply(Batch(upserts=(picture(f"p{number}", number),)))
    store.apply(Batch(deletes=("p0",)))
    store.close()
    return folder


def killed_in_maintenance(folder, monkeypatch, place, step, *, done, work=None):
    real = getattr(place, step)

    def dying(self, *given):
        if work is not None and given != (work,):
            return real(self, *given)
        if done:
            real(self, *given)
        raise Killed

    store = open_store("lance", folder, exclusive=True)
    with monkeypatch.context() as patched:
        patched.setattr(LanceFolder, "undo", lambda _: False)
        patched.setattr(place, step, dying)
        with pytest.raises(Killed):
            store.maintain(idle=True)


def check(store):
    expected = {f"p{n}" for n in range(1, 10)}
    assert {r.id for r in store.scan()} == expected
    assert {m.id for m in store.nearest(vector(1), 99)} == expected
    assert {m.id for m in store.matching(["dog"], 99)} == expected
    assert [fault for fault in store.scrub() if fault] == []


@pytest.mark.parametrize(("place", "step"), STEPS, ids=[step for _, step in STEPS])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_kill_while_it_is_tidied_up_is_survived(folder, monkeypatch, place, step, done):
    killed_in_maintenance(folder, monkeypatch, place, step, done=done)
    for _ in range(2):
        store = open_store("lance", folder, exclusive=True)
        check(store)
        store.maintain(idle=True)
        store.close()


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_kill_before_the_first_file_is_deleted_is_survived(folder, monkeypatch, done):
    killed_in_maintenance(folder, monkeypatch, LanceFolder, "begin", done=done, work=Work.CLEAN)
    store = open_store("lance", folder, exclusive=True)
    check(store)
    store.close()


@pytest.mark.parametrize(
    "sort", ["data/*", "_indices/*/*tokens*", "_indices/*/metadata*", "_versions/*.manifest"]
)
def test_a_file_that_was_lost_while_it_was_tidied_up_is_missed(folder, monkeypatch, sort):
    killed_in_maintenance(folder, monkeypatch, LanceFolder, "vouch", done=False)
    (needed,) = Path(folder, "pictures.lance").glob(sort)
    needed.unlink()
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        open_store("lance", folder, exclusive=True)


def test_a_file_that_was_damaged_while_it_was_tidied_up_is_told(folder, monkeypatch):
    killed_in_maintenance(folder, monkeypatch, LanceFolder, "vouch", done=False)
    (data,) = Path(folder, "pictures.lance").glob("data/*")
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    with pytest.raises(StoreUnreadableError, match="is damaged"):
        open_store("lance", folder, exclusive=True)


def test_a_long_read_outlives_the_tidying_up(tmp_path):
    store = open_store("lance", os.fspath(tmp_path / "store"), exclusive=True)
    store.bind(MODEL)
    for start in range(0, 10_000, 1_000):
        store.apply(Batch(upserts=tuple(picture(f"p{n}", n) for n in range(start, start + 1_000))))
    reading = store.pictures()
    seen = {next(reading).record.id}
    store.apply(Batch(deletes=("p1", "p9999")))
    store.maintain(idle=True)
    store.maintain(idle=True)
    before = store.stats().bytes_on_disk
    seen |= {p.record.id for p in reading}
    assert len(seen) == 10_000
    store.maintain(idle=True)
    assert store.stats().bytes_on_disk < before * 0.7
    store.close()
