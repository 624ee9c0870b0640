"""From finished work to one batch for the store, and then to the ledger.

Here it is decided which row a file is: the one it had, the one of a file that moved, or a new one; and
whether its vector stays, is copied from equal content, or is new.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from imagedbd.datatypes import (
    Batch,
    Decoded,
    FileChange,
    ImageRecord,
    LedgerEntry,
    PictureState,
    Signature,
    StoredPicture,
    iso_utc,
)
from imagedbd.ledger import KeptVector

if TYPE_CHECKING:
    from imagedbd.datatypes import Store, Vector
    from imagedbd.ledger import Ledger

KEEP_FORGOTTEN_S: Final = 86_400.0
"""How long the vector of a forgotten content is kept, in case it comes back."""


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A picture that was read.

    :param vector: ``None`` if its content is known (``decoded.pixels`` is missing then as well) or if
        there is no model.
    """

    change: FileChange
    decoded: Decoded
    vector: Vector | None = None
    attempts: int = 1
    known: bool = False
    """The decoder stopped at a content hash that was known when it began."""


@dataclass(frozen=True, slots=True)
class Failure:
    change: FileChange
    signature: Signature
    reason: str
    attempts: int = 1


@dataclass(slots=True)
class Work:
    """What one commit takes in."""

    finished: list[Finished] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    gone: list[FileChange] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.finished) + len(self.failures) + len(self.gone)

    def changes(self) -> list[FileChange]:
        return [*(f.change for f in self.finished), *(f.change for f in self.failures), *self.gone]


@dataclass(slots=True)
class _Plan:
    upserts: list[StoredPicture] = field(default_factory=list)
    patches: list[ImageRecord] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    entries: list[LedgerEntry] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    """Ids that this batch writes: none of them may be written twice, or deleted."""


class Committer:
    """Writes to store and ledger, in this order; the indexer's thread alone calls it.

    :param may_forget: whether a path that is not there may be forgotten: not on a root that is offline.
    """

    def __init__(self, store: Store, ledger: Ledger, may_forget: Callable[[str], bool]) -> None:
        self._store = store
        self._ledger = ledger
        self._may_forget = may_forget

    def commit(self, work: Work) -> list[Finished]:
        """Make this work durable and visible.

        :returns: pictures whose content was taken for known, but whose vector nobody has any more: they
            must be decoded again. All the others are done.
        :raises StoreError: nothing is lost: the same work may be committed again.
        """
        plan = _Plan()
        previous = {item.change.path: self._ledger.get(item.change.path) for item in work.finished}
        sources = {
            item.change.path: source
            for item in work.finished
            if item.known and (source := self._source(item, previous[item.change.path]))
        }
        held = {row.record.id: row for row in self._store.get([s.id for s in sources.values() if s.id])}
        unresolved = [
            item
            for item in work.finished
            if not self._place(item, previous[item.change.path], sources.get(item.change.path), held, plan)
        ]
        for failure in work.failures:
            self._fail(failure, plan)
        for change in work.gone:
            self._forget(change, plan)
        self._write(plan)
        return unresolved

    def _source(self, item: Finished, previous: LedgerEntry | None) -> LedgerEntry | None:
        """The entry whose row has this content and may become this file's: its own, or of one that moved."""
        content_hash = item.decoded.content_hash
        if previous and previous.id and previous.content_hash == content_hash:
            return previous
        if previous and previous.id:
            return None
        for entry in self._ledger.by_hash(content_hash):
            if entry.id and not os.path.lexists(entry.path):
                return entry
        return None

    def _place(
        self,
        item: Finished,
        previous: LedgerEntry | None,
        source: LedgerEntry | None,
        held: dict[str, StoredPicture],
        plan: _Plan,
    ) -> bool:
        if source and source.id and source.id not in plan.taken and _has_vector(held.get(source.id), item):
            self._patch(item, source, plan)
            return True
        identity, vector = previous.id if previous else None, item.vector
        if item.known:
            kept_id, vector = self._known_vector(item.decoded.content_hash)
            if vector is None:
                return False
            identity = identity or kept_id
        if identity is None or identity in plan.taken:
            identity = uuid.uuid4().hex
        plan.upserts.append(StoredPicture(_record(identity, item), vector))
        self._enter(item, identity, PictureState.WAITING if vector is None else PictureState.INDEXED, plan)
        return True

    def _patch(self, item: Finished, source: LedgerEntry, plan: _Plan) -> None:
        assert source.id is not None  # noqa: S101 - a source has a row
        plan.patches.append(_record(source.id, item))
        if source.path != item.change.path:
            plan.forgotten.append(source.path)
        self._enter(item, source.id, PictureState.INDEXED, plan)

    def _enter(self, item: Finished, identity: str, state: PictureState, plan: _Plan) -> None:
        plan.taken.add(identity)
        decoded = item.decoded
        plan.entries.append(
            LedgerEntry(
                item.change.path, decoded.signature, state, identity, decoded.content_hash, item.attempts
            )
        )

    def _known_vector(self, content_hash: str) -> tuple[str | None, Vector | None]:
        """A vector for this content, and the id that its forgotten picture had, if that is free."""
        if (vector := self._store.find_vector(content_hash)) is not None:
            return None, vector
        model = self._store.model
        kept = self._ledger.kept_vector(content_hash, model.key) if model else None
        if kept is None:
            return None, None
        identity, data = kept
        free = not self._store.get([identity])
        return identity if free else None, np.frombuffer(data, dtype="<f4")

    def _fail(self, failure: Failure, plan: _Plan) -> None:
        path = failure.change.path
        previous = self._ledger.get(path)
        # What was there before is gone from the file, so it is gone from the index.
        if previous and previous.id and previous.id not in plan.taken:
            plan.deletes.append(previous.id)
        plan.entries.append(
            LedgerEntry(
                path, failure.signature, PictureState.FAILED, attempts=failure.attempts, reason=failure.reason
            )
        )

    def _forget(self, change: FileChange, plan: _Plan) -> None:
        entry = self._ledger.get(change.path)
        if entry is None or not self._may_forget(change.path):
            return
        if entry.id and entry.id not in plan.taken:
            plan.deletes.append(entry.id)
        plan.forgotten.append(change.path)

    def _write(self, plan: _Plan) -> None:
        self._keep_vectors(plan)
        batch = Batch(tuple(plan.upserts), tuple(plan.patches), tuple(plan.deletes))
        if batch:
            self._store.apply(batch)
        if plan.forgotten:
            self._ledger.forget(plan.forgotten)
        if plan.entries:
            self._ledger.put(plan.entries)

    def _keep_vectors(self, plan: _Plan) -> None:
        model = self._store.model
        if model is None:
            return
        news = {row.record.id: row.record.content_hash for row in plan.upserts}
        until = time.time() + KEEP_FORGOTTEN_S
        kept = [
            KeptVector(
                row.record.content_hash, model.key, row.record.id, _bytes(row.vector), row.record.size, until
            )
            for row in self._store.get([*plan.deletes, *news])
            if row.vector is not None and news.get(row.record.id) != row.record.content_hash
        ]
        if kept:
            self._ledger.keep_vectors(kept)


def _has_vector(row: StoredPicture | None, item: Finished) -> bool:
    return row is not None and row.vector is not None and row.record.content_hash == item.decoded.content_hash


def _record(identity: str, item: Finished) -> ImageRecord:
    decoded = item.decoded
    return ImageRecord(
        id=identity,
        path=item.change.path,
        signature=decoded.signature,
        content_hash=decoded.content_hash,
        metadata=decoded.metadata,
        indexed_at=iso_utc(time.time()),
    )


def _bytes(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()
