"""From finished work to one batch for the store, and then to the ledger.

Here it is decided which row a file is: the one it had, the one of a file that moved, or a new one; and
whether its vector stays, is copied from equal content, or is new.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
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

    :param vector: ``None`` if the content is known, or if there is no model.
    :param known: its vector should be found by the content hash.
    :param generation: of the model, as the indexer counts them, when the picture was begun.
    :param new_id: its id, if it needs a new one: the same however often it is committed.
    """

    change: FileChange
    decoded: Decoded
    vector: Vector | None = None
    attempts: int = 1
    known: bool = False
    generation: int = 0
    new_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def lacks_vector(self) -> bool:
        """Whether it is stored to wait for a model."""
        return self.vector is None and not self.known


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

    def units(self) -> Iterator[Work]:
        """The same, in pieces of one change each."""
        yield from (Work(finished=[item]) for item in self.finished)
        yield from (Work(failures=[failure]) for failure in self.failures)
        yield from (Work(gone=[change]) for change in self.gone)


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """The row that a picture gets.

    :param stays: the row is there with the right vector; only its record is replaced.
    :param moved_from: the path that it had, if that was another.
    """

    id: str
    vector: Vector | None
    stays: bool = False
    moved_from: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _KnownVectors:
    """What there is of some contents, looked up at once: a store needs as long for one as for many.

    :param held: content hash → vector of a row that is there.
    :param kept: content hash → id and vector of a picture that was forgotten.
    :param paths: id → path, of the rows that have these ids by now.
    """

    hashes: AbstractSet[str]
    held: Mapping[str, Vector]
    kept: Mapping[str, tuple[str, bytes]]
    paths: Mapping[str, str]

    def find(self, item: Finished) -> tuple[str | None, Vector | None]:
        """A vector for this content, and the id that its forgotten picture had, if that is free."""
        content_hash = item.decoded.content_hash
        if (vector := self.held.get(content_hash)) is not None:
            return None, vector
        if content_hash not in self.kept:
            return None, None
        identity, data = self.kept[content_hash]
        # A row of this very path is this commit's own, from a try that the ledger refused.
        free = self.paths.get(identity, item.change.path) == item.change.path
        return identity if free else None, np.frombuffer(data, dtype="<f4")


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
    """Writes to store and ledger, in this order; the indexer's thread alone commits.

    :param may_forget: whether a path that is not there may be forgotten: not on a root that is offline.
    """

    def __init__(self, store: Store, ledger: Ledger, may_forget: Callable[[str], bool]) -> None:
        self._store = store
        self._ledger = ledger
        self._may_forget = may_forget
        self._writing = threading.Lock()
        self._listener: Callable[[Iterable[str]], None] | None = None

    def listen(self, listener: Callable[[Iterable[str]], None] | None) -> None:
        """Have the ids of all rows that are written or deleted from now on told; any thread may ask for it.

        Of every write before, store and ledger both have it all when this returns.
        """
        with self._writing:
            self._listener = listener

    def commit(self, work: Work) -> list[Finished]:
        """Make this work durable and visible.

        :returns: pictures whose content was taken for known, but whose vector nobody has any more: they
            must be decoded again. All the others are done.
        :raises StoreError: nothing is lost: the same work may be committed again.
        """
        plan = _Plan()
        own = {item.change.path: self._ledger.get(item.change.path) for item in work.finished}
        sources = {i.change.path: self._source(i, own[i.change.path]) for i in work.finished if i.known}
        held = self._held(source.id for source in sources.values() if source)
        # A source may be gone by its turn, to another picture of this batch; that one is looked up then.
        vectors = self._look_up(
            {
                item.decoded.content_hash
                for item in work.finished
                if item.known and not _stays(item, sources.get(item.change.path), held, frozenset())
            }
        )
        unresolved = []
        for item in work.finished:
            path = item.change.path
            row = self._row_of(
                item, own[path], sources.get(path), held=held, vectors=vectors, taken=plan.taken
            )
            if row is None:
                unresolved.append(item)
            else:
                _add(item, row, plan)
        for failure in work.failures:
            self._fail(failure, plan)
        for change in work.gone:
            self._forget(change, plan)
        self._write(plan)
        return unresolved

    def relabel(self, entries: Mapping[str, LedgerEntry]) -> None:
        """Have rows and entries go on under other paths, with the vectors that they have.

        :param entries: what is known of each from now on, by its former path.
        :raises StoreError: none is changed in the ledger: the same call may be made again.
        """
        by_id = {entry.id: entry for entry in entries.values() if entry.id}
        patches = [
            replace(row.record, path=by_id[row.record.id].path, signature=by_id[row.record.id].signature)
            for row in self._held(by_id).values()
        ]
        with self._writing:
            if patches:
                self._apply(Batch(patches=tuple(patches)))
            self._ledger.put(entries.values(), forget=entries.keys())

    def _source(self, item: Finished, own: LedgerEntry | None) -> LedgerEntry | None:
        """The entry whose row has this content and may become this file's: its own, or of one that moved."""
        content_hash = item.decoded.content_hash
        if own and own.id:
            return own if own.content_hash == content_hash else None
        for entry in self._ledger.by_hash(content_hash):
            # One that was renamed in nothing but case may be found by both names.
            is_it = entry.signature.inode == item.decoded.signature.inode
            if entry.id and (is_it or not os.path.lexists(entry.path)) and self._may_forget(entry.path):
                return entry
        return None

    def _held(self, ids: Iterable[str | None]) -> dict[str, StoredPicture]:
        return {row.record.id: row for row in self._store.get([key for key in ids if key])}

    def _row_of(
        self,
        item: Finished,
        own: LedgerEntry | None,
        source: LedgerEntry | None,
        *,
        held: Mapping[str, StoredPicture],
        vectors: _KnownVectors,
        taken: AbstractSet[str],
    ) -> _Row | None:
        """``None`` if the vector that should be known is nowhere."""
        if source and source.id and _stays(item, source, held, taken):
            moved_from = source.path if source.path != item.change.path else None
            return _Row(source.id, None, stays=True, moved_from=moved_from)
        identity, vector = own.id if own else None, item.vector
        if item.known:
            content_hash = item.decoded.content_hash
            known = vectors if content_hash in vectors.hashes else self._look_up({content_hash})
            former, vector = known.find(item)
            if vector is None:
                return None
            identity = identity or former
        if identity is None or identity in taken:
            identity = item.new_id
        return _Row(identity, vector)

    def _look_up(self, hashes: AbstractSet[str]) -> _KnownVectors:
        held = self._store.find_vectors(hashes) if hashes else {}
        model = self._store.model
        lost = (content_hash for content_hash in hashes if content_hash not in held)
        found = ((h, self._ledger.kept_vector(h, model.key)) for h in lost) if model else ()
        kept = {content_hash: vector for content_hash, vector in found if vector is not None}
        rows = self._held(identity for identity, _ in kept.values())
        return _KnownVectors(hashes, held, kept, {key: row.record.path for key, row in rows.items()})

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
        with self._writing:
            self._keep_vectors(plan)
            batch = Batch(tuple(plan.upserts), tuple(plan.patches), tuple(plan.deletes))
            if batch:
                self._apply(batch)
            self._tell_ledger(plan)

    def _apply(self, batch: Batch) -> None:
        try:
            self._store.apply(batch)
        finally:
            if self._listener is not None:
                self._listener(_ids_in(batch))

    def _tell_ledger(self, plan: _Plan) -> None:
        if plan.entries or plan.forgotten:
            self._ledger.put(plan.entries, forget=plan.forgotten)

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


def _add(item: Finished, row: _Row, plan: _Plan) -> None:
    decoded = item.decoded
    record = ImageRecord(
        id=row.id,
        path=item.change.path,
        signature=decoded.signature,
        content_hash=decoded.content_hash,
        metadata=decoded.metadata,
        indexed_at=iso_utc(time.time()),
    )
    if row.stays:
        plan.patches.append(record)
    else:
        plan.upserts.append(StoredPicture(record, row.vector))
    if row.moved_from is not None:
        plan.forgotten.append(row.moved_from)
    plan.taken.add(row.id)
    state = PictureState.WAITING if item.lacks_vector else PictureState.INDEXED
    plan.entries.append(
        LedgerEntry(
            record.path,
            record.signature,
            state,
            row.id,
            record.content_hash,
            item.attempts,
            sidecar=decoded.sidecar,
        )
    )


def _ids_in(batch: Batch) -> list[str]:
    return [*(row.record.id for row in batch.upserts), *(row.id for row in batch.patches), *batch.deletes]


def _stays(
    item: Finished,
    source: LedgerEntry | None,
    held: Mapping[str, StoredPicture],
    taken: AbstractSet[str],
) -> bool:
    """Whether the row of this entry may become the picture's, as it is but for its record."""
    row = held.get(source.id) if source and source.id and source.id not in taken else None
    return row is not None and row.vector is not None and row.record.content_hash == item.decoded.content_hash


def _bytes(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()
