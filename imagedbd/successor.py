"""The next store, on its way to hold what the active one holds.

One pass over everything, then only over what was written to the active store meanwhile, again and again,
until so little is left that the writer can wait for it. Every batch is durable, and a pass skips what is
there already: a build that was killed goes on where it was.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from imagedbd.datatypes import Batch, ImageRecord, StoredPicture
from imagedbd.errors import PausedError

if TYPE_CHECKING:
    from imagedbd.datatypes import Store, Vector
    from imagedbd.ledger import Ledger
    from imagedbd.reembedder import Reembedder

PAGE: Final = 2000
"""Rows that are compared at a time."""
EMBEDDED_ROWS: Final = 64
EMBEDDED_AFTER_S: Final = 2.0
"""New vectors are stored when there are so many, or after this time: that much is embedded twice at worst."""
RATE_WINDOW_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """:param rate: rows brought over in a second, of late; ``None`` while it cannot be told."""

    done: int
    total: int
    rate: float | None

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate else None


class Successor:
    """Brings rows from the active store to the next one.

    One thread calls :meth:`fill` and :meth:`follow`; the writer's thread calls :meth:`note`, and
    :meth:`finish` while it writes nothing.

    :param store: the next one, bound to its model if it will have vectors of another than the active one.
    :param reembedder: makes the vectors that nobody has; ``None`` leaves those rows without.
    :param stopping: set when the build is to end early: whatever goes on returns soon.
    :param check_pause: raises :class:`PausedError` while nothing is to be worked on.
    """

    def __init__(
        self,
        active: Store,
        store: Store,
        ledger: Ledger,
        reembedder: Reembedder | None,
        stopping: threading.Event,
        *,
        check_pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._active = active
        self._store = store
        self._ledger = ledger
        self._reembedder = reembedder
        self._stopping = stopping
        self._check_pause = check_pause
        self._lock = threading.Lock()
        self._touched: set[str] = set()
        self._bare: set[str] = set()
        self._done = 0
        self._total = 0
        self._brought: deque[tuple[float, int]] = deque(maxlen=1000)

    # For the writer's thread.

    def note(self, ids: Iterable[str]) -> None:
        """These rows of the active store were written or deleted just now."""
        with self._lock:
            self._touched.update(ids)

    def finish(self) -> bool:
        """Bring over what is left without embedding, while nobody writes to the active store.

        :returns: whether both stores have the same rows now.
        :raises StoreError: nothing is lost; it may be called again.
        """
        self._bring_touched(None)
        return self._active.count(own=True) == self._store.count(own=True)

    def bare(self) -> list[ImageRecord]:
        """The rows of the next store that lack a vector."""
        with self._lock:
            ids = list(self._bare)
        return [
            picture.record for page in pages(ids, PAGE) for picture in self._store.get(page, vectors=False)
        ]

    # For the builder's thread.

    @property
    def touched(self) -> int:
        """How many rows were written since they were brought over."""
        return len(self._touched)

    def progress(self) -> Progress:
        now = time.monotonic()
        recent = [(moment, rows) for moment, rows in tuple(self._brought) if now - moment <= RATE_WINDOW_S]
        rate = sum(rows for _, rows in recent[1:]) / (now - recent[0][0]) if len(recent) > 1 else None
        return Progress(min(self._done, self._total), self._total, rate)

    def fill(self) -> None:
        """Compare all rows, and bring over what differs.

        :raises ImagedbError: something failed that may pass; what was done stays done.
        """
        self._done, self._total = 0, self._active.count(own=True)
        self._drop_gone()
        # By way of the ledger, which reads in pages: no long read holds on to old versions of a store.
        ids = (entry.id for entry in self._ledger.under("/") if entry.id)
        for page in pages(ids, PAGE):
            if self._stopping.is_set():
                return
            self._check_pause()
            self._bring(page, self._reembedder)
        # What was copied in a few large batches is better off in files that are checked piece by piece.
        self._store.maintain(idle=True)

    def follow(self) -> None:
        """Bring over what was written to the active store since.

        :raises ImagedbError: as :meth:`fill`.
        """
        self._bring_touched(self._reembedder)

    def _bring_touched(self, reembedder: Reembedder | None) -> None:
        with self._lock:
            touched, self._touched = self._touched, set()
        try:
            for page in pages(touched, PAGE):
                self._bring(page, reembedder)
        except BaseException:
            self.note(touched)
            raise

    def _drop_gone(self) -> None:
        """Delete what an earlier build brought over and the active store has no more."""
        if not self._store.count(own=True):
            return
        doubtful = [record.id for record in self._store.scan(own=True) if not self._is_known(record)]
        for page in pages(doubtful, PAGE):
            there = {picture.record.id for picture in self._active.get(page, vectors=False)}
            self._apply(Batch(deletes=tuple(key for key in page if key not in there)))

    def _is_known(self, record: ImageRecord) -> bool:
        entry = self._ledger.get(record.path)
        return entry is not None and entry.id == record.id

    def _bring(self, ids: Sequence[str], reembedder: Reembedder | None) -> None:
        """Make the next store's rows with these ids equal to the active one's."""
        wanted = {picture.record.id: picture for picture in self._active.get(ids)}
        present = {picture.record.id: picture for picture in self._store.get(ids)}
        complete = {key for key, row in present.items() if key in wanted and _has_vector_of(row, wanted[key])}
        self._apply(
            Batch(
                patches=tuple(wanted[k].record for k in complete if wanted[k].record != present[k].record),
                deletes=tuple(key for key in present if key not in wanted),
            )
        )
        with self._lock:
            self._bare.difference_update(complete, present.keys() - wanted.keys())
        self._done += len(complete)
        lacking = [picture for key, picture in wanted.items() if key not in complete]
        rows = [StoredPicture(p.record, self._known_vector(p)) for p in lacking]
        if reembedder is None:
            self._upsert(rows, present)
        else:
            self._upsert([row for row in rows if row.vector is not None], present)
            self._embed([row.record for row in rows if row.vector is None], present, reembedder)

    def _known_vector(self, picture: StoredPicture) -> Vector | None:
        """A vector of the next store's model for this content, from wherever there is one."""
        active, model = self._active.model, self._store.model
        if active is not None and (model is None or model.key == active.key):
            if picture.vector is not None:
                return picture.vector
            model = active
        if model is None:
            return None
        content_hash = picture.record.content_hash
        kept = self._ledger.kept_vector(content_hash, model.key)
        if kept is not None:
            return np.frombuffer(kept[1], dtype="<f4")
        # To look through the store costs too much for a content that nobody else has.
        has_twins = len(self._ledger.by_hash(content_hash)) > 1
        return self._store.find_vector(content_hash) if has_twins else None

    def _embed(
        self, records: Sequence[ImageRecord], present: Mapping[str, StoredPicture], reembedder: Reembedder
    ) -> None:
        twins: dict[str, list[ImageRecord]] = {}
        for record in records:
            twins.setdefault(record.content_hash, []).append(record)
        ready: list[StoredPicture] = []
        since = time.monotonic()
        for first, vector in reembedder.vectors([same[0] for same in twins.values()]):
            ready += [StoredPicture(record, vector) for record in twins[first.content_hash]]
            if len(ready) >= EMBEDDED_ROWS or time.monotonic() - since >= EMBEDDED_AFTER_S:
                self._upsert(ready, present)
                ready, since = [], time.monotonic()
            if self._stopping.is_set() or self._is_paused():
                break
        self._upsert(ready, present)
        # What is left of this page is brought by the next try.
        self._check_pause()

    def _is_paused(self) -> bool:
        try:
            self._check_pause()
        except PausedError:
            return True
        return False

    def _upsert(self, rows: Sequence[StoredPicture], present: Mapping[str, StoredPicture]) -> None:
        new = [row for row in rows if not _is_there(row, present.get(row.record.id))]
        active = self._active.model
        if self._store.model is None and active and any(row.vector is not None for row in new):
            self._store.bind(active)
        self._apply(Batch(upserts=tuple(new)))
        with self._lock:
            self._bare.update(row.record.id for row in rows if row.vector is None)
            self._bare.difference_update(row.record.id for row in rows if row.vector is not None)
        self._done += len(rows)
        self._brought.append((time.monotonic(), len(rows)))

    def _apply(self, batch: Batch) -> None:
        if batch:
            self._store.apply(batch)
            self._store.maintain()


def delete_own_rows(store: Store) -> None:
    """Leave a table that is shared to the others.

    :raises StoreError: some rows may be there still; it may be called again.
    """
    for page in pages([record.id for record in store.scan(own=True)], PAGE):
        store.apply(Batch(deletes=tuple(page)))


def _has_vector_of(row: StoredPicture, wanted: StoredPicture) -> bool:
    return row.vector is not None and row.record.content_hash == wanted.record.content_hash


def _is_there(row: StoredPicture, present: StoredPicture | None) -> bool:
    """Whether a row without a vector is stored just so."""
    bare = row.vector is None and present is not None and present.vector is None
    return bare and present is not None and present.record == row.record


def pages(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    page: list[str] = []
    for key in ids:
        page.append(key)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
