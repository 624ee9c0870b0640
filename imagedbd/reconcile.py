"""Store and ledger repair each other: what one lost, the other tells, and the folders decide the rest."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from imagedbd.datatypes import Batch, ImageRecord, LedgerEntry, PictureState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagedbd.datatypes import Store
    from imagedbd.ledger import Ledger

log = logging.getLogger(__name__)

_PAGE = 1000


def reconcile(store: Store, ledger: Ledger, *, thorough: bool) -> None:
    """Make both know the same rows of ours, before anyone else uses them.

    :param thorough: compare them row by row, as is due after anything but a clean stop. Otherwise they are
        only counted, which tells whether one of them was lost.

    They differ after a crash between the two writes of a commit, when one of them was lost, and when a store
    was repaired. A row that the ledger lacks is adopted as pending, and so is one that is not what the ledger
    takes it for: its file is hashed again, and not embedded if it is unchanged. An entry that the store lacks
    is forgotten: the next scan sees a new file. Whether a row has its vector the store knows best.
    """
    if not thorough and store.count(own=True) == _rows_expected(ledger):
        return
    known = {entry.id: _expected_print(entry) for entry in ledger.under("/") if entry.id}
    present: set[str] = set()
    orphans: list[ImageRecord] = []
    stale: dict[str, str] = {}
    for record in store.scan(own=True):
        present.add(record.id)
        if record.id not in known:
            orphans.append(record)
        elif known[record.id] not in {_print(record), hash(record.content_hash)}:
            stale[record.id] = record.content_hash
    lost = [entry.path for entry in ledger.under("/") if entry.id and entry.id not in present]
    if orphans or lost or stale:
        log.warning(
            "store and ledger differ: %d rows unknown to the ledger, %d missing in the store, %d stale",
            len(orphans),
            len(lost),
            len(stale),
        )
    ledger.forget(lost)
    _doubt(stale, ledger)
    for start in range(0, len(orphans), _PAGE):
        _adopt(orphans[start : start + _PAGE], store, ledger)
    _settle_vectors(store, ledger)


def _rows_expected(ledger: Ledger) -> int:
    counts = ledger.counts()
    in_work = sum(1 for entry in ledger.by_state(PictureState.PENDING) if entry.id)
    return counts[PictureState.INDEXED] + counts[PictureState.WAITING] + in_work


def _print(row: ImageRecord | LedgerEntry) -> int:
    """A number that tells what a row and an entry say of a file: a million of them must fit in memory."""
    return hash((row.path, row.signature, row.content_hash))


def _expected_print(entry: LedgerEntry) -> int:
    """Of an entry in work only the content counts that the store is taken to hold of it."""
    settled = entry.state in {PictureState.INDEXED, PictureState.WAITING}
    return _print(entry) if settled else hash(entry.content_hash)


def _doubt(stale: Mapping[str, str], ledger: Ledger) -> None:
    """Have these files looked at again, by the content that the store has of them."""
    if not stale:
        return
    doubted = [entry for entry in ledger.under("/") if entry.id in stale]
    ledger.put(
        replace(
            entry,
            state=PictureState.PENDING,
            content_hash=stale[entry.id],
            attempts=entry.attempts if entry.state is PictureState.PENDING else 0,
        )
        for entry in doubted
        if entry.id is not None
    )


def _settle_vectors(store: Store, ledger: Ledger) -> None:
    """Set right who waits for a vector: another store than the ledger knew may have become the active one."""
    stats, counts = store.stats(), ledger.counts()
    if stats.rows - stats.vectors == counts[PictureState.WAITING] and not counts[PictureState.PENDING]:
        return
    right = {True: PictureState.INDEXED, False: PictureState.WAITING}
    changed: list[LedgerEntry] = []
    for picture in store.pictures():
        entry = ledger.get(picture.record.path)
        state = right[picture.vector is not None]
        if entry and entry.id == picture.record.id and entry.state in right.values() and entry.state != state:
            changed.append(replace(entry, state=state))
    for start in range(0, len(changed), _PAGE):
        ledger.put(changed[start : start + _PAGE])


def _adopt(orphans: list[ImageRecord], store: Store, ledger: Ledger) -> None:
    doubles, entries = [], {}
    for record in orphans:
        entry = ledger.get(record.path)
        if record.path in entries or (entry and entry.id):
            doubles.append(record.id)
        else:
            entries[record.path] = LedgerEntry(
                record.path, record.signature, PictureState.PENDING, record.id, record.content_hash
            )
    if doubles:
        store.apply(Batch(deletes=tuple(doubles)))
    ledger.put(entries.values())
