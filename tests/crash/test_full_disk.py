"""A full disk: writing stops and says so, reading goes on, and both go on when there is room again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from store_rows import MODEL, picture, vector

from imagedbd.datatypes import Batch
from imagedbd.errors import StoreError
from imagedbd.stores import KINDS, open_store

MIB = 2**20

ENOUGH = 200_000
"""Free bytes for the large batch."""


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def disk(tmp_path):
    """A file system of a few megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={12 * MIB}", "imagedbd-test", place]
    made = subprocess.run(mount, check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


class Ballast:
    """Fills a disk up to a few bytes."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._file = disk / "ballast"

    def leave(self, free: int) -> None:
        """Let so many bytes be free, as far as pages allow."""
        self.remove()
        stat = os.statvfs(self._disk)
        self._file.write_bytes(bytes(max(0, stat.f_bavail * stat.f_frsize - free)))

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


@pytest.fixture
def ballast(disk):
    return Ballast(disk)


@pytest.fixture
def folder(disk):
    return os.fspath(disk / "store")


@pytest.fixture
def store(kind, folder):
    store = open_store(kind, folder, exclusive=True)
    yield store
    store.close()


def fill(store):
    store.bind(MODEL)
    for number in range(12):
        store.apply(Batch(upserts=tuple(picture(f"a{number}-{n}", number + n) for n in range(4))))
    return everything(store)


def everything(store):
    return {r.id: r for r in store.scan()}


def answers(store, rows):
    return (
        everything(store) == rows
        and {m.id for m in store.nearest(vector(1), 1_000)} == set(rows)
        and {m.id for m in store.matching(["dog"], 1_000)} == set(rows)
    )


LARGE = Batch(upserts=tuple(picture(f"new{n}", n + 1) for n in range(400)), deletes=("a0-0",))


@pytest.mark.parametrize("free", [0, 4096, 16_384, 65_536, 262_144])
def test_a_batch_without_room_is_refused_and_taken_when_there_is(kind, store, folder, ballast, free):
    rows = fill(store)
    ballast.leave(free)
    if free < ENOUGH:
        for _ in range(3):
            with pytest.raises(StoreError, match="No space left"):
                store.apply(LARGE)
            assert answers(store, rows)
        ballast.remove()
    store.apply(LARGE)
    rows = everything(store)
    assert len(rows) == 447
    store.close()
    again = open_store(kind, folder, exclusive=True)
    assert answers(again, rows)
    assert [fault for fault in again.scrub() if fault] == []
    again.close()


@pytest.mark.parametrize("free", [0, 8192, 32_768, 65_536])
def test_what_was_refused_is_not_there_after_a_crash(kind, store, folder, ballast, free):
    rows = fill(store)
    ballast.leave(free)
    with pytest.raises(StoreError):
        store.apply(LARGE)
    again = open_store(kind, folder, exclusive=True)
    assert answers(again, rows)
    ballast.remove()
    again.apply(Batch(deletes=("a0-0",)))
    assert "a0-0" not in everything(again)
    again.close()


@pytest.mark.parametrize("free", [0, 4096, 16_384, 32_768])
def test_maintenance_without_room_harms_nothing_and_is_done_later(store, ballast, free):
    rows = fill(store)
    ballast.leave(free)
    try:
        store.maintain(idle=True)
    except StoreError:
        assert answers(store, rows)
        ballast.remove()
        store.maintain(idle=True)
    assert answers(store, rows)
    assert [fault for fault in store.scrub() if fault] == []
    ballast.remove()
    before = store.stats().bytes_on_disk
    store.maintain(idle=True)
    assert store.stats().bytes_on_disk <= before


def test_a_small_write_finds_what_a_refused_one_left(store, ballast):
    """The rest of what failed is removed at once: a full disk stays no fuller than it was."""
    rows = fill(store)
    ballast.leave(200_000)
    stat = os.statvfs(ballast._disk)
    for _ in range(4):
        with pytest.raises(StoreError):
            store.apply(Batch(upserts=tuple(picture(f"new{n}", n + 1) for n in range(2_000))))
    assert os.statvfs(ballast._disk).f_bavail >= stat.f_bavail - 4
    store.apply(Batch(deletes=("a0-0",)))
    assert answers(store, {key: row for key, row in rows.items() if key != "a0-0"})


@pytest.mark.parametrize("free", [0, 4096, 12_288])
def test_binding_without_room_binds_nothing_and_works_later(store, ballast, free):
    store.apply(Batch(upserts=(picture("a"),)))
    ballast.leave(free)
    try:
        store.bind(MODEL)
    except StoreError:
        assert store.model is None
        assert store.nearest(vector(1), 5) == []
        assert set(everything(store)) == {"a"}
        ballast.remove()
        store.bind(MODEL)
    ballast.remove()
    store.apply(Batch(upserts=(picture("b", 1),)))
    assert [m.id for m in store.nearest(vector(1), 5)] == ["b"]


@pytest.mark.parametrize("free", [0, 4096, 16_384])
def test_a_store_that_cannot_be_made_for_want_of_room_can_be_made_later(kind, folder, ballast, free):
    ballast.leave(free)
    with pytest.raises(StoreError):
        open_store(kind, folder, exclusive=True)
    ballast.remove()
    store = open_store(kind, folder, exclusive=True)
    fill(store)
    store.close()
