"""The store on LanceDB: vectors and metadata in one table, in a folder of its own.

One table handle serves all threads: LanceDB's calls are thread-safe, a commit is visible to the handle
that made it at once, and a read sees one version of the table from its beginning to its end. Old versions
are kept for a while, so that a long read outlives the writer's compaction.

LanceDB flushes nothing to the disk by itself, does not notice an id that is twice in what it merges, and
opens a table whose newest version was zeroed by a crash as an empty one. All three are seen to here.
"""

from __future__ import annotations

import glob
import logging
import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.index import FTS
from lancedb.query import FullTextOperator, MatchQuery

from imagedbd.datatypes import Match, StoredPicture, StoreStats
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.ranking import best_first, unit

from .lance_sql import text_sql, to_sql
from .manifest import SCHEMA, VECTOR_DTYPE, Manifest, read_manifest, sync_folder, write_manifest
from .rescoring import Candidates, TextStatistics, best_worded, most_similar, scores_by_length
from .rows import (
    HAS_VECTOR,
    OWNER,
    RECORD_COLUMNS,
    VECTOR,
    Row,
    records,
    stored_vectors,
    table_schema,
    to_arrow,
    vector_field,
    vector_matrix,
)
from .syncing import FolderSync, files_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from imagedbd.datatypes import Batch, Condition, ImageRecord, ModelInfo, Vector

    from .rows import StoredVector

_log = logging.getLogger(__name__)

KIND: Final = "lance"

_TABLE = "pictures"

_TEXT_INDEX = FTS(
    # Words come folded and separated by spaces: the index takes them as they are, all and whole.
    base_tokenizer="whitespace",
    max_token_length=None,
    lower_case=False,
    stem=False,
    remove_stop_words=False,
    ascii_folding=False,
)

_SCAN_ROWS = 2_000
"""Rows that a scan holds in memory at a time."""

_IDS_PER_QUERY = 1_000

_EVERYTHING = 2**31 - 1
"""A limit that limits nothing."""

_SMALL_FRAGMENTS_BUSY = 64
_SMALL_FRAGMENTS_IDLE = 8
"""Compaction rewrites the whole table, so it waits for as many commits as searches bear well."""

_KEEP_VERSIONS = timedelta(minutes=15)
"""Longer than any read takes: a version's files are not deleted under it."""

_CACHE_BYTES = 64 * 2**20
"""For each of LanceDB's two caches, which by default may fill gigabytes with what old versions were like."""


class LanceStore:
    """:class:`~imagedbd.datatypes.Store` on LanceDB.

    :param folder: where the table and its manifest are, or will be made.
    :param owner: which daemon writes these rows.
    :param exclusive: nobody else has the store open; what earlier runs left behind is cleaned up.
    :raises StoreUnreadableError: if what is there cannot be read.
    :raises StoreError: if a new store cannot be made there.
    """

    def __init__(
        self,
        folder: str,
        *,
        owner: str = "",
        exclusive: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._owner = owner
        self._options = options
        self._folder = os.path.abspath(folder)
        self._writing = threading.Lock()
        self._files = FolderSync(self._folder)
        self._lengths: _Lengths | None = None
        self._prune_after: float | None = None
        session = lancedb.Session(index_cache_size_bytes=_CACHE_BYTES, metadata_cache_size_bytes=_CACHE_BYTES)
        with _reported(f"open {self._folder}"):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            self._connection: Any = lancedb.connect(self._folder, session=session)
            self._manifest = read_manifest(self._folder) or self._make()
        self._check_manifest()
        self._table: Any = self._open_table()
        if exclusive:
            self._clean_up()
        self._files.sync()

    # Opening and closing.

    def _make(self) -> Manifest:
        """Make the table and then the manifest: a table without one is what a crash in between left."""
        if _TABLE in self._connection.list_tables().tables:
            self._check_abandoned()
            self._connection.drop_table(_TABLE)
        table = self._connection.create_table(_TABLE, schema=table_schema(None))
        table.create_index("text", config=_TEXT_INDEX)
        self._files.sync()
        sync_folder(os.path.dirname(self._folder))
        manifest = Manifest(KIND)
        write_manifest(self._folder, manifest)
        return manifest

    def _check_abandoned(self) -> None:
        if self._connection.open_table(_TABLE).count_rows() > 0:
            raise self._unreadable("its manifest.json is missing")

    def _check_manifest(self) -> None:
        found = self._manifest
        if found.kind != KIND:
            raise self._unreadable(f"it was written by the {found.kind} store")
        if (found.schema, found.vector_dtype) != (SCHEMA, VECTOR_DTYPE):
            raise self._unreadable(f"its schema is {found.schema} with {found.vector_dtype} vectors")

    def _open_table(self) -> Any:
        self._check_newest_version()
        try:
            table = self._connection.open_table(_TABLE)
            columns = set(table.schema.names)
        except _ENGINE_ERRORS as error:
            raise self._unreadable(str(error)) from error
        if missing := set(table_schema(self._dimension).names) - columns:
            raise self._unreadable(f"it lacks the columns {', '.join(sorted(missing))}")
        return table

    def _check_newest_version(self) -> None:
        """A version whose file was not whole when the power went is opened as an empty table."""
        versions = glob.glob(os.path.join(glob.escape(self._table_folder), "_versions", "*.manifest"))
        if not versions:
            raise self._unreadable("its table is missing")
        newest = min(versions)  # their names count down
        with open(newest, "rb") as file:
            file.seek(max(0, os.path.getsize(newest) - 4))
            if file.read() != b"LANC":
                raise self._unreadable(f"{newest} is damaged")

    def _unreadable(self, why: str) -> StoreUnreadableError:
        return StoreUnreadableError(
            f"The store in {self._folder} cannot be read: {why}. Run `imagedbd repair` to mend it."
        )

    def _clean_up(self) -> None:
        """Drop old versions, and files that an interrupted write left: with nobody reading, they may go."""
        try:
            self._table.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)
        except _ENGINE_ERRORS as error:
            _log.warning("The store could not be cleaned up: %s", error)

    @property
    def _table_folder(self) -> str:
        return os.path.join(self._folder, f"{_TABLE}.lance")

    @property
    def _pictures(self) -> Any:
        if self._table is None:
            raise StoreError("The store is closed.")
        return self._table

    def close(self) -> None:
        with self._writing:
            self._table = None

    # The model.

    @property
    def model(self) -> ModelInfo | None:
        return self._manifest.model

    @property
    def _dimension(self) -> int | None:
        return None if self.model is None else self.model.dimension

    def bind(self, model: ModelInfo) -> None:
        with self._writing, _reported(f"take vectors of {model.spec}"):
            if self.model is None:
                self._bind(model)
            elif (self.model.key, self.model.dimension) != (model.key, model.dimension):
                raise StoreError(
                    f"The store holds vectors of {self.model.spec}, which cannot go with {model.spec}."
                )

    def _bind(self, model: ModelInfo) -> None:
        """Add the vectors' column and then write the manifest: a column without one holds nothing yet."""
        if VECTOR in self._pictures.schema.names:
            self._pictures.drop_columns([VECTOR])
        self._pictures.add_columns(vector_field(model.dimension))
        self._files.sync()
        manifest = replace(self._manifest, model=model)
        write_manifest(self._folder, manifest)
        self._manifest = manifest

    # Writing.

    def apply(self, batch: Batch) -> None:
        if not batch:
            return
        _check_ids(batch)
        with self._writing, _reported("write a batch"):
            rows = [self._upserted(picture) for picture in batch.upserts] + self._patched(batch.patches)
            self._commit(lambda: self._write(rows, batch.deletes))

    def _upserted(self, picture: StoredPicture) -> Row:
        if picture.vector is None:
            return Row(picture.record, None)
        self._check_vector(picture.vector)
        return Row(picture.record, unit(picture.vector).astype(np.float16))

    def _check_vector(self, vector: Vector) -> None:
        if self._dimension is None:
            raise StoreError("The store takes no vectors yet: it is bound to no model.")
        if vector.shape != (self._dimension,):
            raise StoreError(
                f"A vector has the shape {vector.shape}; this store's have {self._dimension} numbers."
            )
        if not np.isfinite(vector).all() or not vector.any():
            raise StoreError("A vector has no direction: it is zero or has numbers that are not finite.")

    def _patched(self, patches: Sequence[ImageRecord]) -> list[Row]:
        """The patches with the vectors that are there.

        A merge of some columns would spare their reading, but it writes whole rows all the same, and takes
        five times as long.
        """
        vectors = self._vectors([record.id for record in patches])
        if unknown := [record.id for record in patches if record.id not in vectors]:
            raise StoreError(f"Nothing to patch: the store has no row {unknown[0]!r}.")
        return [Row(record, vectors[record.id]) for record in patches]

    def _vectors(self, ids: Sequence[str]) -> dict[str, StoredVector | None]:
        return {
            key: vector
            for table in self._rows_of(ids, ["id", *self._vector_column])
            for key, vector in zip(table["id"].to_pylist(), self._vectors_in(table), strict=True)
        }

    def _vectors_in(self, table: Any) -> list[StoredVector | None]:
        return stored_vectors(table[VECTOR]) if self._vector_column else [None] * table.num_rows

    def _commit(self, write: Callable[[], object]) -> None:
        """Write one version and make it durable, or go back to the one before."""
        before = self._pictures.version
        try:
            write()
            self._files.sync()
        except BaseException:
            if self._pictures.version != before:
                self._pictures.restore(before)
            raise

    def _write(self, rows: Sequence[Row], deletes: Sequence[str]) -> None:
        if not rows:
            self._pictures.delete(_ids_sql(deletes))
            return
        merge = self._pictures.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        if deletes:
            merge = merge.when_not_matched_by_source_delete(_ids_sql(deletes))
        # Rows without a vector count as bad ones there; those that are really bad were refused before.
        merge.execute(to_arrow(rows, self._dimension, self._owner), on_bad_vectors="null")

    def maintain(self, *, idle: bool = False) -> None:
        with self._writing, _reported("compact its files"):
            if self._needs_compaction(idle=idle):
                self._compact()

    def _needs_compaction(self, *, idle: bool) -> bool:
        small = self._pictures.stats()["fragment_stats"]["num_small_fragments"]
        if small >= (_SMALL_FRAGMENTS_IDLE if idle else _SMALL_FRAGMENTS_BUSY):
            return True
        return idle and self._prune_after is not None and time.monotonic() > self._prune_after

    def _compact(self) -> None:
        before = self._pictures.version
        self._pictures.optimize(cleanup_older_than=_KEEP_VERSIONS)
        self._files.sync()
        # What was compacted stays on disk until it is old enough, and only another pass removes it.
        compacted = self._pictures.version != before
        self._prune_after = time.monotonic() + _KEEP_VERSIONS.total_seconds() if compacted else None

    # Reading rows.

    def get(self, ids: Sequence[str]) -> list[StoredPicture]:
        with _reported("read pictures"):
            return [
                picture
                for table in self._rows_of(ids, [*RECORD_COLUMNS, *self._vector_column])
                for picture in self._stored_pictures(table)
            ]

    def _stored_pictures(self, table: Any) -> list[StoredPicture]:
        return [
            StoredPicture(record, None if vector is None else unit(vector))
            for record, vector in zip(records(table), self._vectors_in(table), strict=True)
        ]

    @property
    def _vector_column(self) -> list[str]:
        return [] if self._dimension is None else [VECTOR]

    def _rows_of(self, ids: Sequence[str], columns: list[str]) -> Iterator[Any]:
        for start in range(0, len(ids), _IDS_PER_QUERY):
            some = _ids_sql(ids[start : start + _IDS_PER_QUERY])
            yield self._pictures.search().where(some).select(columns).to_arrow()

    def find_vector(self, content_hash: str) -> Vector | None:
        if self._dimension is None:
            return None
        with _reported("look up a vector"):
            where = f"content_hash = {text_sql(content_hash)} AND {HAS_VECTOR}"
            found = self._pictures.search().where(where).select([VECTOR]).limit(1).to_arrow()
            return unit(vector_matrix(found[VECTOR])[0]) if found.num_rows else None

    def scan(self, condition: Condition | None = None, *, own: bool = False) -> Iterator[ImageRecord]:
        with _reported("read all pictures"):
            query = _filtered(self._pictures.search(), self._where(condition, own=own)).select(RECORD_COLUMNS)
            for batch in query.to_batches(batch_size=_SCAN_ROWS):
                yield from records(batch)

    def pictures(self) -> Iterator[StoredPicture]:
        with _reported("read all pictures"):
            query = _filtered(self._pictures.search(), self._where(None, own=True))
            query = query.select([*RECORD_COLUMNS, *self._vector_column])
            for batch in query.to_batches(batch_size=_SCAN_ROWS):
                yield from self._stored_pictures(pa.Table.from_batches([batch]))

    def count(self, condition: Condition | None = None, *, own: bool = False) -> int:
        with _reported("count pictures"):
            return int(self._pictures.count_rows(self._where(condition, own=own)))

    def _where(self, condition: Condition | None, *, own: bool) -> str | None:
        parts = [f"{OWNER} = {text_sql(self._owner)}"] if own else []
        if condition is not None:
            parts.append(f"({to_sql(condition)})" if parts else to_sql(condition))
        return " AND ".join(parts) or None

    def scrub(self) -> Iterator[str | None]:
        yield from ()

    def stats(self) -> StoreStats:
        with _reported("tell its size"):
            return StoreStats(
                kind=KIND,
                uri=self._folder,
                rows=self._pictures.count_rows(),
                vectors=self._pictures.count_rows(HAS_VECTOR),
                bytes_on_disk=sum(_size(entry) for entry in files_below(self._folder)),
            )

    # Searching by vector.

    def nearest(self, vector: Vector, limit: int, condition: Condition | None = None) -> list[Match]:
        if self._dimension is None or limit < 1:
            return []
        self._check_vector(vector)
        with _reported("search by vector"):
            where = self._where(condition, own=False)
            return most_similar(lambda wanted: self._candidates(vector, wanted, where), vector, limit)

    def _candidates(self, vector: Vector, limit: int, where: str | None) -> Candidates:
        # For vectors of length one the Euclidean distance orders like the cosine, and is faster to compute.
        query = self._pictures.search(unit(vector), vector_column_name=VECTOR).distance_type("l2")
        columns = [*RECORD_COLUMNS, VECTOR, "_distance"]
        found = _filtered(query, where, prefilter=True).limit(limit).select(columns).to_arrow()
        least = 1.0 - (pc.max(found["_distance"]).as_py() or 0.0) / 2
        return Candidates(found.drop_columns(["_distance"]), vector_matrix(found[VECTOR]), least)

    # Searching by words.

    def matching(self, words: Sequence[str], limit: int, condition: Condition | None = None) -> list[Match]:
        if not words or limit < 1:
            return []
        with _reported("search by words"):
            lengths = self._shortest(words, limit, condition)
            scores = self._scores(words, lengths) if lengths else {}
            found = [
                record for table in self._rows_of(list(lengths), RECORD_COLUMNS) for record in records(table)
            ]
            return best_first(Match(record, scores[lengths[record.id]]) for record in found)

    def _shortest(self, words: Sequence[str], limit: int, condition: Condition | None) -> dict[str, int]:
        """The ids and lengths of the matches that score best: the fewer words, the higher the score."""
        query = self._pictures.search(_all_of_them(words), query_type="fts")
        columns = ["id", "word_count", "path_bytes", "_score"]
        where = self._where(condition, own=False)
        found = _filtered(query, where, prefilter=True).limit(_EVERYTHING).select(columns).to_arrow()
        best = best_worded(found, limit)
        return dict(zip(best["id"].to_pylist(), best["word_count"].to_pylist(), strict=True))

    def _scores(self, words: Sequence[str], lengths: dict[str, int]) -> Mapping[int, float]:
        """BM25 by the length of the text."""
        known = self._known_lengths()
        frequencies = (self._pictures.count_rows(_has_word_sql(word)) for word in dict.fromkeys(words))
        statistics = TextStatistics(known.rows, known.mean, tuple(frequencies))
        return scores_by_length(list(lengths.values()), statistics)

    def _known_lengths(self) -> _Lengths:
        """Rows and their mean length; read once for each version of the table."""
        version = self._pictures.version
        if self._lengths is None or self._lengths.version != version:
            column = self._pictures.search().select(["word_count"]).to_arrow()["word_count"]
            mean = pc.mean(column).as_py() or 0.0
            self._lengths = _Lengths(version, len(column), mean)
        return self._lengths


@dataclass(frozen=True, slots=True)
class _Lengths:
    """How long the texts are in one version of the table."""

    version: int
    rows: int
    mean: float


_ENGINE_ERRORS = (RuntimeError, ValueError, OSError, pa.ArrowException)
"""What LanceDB and Arrow raise."""


@contextmanager
def _reported(doing: str) -> Iterator[None]:
    """Turn an engine's error into ours: the store could not do what it was doing."""
    try:
        yield
    except _ENGINE_ERRORS as error:
        raise StoreError(f"The store could not {doing}: {error}") from error


def _check_ids(batch: Batch) -> None:
    written = [picture.record.id for picture in batch.upserts] + [record.id for record in batch.patches]
    repeated = [key for key, times in Counter([*written, *set(batch.deletes)]).items() if times > 1]
    if repeated:
        raise StoreError(f"The id {repeated[0]!r} is in the batch more than once.")


def _ids_sql(ids: Iterable[str]) -> str:
    return f"id IN ({', '.join(text_sql(key) for key in ids)})"


def _has_word_sql(word: str) -> str:
    return f"contains(concat(' ', text, ' '), {text_sql(f' {word} ')})"


def _filtered(query: Any, where: str | None, **how: bool) -> Any:
    return query if where is None else query.where(where, **how)


def _all_of_them(words: Sequence[str]) -> Any:
    # A pydantic dataclass, whose fields mypy does not see.
    return MatchQuery(" ".join(words), "text", fuzziness=0, operator=FullTextOperator.AND)  # type: ignore[call-arg]


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # compaction removed it just now
        return 0
