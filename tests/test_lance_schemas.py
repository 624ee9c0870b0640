"""Stores that earlier versions wrote are opened, and brought up to date in place."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagedbd.datatypes import (
    Batch,
    Compare,
    ImageRecord,
    Metadata,
    ModelInfo,
    Preprocess,
    Signature,
    StoredPicture,
)
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.stores import lance_migrations, open_store
from imagedbd.stores.lance_folder import LanceFolder
from imagedbd.stores.manifest import SCHEMA, read_manifest, write_manifest

FIXTURE = Path(__file__).parent / "fixtures" / "lance-schema-1.tar.xz"
"""Written by commit 8c77c42: ten rows, one patched and one deleted after a compaction."""

DIMENSION = 16
# Their pictures were seen without colour profiles.
PREPROCESS = Preprocess(8, 8, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), to_srgb=False)
MODEL = ModelInfo("tiny/demo", "abc", DIMENSION, PREPROCESS)

NAMES = [
    "plain.jpg",
    "it's.jpg",
    "' OR 1=1 --.jpg",
    'quo"te.png',
    "Zürich 2019/ÄÖ.jpg",
    "日本語.webp",
    "a\nb.jpg",
    os.fsdecode(b"odd\xff\xfe.jpg"),
    "100%_\\.jpg",
    "last.tif",
]


def vector(number):
    v = np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)
    return v / np.linalg.norm(v)


def record(number, caption=None):
    return ImageRecord(
        f"{number:032x}",
        f"/photos/{NAMES[number]}",
        Signature(
            2**64 - 1 - number,
            2**63 + number,
            1000 + number,
            1_700_000_000_123_456_789 + number,
            1_700_000_001_000_000_001 + number,
        ),
        f"hash-{number}",
        Metadata(
            format="JPEG",
            width=640 + number,
            height=480,
            taken_at="2024-05-01T12:00:00",
            camera_make="Canon",
            iso=100 * number or None,
            f_number=1.8,
            lat=-33.9,
            lon=151.2,
            rating=number % 6,
            keywords=("Dog", "Zürich") if number % 2 else (),
            caption=caption or f"picture number{number}",
        ),
        "2024-05-01T12:00:00Z",
    )


EXPECTED = {r.id: r for r in map(record, (0, 1, 2, 5, 6, 7, 8, 9))} | {
    record(3).id: record(3, "patched since")
}


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return os.fspath(tmp_path / "lance")


def check(store):
    assert store.model == MODEL
    assert {r.id: r for r in store.scan()} == EXPECTED
    assert store.count(own=True) == len(EXPECTED)
    assert {r.id for r in store.scan(own=True)} == set(EXPECTED)
    for picture in store.pictures():
        number = int(picture.record.id, 16)
        assert (picture.vector is None) == (number == 0)
        assert picture.vector is None or picture.vector @ vector(number) > 0.99999
    assert [m.path for m in store.nearest(vector(7), 1)] == [record(7).path]
    assert [m.id for m in store.matching(["number5"], 5)] == [record(5).id]
    assert [m.id for m in store.matching(["patched"], 5)] == [record(3).id]
    assert store.count(Compare("iso", ">=", 500)) == 5


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_store_of_schema_1_is_opened_and_migrated_once(folder, exclusive):
    assert read_manifest(folder).schema == 1
    for _ in range(2):
        store = open_store("lance", folder, exclusive=exclusive)
        check(store)
        store.close()
        assert read_manifest(folder).schema == SCHEMA


def test_a_migrated_store_takes_writes_and_maintenance(folder):
    store = open_store("lance", folder, owner="me", exclusive=True)
    store.apply(Batch(upserts=(StoredPicture(record(4), vector(4)),), deletes=(record(9).id,)))
    store.maintain(idle=True)
    store.close()
    again = open_store("lance", folder, exclusive=True)
    assert {r.id for r in again.scan(own=True)} == set(EXPECTED) - {record(9).id} | {record(4).id}
    assert [w for w in again.scrub() if w] == []
    again.close()


class Killed(BaseException):
    """Stands for kill -9: nothing that would tidy up may run after it."""


@pytest.mark.parametrize("step", ["vouch", "begin", "column", "acknowledge", "settle"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_migration_that_is_killed_is_done_again(folder, monkeypatch, step, done):
    def killing(real):
        def dying(*given, **named):
            if done:
                real(*given, **named)
            raise Killed

        return dying

    with monkeypatch.context() as patched:
        patched.setattr(LanceFolder, "undo", lambda _: False)
        if step == "column":
            patched.setitem(lance_migrations.MIGRATIONS, 1, killing(lance_migrations.MIGRATIONS[1]))
        else:
            patched.setattr(LanceFolder, step, killing(getattr(LanceFolder, step)))
        with pytest.raises(Killed):
            open_store("lance", folder, exclusive=True)
    store = open_store("lance", folder, exclusive=True)
    check(store)
    store.close()


def test_a_damaged_store_of_schema_1_is_not_vouched_for(folder):
    (index,) = Path(folder).rglob("part_0_tokens.lance")
    index.unlink()
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        open_store("lance", folder, exclusive=True)
    assert read_manifest(folder).schema == 1


def test_a_store_of_a_newer_schema_is_refused_and_left_alone(folder):
    open_store("lance", folder, exclusive=True).close()
    newer = replace(read_manifest(folder), schema=SCHEMA + 1)
    write_manifest(folder, newer)
    with pytest.raises(StoreUnreadableError, match="newer imagedbd") as caught:
        open_store("lance", folder, exclusive=True)
    assert caught.value.exit_code == 78
    assert read_manifest(folder) == newer


def test_an_older_program_does_not_touch_a_newer_store(folder, monkeypatch):
    """It reads the manifest and refuses: what it would write, the inventory would not list."""
    open_store("lance", folder, exclusive=True).close()
    monkeypatch.setattr("imagedbd.stores.lance.SCHEMA", 1)
    with pytest.raises(StoreError, match="schema"):
        open_store("lance", folder, exclusive=True)
