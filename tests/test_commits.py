"""What is written for pictures whose vectors are known; the whole pipeline is in test_indexer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from store_rows import MODEL, picture, vector

from imagedbd.commits import Committer, Finished, Work
from imagedbd.datatypes import Batch, Decoded, FileChange, LedgerEntry, PictureState
from imagedbd.ledger import KeptVector, Ledger
from imagedbd.stores import open_store

if TYPE_CHECKING:
    from imagedbd.datatypes import StoredPicture


class Bench:
    def __init__(self, folder: Path, kind: str) -> None:
        self.store = open_store(kind, str(folder / "store"))
        self.store.bind(MODEL)
        self.ledger = Ledger(str(folder / "ledger"))
        self.committer = Committer(self.store, self.ledger, lambda _: True)

    def forgotten(self, seeds: range) -> list[StoredPicture]:
        """Pictures that were there until a moment ago."""
        rows = [picture(f"p{seed}", seed, path=f"/photos/{seed}.jpg") for seed in seeds]
        kept = [
            KeptVector(
                row.record.content_hash,
                MODEL.key,
                row.record.id,
                vector(seed).tobytes(),
                1,
                time.time() + 999,
            )
            for seed, row in zip(seeds, rows, strict=True)
        ]
        self.ledger.keep_vectors(kept)
        return rows

    def commit(self, rows: list[StoredPicture]) -> list[Finished]:
        return self.committer.commit(Work(finished=[known(row) for row in rows]))


def known(row: StoredPicture, path: str | None = None) -> Finished:
    record = row.record
    decoded = Decoded(record.signature, record.content_hash, record.metadata, None)
    return Finished(FileChange(path or record.path, 1), decoded, known=True)


@pytest.fixture(params=["lance", "faiss"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, request.param)
    yield bench
    bench.store.close()
    bench.ledger.close()


def test_pictures_that_come_back_have_their_ids_and_vectors_again(bench: Bench) -> None:
    assert bench.commit(bench.forgotten(range(9))) == []
    back = {row.record.id: row for row in bench.store.pictures()}
    assert set(back) == {f"p{seed}" for seed in range(9)}
    for seed in range(9):
        found = back[f"p{seed}"].vector
        assert found is not None
        assert found @ vector(seed) > 0.999999
    assert bench.ledger.counts()[PictureState.INDEXED] == 9


def test_many_that_come_back_ask_the_store_no_more_often_than_few(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()

    def count(name: str) -> None:
        ask = getattr(bench.store, name)

        def counted(*arguments: Any) -> Any:
            asked[name] += 1
            return ask(*arguments)

        monkeypatch.setattr(bench.store, name, counted)

    for name in ("get", "find_vector", "find_vectors"):
        count(name)
    bench.commit(bench.forgotten(range(2)))
    few = dict(asked)
    asked.clear()
    bench.commit(bench.forgotten(range(2, 60)))
    assert dict(asked) == few


def test_of_two_with_the_content_of_one_that_was_forgotten_one_has_its_id(bench: Bench) -> None:
    (row,) = bench.forgotten(range(1))
    bench.committer.commit(Work(finished=[known(row), known(row, "/photos/copy.jpg")]))
    rows = list(bench.store.pictures())
    assert {r.record.path for r in rows} == {"/photos/0.jpg", "/photos/copy.jpg"}
    assert len({r.record.id for r in rows}) == 2
    assert all(r.vector is not None for r in rows)


def test_of_two_that_would_have_the_row_of_one_that_moved_the_other_gets_a_copy_of_its_vector(
    bench: Bench,
) -> None:
    bench.store.apply(Batch(upserts=(row := picture("p1", 1, path="/photos/gone.jpg"),)))
    record = row.record
    state = PictureState.INDEXED
    bench.ledger.put([LedgerEntry(record.path, record.signature, state, record.id, record.content_hash)])
    bench.committer.commit(Work(finished=[known(row, "/photos/here.jpg"), known(row, "/photos/there.jpg")]))
    rows = {r.record.path: r for r in bench.store.pictures()}
    assert set(rows) == {"/photos/here.jpg", "/photos/there.jpg"}
    assert rows["/photos/here.jpg"].record.id == "p1"
    assert all(r.vector is not None for r in rows.values())


def test_a_content_that_nobody_has_any_more_is_to_be_decoded_again(bench: Bench) -> None:
    unknown = picture("p7", 7)
    (item,) = bench.commit([unknown])
    assert item.change.path == unknown.record.path
    assert list(bench.store.scan()) == []
