"""From one store to the next: over real stores, files, decoders and ledger; only the model is a fake."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import INFO, FakeEmbedder
from PIL import Image

from imagedbd.datatypes import (
    Batch,
    ImageRecord,
    LedgerEntry,
    Metadata,
    PictureState,
    Preprocess,
    Signature,
    Store,
    StoredPicture,
)
from imagedbd.decoder import Decoder
from imagedbd.errors import EmbedderError, ModelUnavailableError
from imagedbd.ledger import KeptVector, Ledger
from imagedbd.reembedder import Reembedder
from imagedbd.stores import open_store
from imagedbd.successor import Successor

pytestmark = pytest.mark.in_memory

OTHER = replace(INFO, spec="other", weights_hash="1" * 64, preprocess=Preprocess(24, 24))


class Bench:
    """An active store of some pictures, and the next one."""

    def __init__(self, home: Path, kind: str) -> None:
        self.home = home
        self.ledger = Ledger(str(home / "ledger"))
        self.active = open_store("lance", str(home / "active"))
        self.active.bind(INFO)
        self.next = open_store(kind, str(home / "next"))
        self.decoder = Decoder(2)
        self.embedder = FakeEmbedder(info=OTHER)
        self.stopping = threading.Event()
        self.records: dict[str, ImageRecord] = {}

    def close(self) -> None:
        self.decoder.close()
        for closable in (self.active, self.next, self.ledger):
            closable.close()

    def successor(self, *, embed: bool) -> Successor:
        if embed and self.next.model is None:
            self.next.bind(OTHER)
        reembedder = Reembedder(self.decoder, self.embedder, self.stopping) if embed else None
        return Successor(self.active, self.next, self.ledger, reembedder, self.stopping)

    def add(self, name: str, red: int, *, bare: bool = False, twin_of: str | None = None) -> str:
        """A picture of one colour in folder, store and ledger; returns its id."""
        path = self.home / name
        Image.new("RGB", (40, 40), (red, 100, 100)).save(path)
        decoded = self.decoder.submit(str(path), frozenset(), INFO.preprocess).result()
        record = ImageRecord(
            f"{len(self.records):032x}",
            str(path),
            decoded.signature,
            decoded.content_hash,
            Metadata(caption=name),
            "2026-01-01T00:00:00Z",
        )
        assert twin_of is None or self.records[twin_of].content_hash == record.content_hash
        assert decoded.pixels is not None
        self.put(record, None if bare else vector_of(red))
        return record.id

    def put(self, record: ImageRecord, vector: np.ndarray | None) -> None:
        self.records[record.id] = record
        self.active.apply(Batch(upserts=(StoredPicture(record, vector),)))
        state = PictureState.WAITING if vector is None else PictureState.INDEXED
        self.ledger.put([LedgerEntry(record.path, record.signature, state, record.id, record.content_hash)])

    def forget(self, key: str) -> None:
        self.active.apply(Batch(deletes=(key,)))
        self.ledger.forget([self.records.pop(key).path])

    @property
    def embedded(self) -> int:
        return sum(self.embedder.embedded)

    def assert_equal(self, *, bare: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """Both stores have the same records, and the next one vectors for all but these."""
        found = {row.record.id: row for row in self.next.pictures()}
        assert {key: row.record for key, row in found.items()} == self.records
        assert {key for key, row in found.items() if row.vector is None} == bare


def vector_of(red: int) -> np.ndarray:
    vector = np.random.default_rng(red).standard_normal(INFO.dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


def vectors(store: Store) -> dict[str, np.ndarray]:
    return {row.record.id: row.vector for row in store.pictures() if row.vector is not None}


@pytest.fixture(params=["lance"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(tmp_path, request.param)
    yield bench
    bench.close()


def test_of_the_same_model_vectors_are_copied(bench: Bench) -> None:
    for red in range(20):
        bench.add(f"{red}.png", red)
    waiting = bench.add("waiting.png", 99, bare=True)
    successor = bench.successor(embed=False)
    successor.fill()
    bench.assert_equal(bare={waiting})
    assert bench.next.model == INFO
    before, after = vectors(bench.active), vectors(bench.next)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert [record.id for record in successor.bare()] == [waiting]
    assert (successor.progress().done, successor.progress().total) == (21, 21)


def test_of_another_model_each_content_is_embedded_once(bench: Bench) -> None:
    ids = [bench.add(f"{red}.png", red) for red in range(10)]
    twin = bench.add("twin.png", 3, twin_of=ids[3])
    successor = bench.successor(embed=True)
    successor.fill()
    bench.assert_equal()
    assert bench.embedded == 10
    found = vectors(bench.next)
    assert np.array_equal(found[twin], found[ids[3]])
    assert bench.next.model == OTHER


def test_a_second_pass_does_nothing_twice(bench: Bench) -> None:
    for red in range(8):
        bench.add(f"{red}.png", red)
    bench.successor(embed=True).fill()
    bench.add("new.png", 50)
    bench.successor(embed=True).fill()
    bench.assert_equal()
    assert bench.embedded == 9


def test_what_changed_since_is_followed(bench: Bench) -> None:
    ids = [bench.add(f"{red}.png", red) for red in range(6)]
    successor = bench.successor(embed=True)
    successor.fill()
    moved = replace(bench.records[ids[0]], path=str(bench.home / "moved.png"))
    os.rename(bench.records[ids[0]].path, moved.path)
    bench.ledger.forget([bench.records[ids[0]].path])
    bench.put(moved, vector_of(0))
    bench.forget(ids[1])
    new = bench.add("new.png", 60)
    changed = bench.records[ids[2]]
    Image.new("RGB", (40, 40), (61, 100, 100)).save(changed.path)
    decoded = bench.decoder.submit(changed.path, frozenset(), None).result()
    bench.put(replace(changed, content_hash=decoded.content_hash, signature=decoded.signature), vector_of(61))
    successor.note([ids[0], ids[1], ids[2], new])
    assert successor.touched == 4
    successor.follow()
    bench.assert_equal()
    assert bench.embedded == 8
    assert successor.finish()


def test_the_last_step_embeds_nothing(bench: Bench) -> None:
    bench.add("a.png", 1)
    successor = bench.successor(embed=True)
    successor.fill()
    late = bench.add("late.png", 2)
    successor.note([late])
    assert successor.finish()
    bench.assert_equal(bare={late})
    assert [record.id for record in successor.bare()] == [late]
    assert bench.embedded == 1


def test_a_row_that_nobody_told_of_is_noticed_at_the_end(bench: Bench) -> None:
    bench.add("a.png", 1)
    successor = bench.successor(embed=True)
    successor.fill()
    bench.add("silent.png", 2)
    assert not successor.finish()
    successor.fill()
    assert successor.finish()


def test_pictures_that_are_away_or_changed_go_in_without_a_vector(bench: Bench) -> None:
    there, away, changed = (bench.add(f"{red}.png", red) for red in range(3))
    os.remove(bench.records[away].path)
    Image.new("RGB", (40, 40), (200, 0, 0)).save(bench.records[changed].path)
    bench.successor(embed=True).fill()
    bench.assert_equal(bare={away, changed})
    assert there in vectors(bench.next)


def test_a_kept_vector_saves_the_model_a_picture(bench: Bench) -> None:
    key = bench.add("a.png", 1)
    kept = vector_of(5)
    content = bench.records[key].content_hash
    bench.ledger.keep_vectors([KeptVector(content, OTHER.key, key, kept.astype("<f4").tobytes(), 1, 9e12)])
    bench.successor(embed=True).fill()
    assert bench.embedded == 0
    assert np.allclose(vectors(bench.next)[key], kept, atol=2e-3)


def test_rows_of_an_older_build_that_are_gone_are_deleted(bench: Bench) -> None:
    keys = [bench.add(f"{red}.png", red) for red in range(4)]
    bench.successor(embed=True).fill()
    bench.forget(keys[2])
    moved = replace(bench.records[keys[3]], path="/elsewhere.png")
    bench.ledger.forget([bench.records[keys[3]].path])
    bench.put(moved, vector_of(3))
    bench.successor(embed=False).fill()
    bench.assert_equal()


def test_one_picture_that_the_model_chokes_on_costs_that_picture_only(bench: Bench) -> None:
    bench.embedder.poison = 77
    keys = {red: bench.add(f"{red}.png", red) for red in range(74, 82)}
    bench.successor(embed=True).fill()
    bench.assert_equal(bare={keys[77]})


def test_a_vector_that_is_not_finite_is_none(bench: Bench) -> None:
    bench.embedder.blank = 5
    keys = [bench.add(f"{red}.png", red) for red in range(7)]
    bench.successor(embed=True).fill()
    bench.assert_equal(bare={keys[5]})


def test_a_model_that_fails_anyway_stops_the_pass_and_costs_no_picture(bench: Bench) -> None:
    bench.add("a.png", 1)
    bench.embedder.broken = True
    successor = bench.successor(embed=True)
    with pytest.raises(EmbedderError):
        successor.fill()
    bench.embedder.broken = False
    successor.fill()
    bench.assert_equal()


def test_a_model_that_went_away_stops_the_pass(bench: Bench) -> None:
    bench.add("a.png", 1)
    successor = bench.successor(embed=True)
    bench.embedder.info = None
    bench.next.apply(Batch())
    with pytest.raises(ModelUnavailableError):
        list(Reembedder(bench.decoder, _Gone(), bench.stopping).vectors(list(bench.records.values())))
    assert successor.touched == 0


class _Gone(FakeEmbedder):
    """It says what it is, and is not there."""

    def embed_pictures(self, pictures, priority=None):  # type: ignore[no-untyped-def,override]
        return FakeEmbedder(info=None).embed_pictures(pictures)


def test_touched_rows_are_not_lost_when_the_store_refuses(bench: Bench) -> None:
    key = bench.add("a.png", 1)
    successor = bench.successor(embed=True)
    successor.note([key])
    bench.next.close()
    with pytest.raises(Exception, match="closed"):
        successor.follow()
    assert successor.touched == 1


def test_it_stops_when_it_is_told(bench: Bench) -> None:
    bench.add("a.png", 1)
    bench.stopping.set()
    bench.successor(embed=True).fill()
    assert bench.embedded == 0


def test_an_unbound_store_is_copied_and_bound_when_the_first_vector_comes(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger"))
    active, following = (open_store("lance", str(tmp_path / name)) for name in ("one", "two"))
    record = ImageRecord("a" * 32, "/a", Signature(1, 2, 3, 4, 5), "h", Metadata(), "2026-01-01T00:00:00Z")
    active.apply(Batch(upserts=(StoredPicture(record),)))
    ledger.put([LedgerEntry("/a", record.signature, PictureState.WAITING, record.id, "h")])
    successor = Successor(active, following, ledger, None, threading.Event())
    successor.fill()
    assert (following.count(), following.model) == (1, None)
    active.bind(INFO)
    active.apply(Batch(upserts=(StoredPicture(record, vector_of(1)),)))
    successor.note([record.id])
    assert successor.finish()
    assert following.model == INFO
    assert successor.bare() == []
