"""The store on Faiss and pandas: vectors in an index, records in a data frame, both in memory; on disk a
snapshot and a journal of what changed since.

Rows are numbered as they come in and never change. An upsert or a patch adds a row and buries the one that
its id had before; a delete buries one. Now and then the living rows are written as the next snapshot and
numbered anew. A batch is in the journal, on disk, before a reader sees it.

Readers work on frozen values: what a search began with stays as it is until it ends. The vector index alone
changes in place, so that who reads it holds the gate that a writer closes for the moment of publishing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from imagedbd.datatypes import Match, StoredPicture, StoreStats
from imagedbd.durable import sync_folder
from imagedbd.errors import MENDING, StoreError, StoreUnreadableError
from imagedbd.ranking import best_first, unit
from imagedbd.text import count

from .checks import ENGINE_ERRORS, check_ids, check_model, check_vector, reported
from .contents import Change, Contents, Draft, stacked, whole
from .entries import Entry, decode, encode
from .frame import RecordFrame, empty_frame, ids_of, read_frame
from .gate import Gate
from .journal import Journal, create_journal, open_journal, read_journal, salvage_journal, verify_journal
from .manifest import (
    SCHEMA,
    SPARE,
    VECTOR_DTYPE,
    Manifest,
    mend_spare,
    read_manifest,
    settle_manifest,
)
from .rescoring import Candidates, TextStatistics, best_worded, most_similar, scores_by_length
from .rows import PLACE_COLUMNS, RECORD_COLUMNS, Row, places, records, to_arrow
from .snapshot import (
    FILE_NAME,
    Snapshot,
    check_file,
    commit_snapshot,
    damage_by_block,
    damaged,
    journal_name,
    metadata_name,
    read_codes,
    read_snapshot,
    remove_files,
    write_file,
)
from .syncing import files_below, size_of
from .vector_index import VectorIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from imagedbd.datatypes import Batch, Condition, ImageRecord, ModelInfo, Vector

_log = logging.getLogger(__name__)

KIND: Final = "faiss"

INDEX_FROM: Final = 200_000
"""Vectors from which on an approximate index finds the candidates; below, comparing all is fast enough."""

_RETRAIN_SHARE: Final = 4
"""The approximate index is trained anew when this part of what it was trained on has been added to it."""

_FOLD_ROWS: Final = 2_000
"""Rows in the journal that are worth a new snapshot while batches come in …"""

_FOLD_SHARE: Final = 8
"""… unless they are less than this part of all rows: a snapshot writes them all. When it is quiet, they are
worth one in any case, and so is a journal that has outgrown the snapshot, or has all rows there are."""

_FOLD_PAUSE_S: Final = 60.0
"""How long after a snapshot that failed the next one is tried."""

_MOST_UNFOLDED: Final = 50_000
"""Rows in the journal beyond which words are found too slowly."""

_FIRST: Final = 1
"""The number of the snapshot that a store is made with; there are no rows in it."""

_PAGE: Final = 2_000
"""Rows that a scan makes records of at a time."""


class FaissStore:
    """:class:`~imagedbd.datatypes.Store` on Faiss and pandas, in a folder on this machine.

    :param folder: where it is, or will be made.
    :param owner: which daemon writes these rows.
    :param exclusive: nobody else has the store open; what earlier runs left behind is cleaned up.
    :raises StoreUnreadableError: if what is there cannot be read.
    :raises StoreError: if a new store cannot be made there.
    """

    def __init__(self, folder: str, *, owner: str = "", exclusive: bool = False) -> None:
        self._folder = os.path.abspath(folder)
        self._owner = owner
        self._writing = threading.Lock()
        self._gate = Gate()
        self._refusal: str | None = None
        self._rewrite = False
        self._fold_again_at = 0.0
        with reported(f"open {self._folder}"):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            self._manifest = read_manifest(self._folder) or self._make()
            self._check_manifest()
            self._snapshot = self._valid_snapshot()
            if exclusive:
                mend_spare(self._folder, self._manifest)
                remove_files(self._folder, self._snapshot.names)
            self._load()

    # Opening and closing.

    def _make(self) -> Manifest:
        """Make an empty store; one without a manifest is what a crash in between left, unless it has rows."""
        if os.path.lexists(self._path(SPARE)) or self._has_rows():
            raise self._unreadable("its manifest.json is missing")
        _, journal = self._write_snapshot(_FIRST, empty_frame(), None)
        journal.close()
        sync_folder(os.path.dirname(self._folder))
        manifest = Manifest(KIND)
        settle_manifest(self._folder, manifest)
        return manifest

    def _has_rows(self) -> bool:
        snapshot = read_snapshot(self._folder)
        if snapshot is None:
            return self._outgrew_the_first()
        payloads, _ = read_journal(self._path(snapshot.journal_name))
        return bool(snapshot.rows or payloads)

    def _outgrew_the_first(self) -> bool:
        """Whether there is more than what making a store leaves when it is interrupted."""
        later = (name for name in os.listdir(self._folder) if name.endswith((".parquet", ".f16")))
        if any(name != metadata_name(_FIRST) for name in later):
            return True
        return next(salvage_journal(self._path(journal_name(_FIRST))), None) is not None

    def _check_manifest(self) -> None:
        found = self._manifest
        if found.kind != KIND:
            raise self._unreadable(f"it was written by the {found.kind} store")
        if (found.schema, found.vector_dtype) != (SCHEMA, VECTOR_DTYPE):
            raise self._unreadable(f"its schema is {found.schema} with {found.vector_dtype} vectors")

    def _valid_snapshot(self) -> Snapshot:
        snapshot = read_snapshot(self._folder)
        if snapshot is None:
            raise self._unreadable(f"its {FILE_NAME} is missing")
        return snapshot

    def _load(self) -> None:
        self._index = self._load_vectors()
        contents, numbers = whole(self._load_frame())
        self._contents: Contents | None = contents
        self._rows = numbers
        self._journal = self._replay()

    def _load_frame(self) -> RecordFrame:
        file = self._snapshot.metadata
        check_file(self._folder, file)
        try:
            frame = read_frame(self._path(file.name))
        except ENGINE_ERRORS as error:
            raise damaged(self._path(file.name), str(error)) from error
        if len(frame) != self._snapshot.rows:
            raise damaged(
                self._path(file.name), f"it has {count(len(frame), 'row')}, not {self._snapshot.rows}"
            )
        return frame

    def _load_vectors(self) -> VectorIndex | None:
        if self._dimension is None:
            return None
        codes = np.zeros((self._snapshot.rows, self._dimension), dtype=np.float16)
        if file := self._snapshot.vectors:
            check_file(self._folder, file)
            codes = read_codes(self._folder, file, self._dimension)
        if len(codes) != self._snapshot.rows:
            raise self._unreadable(
                f"it has {count(len(codes), 'vector')} for {count(self._snapshot.rows, 'row')}"
            )
        index = VectorIndex(self._dimension, codes=codes)
        self._load_approximate(index)
        return index

    def _load_approximate(self, index: VectorIndex) -> None:
        """The one file that may be lost: it is made anew when it is due."""
        file = self._snapshot.approximate
        if file is None:
            return
        try:
            check_file(self._folder, file)
            index.read_approximate(
                self._path(file.name), self._snapshot.trained_rows, self._snapshot.added_rows
            )
        except (StoreError, *ENGINE_ERRORS) as error:
            _log.warning("the approximate index is made anew: %s", error)

    def _replay(self) -> Journal:
        path = self._path(self._snapshot.journal_name)
        payloads, end = read_journal(path)
        try:
            entries = [decode(payload, self._dimension) for payload in payloads]
        except ENGINE_ERRORS as error:
            raise damaged(path, str(error)) from error
        if entries:
            self._publish(self._change(entries))
        if end < self._snapshot.journal_length:
            raise damaged(path, f"it ends at byte {end}, and had {self._snapshot.journal_length}")
        if lost := os.path.getsize(path) - end:
            _log.warning("a write to %s was interrupted, and is taken back: %d bytes", self._folder, lost)
        return open_journal(path, length=end, records=len(payloads))

    def _unreadable(self, why: str) -> StoreUnreadableError:
        return StoreUnreadableError(f"The store in {self._folder} cannot be read: {why}.", MENDING)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    @property
    def _current(self) -> Contents:
        if self._contents is None:
            raise StoreError("The store is closed.")
        return self._contents

    def close(self) -> None:
        self._mend()
        with self._writing, self._gate.writing():
            if self._contents is not None:
                self._contents = self._index = None
                self._note_length()
                self._journal.close()

    def _mend(self) -> None:
        """Write what scrubbing found damaged, while it is still whole in memory."""
        if not self._rewrite or self._contents is None:
            return
        try:
            self.maintain()
        except StoreError as error:
            _log.warning("damaged files could not be written anew: %s", error.message)

    def _note_length(self) -> None:
        """Write down how long the journal is: should its end get lost in sleep, that is noticed."""
        if self._journal.length == self._snapshot.journal_length or self._refusal:
            return
        try:
            commit_snapshot(self._folder, replace(self._snapshot, journal_length=self._journal.length))
        except OSError as error:
            _log.warning("the length of the journal could not be noted: %s", error)

    # The model.

    @property
    def model(self) -> ModelInfo | None:
        return self._manifest.model

    @property
    def _dimension(self) -> int | None:
        return None if self.model is None else self.model.dimension

    def bind(self, model: ModelInfo) -> None:
        with self._writing, reported(f"take vectors of {model.spec}"):
            check_model(self.model, model)
            if self.model is not None:
                return
            rows = len(self._current.frame)
            index = VectorIndex(model.dimension, codes=np.zeros((rows, model.dimension), dtype=np.float16))
            manifest = replace(self._manifest, model=model)
            settle_manifest(self._folder, manifest)
            with self._gate.writing():
                self._manifest, self._index = manifest, index

    # Writing.

    def apply(self, batch: Batch) -> None:
        if not batch:
            return
        check_ids(batch)
        with self._writing, reported("write a batch"):
            self._check_writable()
            entry = self._entry(batch)
            change = self._change([entry])
            before = self._journal.length
            self._journal.append(encode(entry))
            try:
                self._publish(change)
            except BaseException:
                self._journal.take_back(before)
                # Memory ran out while the index grew: its rows may no longer be those of the frame.
                self._refusal = "a batch was taken into memory by half; restart the daemon"
                raise

    def _check_writable(self) -> None:
        if self._refusal:
            raise StoreError(f"The store in {self._folder} takes nothing more: {self._refusal}.")

    def _entry(self, batch: Batch) -> Entry:
        upserts = [self._upserted(picture) for picture in batch.upserts]
        rows = upserts + [self._patched(record) for record in batch.patches]
        table = to_arrow(rows, None, self._owner)
        patched = (False,) * len(upserts) + (True,) * len(batch.patches)
        codes = [row.vector for row in upserts if row.vector is not None]
        return Entry(table, patched, stacked(codes, self._dimension), batch.deletes)

    def _upserted(self, picture: StoredPicture) -> Row:
        if picture.vector is None:
            return Row(picture.record, None)
        check_vector(picture.vector, self._dimension)
        return Row(picture.record, unit(picture.vector).astype(np.float16))

    def _patched(self, record: ImageRecord) -> Row:
        """The row as it will be; its vector is there already and is not written again."""
        row = self._rows.get(record.id)
        if row is None:
            raise StoreError(f"Nothing to patch: the store has no row {record.id!r}.")
        return Row(record, self._codes()[row] if self._current.vectored[row] else None)

    def _codes(self) -> NDArray[np.float16]:
        return np.empty((0, 0), dtype=np.float16) if self._index is None else self._index.codes()

    def _change(self, entries: Sequence[Entry]) -> Change:
        draft = Draft(self._current, self._rows, self._codes(), self._dimension)
        for entry in entries:
            draft.add(entry)
        return draft.change()

    def _publish(self, change: Change) -> None:
        with self._gate.writing():
            if self._index is not None:
                self._index.append(change.codes)
                self._index.remove(change.dead)
            for key, row in change.rows.items():
                if row is None:
                    self._rows.pop(key, None)
                else:
                    self._rows[key] = row
            self._contents = change.contents

    # Maintenance.

    def maintain(self, *, idle: bool = False) -> None:
        with self._writing, reported("make a snapshot"):
            self._check_writable()
            trained = self._train_if_due()
            if trained or self._needs_fold(idle=idle):
                # One that fails for want of room would fail at each commit, and write all that for nothing.
                self._fold_again_at = time.monotonic() + _FOLD_PAUSE_S
                self._fold()
                self._fold_again_at = 0.0

    def _needs_fold(self, *, idle: bool) -> bool:
        contents = self._current
        unfolded = len(contents.frame) - contents.worded
        gone = contents.worded - int(np.count_nonzero(contents.alive[: contents.worded]))
        changed = max(unfolded, gone)
        enough = min(max(_FOLD_ROWS, len(contents.frame) // _FOLD_SHARE), _MOST_UNFOLDED)
        if idle:
            held = self._snapshot.size if self._snapshot.rows else 0
            wanted = changed >= _FOLD_ROWS or (changed > 0 and self._journal.length > held)
        else:
            wanted = changed >= enough
        return (wanted or self._rewrite) and time.monotonic() >= self._fold_again_at

    def _train_if_due(self) -> bool:
        contents, index = self._current, self._index
        vectors = np.flatnonzero(contents.vectored)
        if index is None or len(vectors) < INDEX_FROM:
            return False
        if index.approximate and index.added_rows * _RETRAIN_SHARE < index.trained_rows:
            return False
        approximate = index.trained(vectors)
        with self._gate.writing():
            index.adopt(approximate, len(vectors))
        return True

    def _fold(self) -> None:
        """Write the living rows as the next snapshot, and go on from there with an empty journal."""
        rows = np.flatnonzero(self._current.alive)
        frame = self._current.frame.compacted(rows)
        index = None if self._index is None else self._index.compacted(rows)
        contents, numbers = whole(frame)
        if self._rewrite:
            settle_manifest(self._folder, self._manifest)
        snapshot, journal = self._write_snapshot(self._snapshot.number + 1, frame, index)
        with self._gate.writing():
            self._index, self._rows, self._contents = index, numbers, contents
        self._journal.close()
        self._journal, self._snapshot, self._rewrite = journal, snapshot, False
        remove_files(self._folder, snapshot.names)

    def _write_snapshot(
        self, number: int, frame: RecordFrame, index: VectorIndex | None
    ) -> tuple[Snapshot, Journal]:
        """Write the files of a snapshot and its empty journal, and make it the valid one.

        :raises OSError: and the one before is the valid one still; or it is not certain which of the two
            is, and then nothing more is written.
        """
        journal = create_journal(self._path(journal_name(number)))
        try:
            snapshot = self._snapshot_files(number, frame, index)
            sync_folder(self._folder)
            commit_snapshot(self._folder, snapshot)
        except BaseException:
            journal.close()
            self._forget_snapshot(number)
            raise
        return snapshot, journal

    def _snapshot_files(self, number: int, frame: RecordFrame, index: VectorIndex | None) -> Snapshot:
        metadata = write_file(self._folder, metadata_name(number), frame.write)
        snapshot = Snapshot(number, len(frame), metadata)
        if index is None:
            return snapshot
        vectors = write_file(
            self._folder, f"vectors-{number}.f16", lambda file: file.write(index.codes().data)
        )
        snapshot = replace(snapshot, vectors=vectors)
        if not index.approximate:
            return snapshot
        approximate = write_file(self._folder, f"index-{number}.ivf", index.write_approximate)
        return replace(
            snapshot,
            approximate=approximate,
            trained_rows=index.trained_rows,
            added_rows=index.added_rows,
        )

    def _forget_snapshot(self, number: int) -> None:
        """Remove what was written of a snapshot that did not become valid."""
        try:
            valid = read_snapshot(self._folder)
        except StoreUnreadableError as error:
            self._refusal = error.message
            return
        if valid is not None and valid.number == number:
            self._refusal = "it is not certain that the newest snapshot is on the disk; restart the daemon"
        else:
            remove_files(self._folder, valid.names if valid else frozenset())

    def scrub(self) -> Iterator[StoreUnreadableError | None]:
        """As the protocol says. What was damaged since it was read is written anew at the next chance."""
        snapshot = self._snapshot
        for damage in self._damages(snapshot):
            if self._snapshot is not snapshot:
                return  # these files are being removed; the next pass reads the new ones
            if damage is not None:
                self._rewrite = True
            yield damage

    def _damages(self, snapshot: Snapshot) -> Iterator[StoreUnreadableError | None]:
        yield self._damage_of(lambda: read_manifest(self._folder), "manifest.json")
        yield self._damage_of(lambda: read_snapshot(self._folder), FILE_NAME)
        for file in snapshot.files:
            for damage in damage_by_block(self._folder, file):
                yield None if damage is None else damaged(self._path(file.name), damage)
        journal, length = self._path(snapshot.journal_name), self._journal.length
        yield self._damage_of(lambda: verify_journal(journal, length), snapshot.journal_name)

    def _damage_of(self, read: Callable[[], object], name: str) -> StoreUnreadableError | None:
        """What is wrong with a file that is read as a whole; ``read`` gives nothing where there is none."""
        try:
            return None if read() else damaged(self._path(name), "it is missing")
        except StoreUnreadableError as error:
            return error

    # Reading rows.

    def get(self, ids: Sequence[str], *, vectors: bool = True) -> list[StoredPicture]:
        with reported("read pictures"), self._gate.reading():
            rows = [self._rows[key] for key in ids if key in self._rows]
            return self._stored(self._current, rows, vectors=vectors)

    def _stored(
        self, contents: Contents, rows: Sequence[int], *, vectors: bool = True
    ) -> list[StoredPicture]:
        numbers = np.array(rows, dtype=np.int64)
        codes = self._codes()
        return [
            StoredPicture(record, unit(codes[row]) if vectors and contents.vectored[row] else None)
            for row, record in zip(rows, records(contents.frame.take(numbers, RECORD_COLUMNS)), strict=True)
        ]

    def find_vector(self, content_hash: str) -> Vector | None:
        with reported("look up a vector"), self._gate.reading():
            contents = self._current
            rows = contents.frame.rows_of_content(content_hash)
            found = rows[contents.vectored[rows]]
            return unit(self._codes()[found[0]]) if len(found) else None

    def find_vectors(self, content_hashes: Collection[str]) -> dict[str, Vector]:
        with reported("look up vectors"), self._gate.reading():
            contents = self._current
            rows = contents.frame.rows_of_contents(content_hashes)
            rows = rows[contents.vectored[rows]]
            found = contents.frame.take(rows, ["content_hash"])["content_hash"].to_pylist()
            codes = self._codes()
            return {
                str(content_hash): unit(codes[row]) for content_hash, row in zip(found, rows, strict=True)
            }

    def scan(
        self,
        condition: Condition | None = None,
        *,
        own: bool = False,  # noqa: ARG002 - all rows here are own
    ) -> Iterator[ImageRecord]:
        with reported("read all pictures"):
            contents = self._current
            rows = np.flatnonzero(contents.selected(condition))
            for start in range(0, len(rows), _PAGE):
                yield from records(contents.frame.take(rows[start : start + _PAGE], RECORD_COLUMNS))

    def pictures(self) -> Iterator[StoredPicture]:
        with reported("read all pictures"):
            contents = self._current
            # By ids: a snapshot in between numbers the rows anew.
            ids = iter(ids_of(contents.frame.table.filter(pa.array(contents.alive))))
            while page := list(islice(ids, _PAGE)):
                yield from self.get(page)

    def count(
        self,
        condition: Condition | None = None,
        *,
        own: bool = False,  # noqa: ARG002 - all rows here are own
    ) -> int:
        with reported("count pictures"):
            return int(np.count_nonzero(self._current.selected(condition)))

    def stats(self) -> StoreStats:
        with reported("tell its size"):
            contents = self._current
            return StoreStats(
                kind=KIND,
                uri=self._folder,
                rows=int(np.count_nonzero(contents.alive)),
                vectors=int(np.count_nonzero(contents.vectored)),
                bytes_on_disk=sum(size_of(entry) for entry in files_below(self._folder)),
            )

    # Searching.

    def nearest(self, vector: Vector, limit: int, condition: Condition | None = None) -> list[Match]:
        if self._dimension is None or limit < 1:
            return []
        check_vector(vector, self._dimension)
        with reported("search by vector"), self._gate.reading():
            contents = self._current
            among = contents.vectored & contents.selected(condition)
            return most_similar(lambda wanted: self._candidates(vector, wanted, among), vector, limit)

    def _candidates(self, vector: Vector, limit: int, among: NDArray[np.bool_]) -> Candidates:
        assert self._index is not None  # noqa: S101 - who has a dimension has an index
        rows, least = self._index.search(unit(vector), limit, among)
        return Candidates(self._current.frame.take(rows, PLACE_COLUMNS), self._index.codes()[rows], least)

    def matching(self, words: Sequence[str], limit: int, condition: Condition | None = None) -> list[Match]:
        if not words or limit < 1:
            return []
        with reported("search by words"):
            contents = self._current
            by_word = [contents.rows_with(word) for word in dict.fromkeys(words)]
            best = self._best_worded(contents, by_word, limit, condition)
            lengths: list[int] = best["word_count"].to_numpy().tolist()
            known = TextStatistics(*contents.lengths(), tuple(len(rows) for rows in by_word))
            scores = scores_by_length(lengths, known)
            found = zip(places(best), lengths, strict=True)
            return best_first(Match(*place, scores[length]) for place, length in found)

    def _best_worded(
        self,
        contents: Contents,
        by_word: Sequence[NDArray[np.int32]],
        limit: int,
        condition: Condition | None,
    ) -> pa.Table:
        rows = reduce(lambda some, more: np.intersect1d(some, more, assume_unique=True), by_word)
        if condition is not None:
            rows = rows[contents.selected(condition)[rows]]
        keys = contents.frame.take(rows, ["word_count", "path_bytes"]).append_column("row", pa.array(rows))
        best = best_worded(keys, limit)["row"].to_numpy()
        return contents.frame.take(best, [*PLACE_COLUMNS, "word_count"])
