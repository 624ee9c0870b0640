"""Store and ledger, one of which knows better than the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import INFO, vector_of

from imagedbd.datatypes import (
    Batch,
    ImageRecord,
    LedgerEntry,
    Metadata,
    PictureState,
    Signature,
    Store,
    StoredPicture,
)
from imagedbd.ledger import Ledger
from imagedbd.reconcile import reconcile
from imagedbd.stores import open_store

SIGNATURE = Signature(1, 2, 3, 4, 5)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Store, Ledger]]:
    store, ledger = open_store("lance", str(tmp_path / "store")), Ledger(str(tmp_path / "ledger"))
    store.bind(INFO)
    yield store, ledger
    store.close()
    ledger.close()


def add(store: Store, name: str, *, bare: bool = False) -> str:
    record = ImageRecord(name * 32, f"/{name}", SIGNATURE, name, Metadata(), "2026-01-01T00:00:00Z")
    store.apply(Batch(upserts=(StoredPicture(record, None if bare else vector_of(name.encode())),)))
    return record.id


def entry(name: str, state: PictureState) -> LedgerEntry:
    return LedgerEntry(f"/{name}", SIGNATURE, state, name * 32, name)


def states(ledger: Ledger) -> dict[str, PictureState]:
    return {entry.path: entry.state for entry in ledger.under("/")}


def test_a_row_that_the_ledger_lacks_is_adopted_and_an_entry_without_a_row_is_forgotten(
    both: tuple[Store, Ledger],
) -> None:
    store, ledger = both
    add(store, "a")
    ledger.put([entry("b", PictureState.INDEXED), entry("c", PictureState.INDEXED)])
    reconcile(store, ledger, thorough=False)
    assert states(ledger) == {"/a": PictureState.PENDING}


def test_whether_a_picture_waits_for_its_vector_the_store_knows(both: tuple[Store, Ledger]) -> None:
    store, ledger = both
    add(store, "a", bare=True)
    add(store, "b", bare=True)
    add(store, "c")
    ledger.put(
        [
            entry("a", PictureState.INDEXED),
            entry("b", PictureState.WAITING),
            entry("c", PictureState.INDEXED),
        ]
    )
    reconcile(store, ledger, thorough=True)
    assert states(ledger) == {
        "/a": PictureState.WAITING,
        "/b": PictureState.WAITING,
        "/c": PictureState.INDEXED,
    }


def test_after_a_clean_stop_equal_numbers_are_enough(both: tuple[Store, Ledger]) -> None:
    store, ledger = both
    add(store, "a", bare=True)
    ledger.put([entry("a", PictureState.INDEXED)])
    reconcile(store, ledger, thorough=False)
    assert states(ledger) == {"/a": PictureState.INDEXED}


def test_a_row_that_is_not_what_the_ledger_takes_it_for_is_looked_at_again(
    both: tuple[Store, Ledger],
) -> None:
    """A repaired store may have lost the last that was written."""
    store, ledger = both
    for name in "abc":
        add(store, name)
    moved = replace(entry("a", PictureState.INDEXED), path="/moved")
    changed = replace(entry("b", PictureState.INDEXED), content_hash="newer")
    ledger.put([moved, changed, entry("c", PictureState.INDEXED)])
    reconcile(store, ledger, thorough=True)
    assert states(ledger) == {
        "/moved": PictureState.PENDING,
        "/b": PictureState.PENDING,
        "/c": PictureState.INDEXED,
    }
    again = ledger.get("/b")
    assert again is not None
    assert (again.id, again.content_hash) == ("b" * 32, "b")


def test_of_a_file_in_work_the_content_counts_that_the_store_holds(both: tuple[Store, Ledger]) -> None:
    """The daemon died when the store had the new vector and the ledger did not know: it is not made again."""
    store, ledger = both
    add(store, "a")
    opened = replace(entry("a", PictureState.PENDING), content_hash="older", attempts=1)
    ledger.put([opened])
    reconcile(store, ledger, thorough=True)
    again = ledger.get("/a")
    assert again == replace(opened, content_hash="a")


def test_a_file_that_is_looked_at_again_for_the_stores_sake_is_under_no_suspicion(
    both: tuple[Store, Ledger],
) -> None:
    store, ledger = both
    add(store, "a")
    ledger.put([replace(entry("a", PictureState.INDEXED), content_hash="older", attempts=1)])
    reconcile(store, ledger, thorough=True)
    again = ledger.get("/a")
    assert again is not None
    assert (again.state, again.attempts) == (PictureState.PENDING, 0)
