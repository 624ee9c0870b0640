"""The store on LanceDB: vectors and metadata in one table, in a folder of its own or at a remote service.

One table handle serves all threads: LanceDB's calls are thread-safe, a commit is visible to the handle
that made it at once, and a read sees one version of the table from its beginning to its end. Old versions
are kept while a read may need them, so that a long one outlives the writer's compaction. Where the index has
outgrown its cache or is made anew, another handle takes the place of that one, which reads under way go on
with.

LanceDB does not notice an id that is twice in what it merges: that is seen to here. What it lacks of
durability is seen to by the :mod:`place <imagedbd.stores.lance_place>` that the table is in.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.index import FTS, IvfSq
from lancedb.query import FullTextOperator, MatchQuery

from imagedbd.datatypes import Match, StoredPicture, StoreStats
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.ranking import best_first, unit

from .checks import ENGINE_ERRORS, check_ids, check_model, check_vector, panics_as_errors, reported
from .inventory import Work
from .lance_folder import LanceFolder
from .lance_migrations import MIGRATIONS
from .lance_place import CACHE_BYTES, TABLE
from .lance_service import LanceService
from .lance_sql import text_sql, to_sql
from .manifest import SCHEMA, VECTOR_DTYPE, Manifest
from .reads import RunningReads
from .rescoring import Candidates, TextStatistics, best_worded, most_similar, scores_by_length
from .row_ids import ROW_ID, RowIds
from .rows import (
    HAS_VECTOR,
    OWNER,
    PLACE_COLUMNS,
    RECORD_COLUMNS,
    VECTOR,
    Row,
    places,
    records,
    stored_vectors,
    table_schema,
    to_arrow,
    vector_field,
    vector_matrix,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from imagedbd.datatypes import Batch, Condition, ImageRecord, ModelInfo, Vector

    from .lance_place import Place
    from .rows import StoredVector

_log = logging.getLogger(__name__)

KIND: Final = "lance"

_TEXT_INDEX = FTS(
    # Words come folded and separated by spaces: the index takes them as they are, all and whole.
    base_tokenizer="whitespace",
    max_token_length=None,
    lower_case=False,
    stem=False,
    remove_stop_words=False,
    ascii_folding=False,
)

_VECTOR_INDEX = IvfSq(
    # For vectors of length one the Euclidean distance orders like the cosine, and is faster to compute.
    distance_type="l2",
    sample_rate=64,
)

INDEX_FROM = 20_000
"""From how many vectors on an approximate index is made: fewer are compared one by one, exactly."""

_UNINDEXED_SHARE = 0.1
"""Rows that are not in the index yet are compared one by one; with more of them than this it is made anew."""

_INDEX_PARTS = 6
"""Each compaction adds a part to the index, and a file that is not merged with those of other parts."""

_PROBES = 20
"""Of an index's partitions, about 8,000 vectors each, how many a search looks into at least."""

_UNTIL_ENOUGH = 0
"""No upper bound: more partitions are looked into until a condition has let enough rows pass."""

_REFINE = 3
"""How many times as many candidates as asked for are compared by their own vectors."""

_SCAN_ROWS = 2_000
"""Rows that a scan holds in memory at a time."""

_IDS_PER_QUERY = 1_000

_WORDS_KEPT = 10_000
"""Words whose frequency is remembered as long as nothing is written."""

_EVERYTHING = 2**31 - 1
"""A limit that limits nothing."""

_SMALL_FRAGMENTS_BUSY = 64
_SMALL_FRAGMENTS_IDLE = 8
"""Compaction rewrites the whole table, so it waits for as many commits as searches bear well."""

_LONGEST_READ = timedelta(minutes=15)
"""A version's files are not deleted under a read, unless that goes on for longer."""

_CLOCK_SLACK = timedelta(minutes=1)
"""LanceDB reckons ages from when it comes to delete."""

_AT_ONCE = timedelta(milliseconds=1)

_FOREVER = timedelta(days=36_500)

_CACHE_SPARE = 4
"""Indices may grow by one part in this many before their cache is made larger."""

_CACHE_SHARE = 4
"""Of the machine's memory, indices are kept in one part in this many at most."""

_OPTIMIZE_PASSES = 4

_ATTEMPTS = 3

_T = TypeVar("_T")


class LanceStore:
    """:class:`~imagedbd.datatypes.Store` on LanceDB.

    :param place: a folder, where the table and its manifest are or will be made, or the URI of a remote one.
    :param owner: which daemon writes these rows.
    :param exclusive: nobody else has the folder open, so that what was interrupted there is taken back.
    :param options: of a remote place.
    :param on_doubt: called when a read or a write failed as damage would make it fail.
    :raises ConfigError: if the remote place cannot be used with these options.
    :raises StoreUnreadableError: if what is there cannot be read.
    :raises StoreError: if a new store cannot be made there.
    """

    def __init__(
        self,
        place: str,
        *,
        owner: str = "",
        exclusive: bool = False,
        options: Mapping[str, str] | None = None,
        on_doubt: Callable[[], object] = lambda: None,
    ) -> None:
        self._owner = owner
        self._on_doubt = on_doubt
        self._place = _place_of(place, owner, options, exclusive=exclusive)
        self._writing = threading.Lock()
        self._reads = RunningReads()
        self._texts: _Texts | None = None
        self._row_ids = RowIds()
        self._indexed = False
        self._cache_bytes = CACHE_BYTES
        self._looked_at: int | None = None
        self._left_behind = exclusive and not self._place.shared
        """Whether old versions may be there that no read needs."""
        self._torn = False
        """Whether a failed write could not be taken back yet."""
        with reported(f"open {self._place.name}"):
            self._manifest = self._agreeing(lambda: self._place.manifest() or self._make())
        self._check_manifest()
        self._table: Any = self._examined_table()
        with self._reported(f"bring {self._place.name} up to date"):
            self._migrate()
            if self._place.shared:
                self._agreeing(lambda: _ensure_text_index(self._pictures))
            self._ensure_vector_column(self._manifest)
        self._check_columns()

    # Opening and closing.

    def _make(self) -> Manifest:
        """Make the table and then the manifest: a table without one is what a crash in between left."""
        connection = self._place.connect(self._cache_bytes)
        self._place.clear(connection)
        table = connection.create_table(TABLE, schema=table_schema(None), exist_ok=True)
        _ensure_text_index(table)
        return self._place.settle(Manifest(KIND))

    def _agreeing(self, step: Callable[[], _T]) -> _T:
        """Do what may be done twice; where another daemon does it at the same moment, look again."""
        for _ in range(_ATTEMPTS if self._place.shared else 0):
            with suppress(*ENGINE_ERRORS):
                return step()
        return step()

    def _check_manifest(self) -> None:
        found = self._manifest
        if found.kind != KIND:
            raise self._place.unreadable(f"it was written by the {found.kind} store")
        if found.schema > SCHEMA:
            raise StoreUnreadableError(
                f"The store in {self._place.name} was written by a newer imagedbd (schema {found.schema}; "
                f"this one reads {SCHEMA}).",
                "Upgrade it, or make the store anew with `imagedbd repair`.",
            )
        if found.vector_dtype != VECTOR_DTYPE or found.schema not in {SCHEMA, *MIGRATIONS}:
            raise self._place.unreadable(f"its schema is {found.schema} with {found.vector_dtype} vectors")

    def _examined_table(self) -> Any:
        with reported(f"open {self._place.name}"):
            doubtful = self._place.examine(self._manifest)
        try:
            with panics_as_errors():
                table = self._open_table()
                if doubtful:
                    _read_everything(table)
        except ENGINE_ERRORS as error:
            raise self._place.unreadable(str(error)) from error
        if doubtful:
            with reported(f"open {self._place.name}"):
                self._place.vouch()
        return table

    def _open_table(self) -> Any:
        """The table in a new session, whose cache has room for the indices and nothing of older ones."""
        table = self._place.connect(self._cache_bytes).open_table(TABLE)
        if (wanted := _cache_for(table)) > self._cache_bytes:
            self._cache_bytes = wanted
            table = self._place.connect(wanted).open_table(TABLE)
        self._indexed = _vector_index(table) is not None
        return table

    def _migrate(self) -> None:
        """Bring an older schema up to date, a step at a time; one that was interrupted is done again."""
        while step := MIGRATIONS.get(self._manifest.schema):
            _log.info("the store in %s is migrated from schema %d", self._place.name, self._manifest.schema)
            with self._rewriting():
                step(self._table)
            self._manifest = self._place.settle(replace(self._manifest, schema=self._manifest.schema + 1))

    def _check_columns(self) -> None:
        if missing := set(table_schema(self._dimension).names) - set(self._pictures.schema.names):
            raise self._place.unreadable(f"it lacks the columns {', '.join(sorted(missing))}")

    @property
    def _pictures(self) -> Any:
        if self._table is None:
            raise StoreError("The store is closed.")
        return self._table

    def _reported(self, doing: str) -> AbstractContextManager[None]:
        return reported(doing, self._doubted if self._place.mending else None)

    def _doubted(self) -> str:
        self._on_doubt()
        return self._place.mending

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
        with self._writing, self._reported(f"take vectors of {model.spec}"):
            self._mend()
            if self.model is None:
                self._bind(model)
            check_model(self.model, model)

    def _bind(self, model: ModelInfo) -> None:
        """Write the manifest and then the column: among several daemons it decides whose model holds."""
        manifest = self._place.settle(replace(self._manifest, model=model))
        self._ensure_vector_column(manifest)
        self._manifest = manifest

    def _ensure_vector_column(self, manifest: Manifest) -> None:
        if manifest.model is not None:
            dimension = manifest.model.dimension
            self._agreeing(lambda: self._add_vector_column(dimension))

    def _add_vector_column(self, dimension: int) -> None:
        """Add the column, if a binding was interrupted before it did; one of another kind holds nothing."""
        wanted = vector_field(dimension)
        present = self._pictures.schema
        if VECTOR in present.names and present.field(VECTOR).type == wanted.type:
            return
        with self._rewriting():
            if VECTOR in present.names:
                self._pictures.drop_columns([VECTOR])
            self._pictures.add_columns(wanted)

    # Writing.

    def apply(self, batch: Batch) -> None:
        if not batch:
            return
        check_ids(batch)
        with self._writing, self._reported("write a batch"):
            self._mend()
            self._notice_binding()
            rows = [self._upserted(picture) for picture in batch.upserts] + self._patched(batch.patches)
            with self._committing():
                self._write(rows, batch.deletes)

    def _notice_binding(self) -> None:
        """Another daemon may have bound a model, so that rows have vectors now."""
        if self._place.shared and self.model is None:
            self._manifest = self._place.manifest() or self._manifest

    def _upserted(self, picture: StoredPicture) -> Row:
        if picture.vector is None:
            return Row(picture.record, None)
        check_vector(picture.vector, self._dimension)
        return Row(picture.record, unit(picture.vector).astype(np.float16))

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
        there = VECTOR in table.column_names
        return stored_vectors(table[VECTOR]) if there else [None] * table.num_rows

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """What is written is made durable at the end, or taken back."""
        began = time.time()
        try:
            yield
            self._place.acknowledge()
        except BaseException:
            self._take_back()
            raise
        self._reads.superseded(began)

    @contextmanager
    def _rewriting(self) -> Iterator[None]:
        """As :meth:`_committing`, for what takes more than one version of the table."""
        self._place.begin(Work.REWRITE)
        with self._committing():
            yield

    def _take_back(self) -> None:
        try:
            self._torn = True
            self._mend()
        except (*ENGINE_ERRORS, StoreError) as error:
            _log.warning(
                "what failed could not be taken back; it is tried again before the next write: %s", error
            )

    def _mend(self) -> None:
        """Take back a write that failed, if that was not possible at once."""
        if self._torn:
            if self._place.undo():
                self._table = self._open_table()
            self._torn = False

    def _write(self, rows: Sequence[Row], deletes: Sequence[str]) -> None:
        if not rows:
            self._pictures.delete(_ids_sql(deletes))
            return
        merge = self._pictures.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        if deletes:
            merge = merge.when_not_matched_by_source_delete(_ids_sql(deletes))
        # Rows without a vector count as bad ones there; those that are really bad were refused before.
        merge.execute(to_arrow(rows, self._dimension, self._owner), on_bad_vectors="null")

    # Maintenance.

    def maintain(self, *, idle: bool = False) -> None:
        with self._writing, self._reported("compact its files"):
            self._mend()
            if self._needs_compaction(idle=idle) and self._place.may_maintain():
                self._compact()
                self._clean()

    def _needs_compaction(self, *, idle: bool) -> bool:
        if idle and self._left_behind:
            return True
        small = self._pictures.stats()["fragment_stats"]["num_small_fragments"]
        return bool(small >= (_SMALL_FRAGMENTS_IDLE if idle else _SMALL_FRAGMENTS_BUSY))

    def _compact(self) -> None:
        """Write few fragments in the place of many, and put the new rows into the indices."""
        with self._rewriting():
            if anew := self._index_is_due():
                self._make_index()
            self._optimize_fully()
        if anew or _cache_for(self._pictures) > self._cache_bytes:
            self._table = self._open_table()

    def _make_index(self) -> None:
        """Make the index of vectors anew, over one file without deleted rows.

        Without an index all files are merged. With deleted rows among them, choosing the vectors that an
        index is trained on takes twenty times as long as all the rest.
        """
        if name := _vector_index(self._pictures):
            self._pictures.drop_index(name)
        self._optimize_fully()
        self._pictures.create_index(VECTOR, config=_VECTOR_INDEX)

    def _optimize_fully(self) -> None:
        """Optimize until nothing is left to do: at first, files in an index are not merged with others."""
        for _ in range(_OPTIMIZE_PASSES):
            before = self._pictures.version
            self._pictures.optimize(cleanup_older_than=_FOREVER)
            if self._pictures.version == before:
                return

    def _index_is_due(self) -> bool:
        if self._dimension is None or self._pictures.count_rows(HAS_VECTOR) < INDEX_FROM:
            return False
        name = _vector_index(self._pictures)
        if name is None:
            return True
        known = self._pictures.index_stats(name)
        return bool(
            known.num_indices >= _INDEX_PARTS
            or known.num_unindexed_rows > _UNINDEXED_SHARE * known.num_indexed_rows
        )

    def _clean(self) -> None:
        """Delete old versions. What was just compacted is not compacted again, so that none is added."""
        self._left_behind = True
        unused = self._place.keep_versions or self._unused_for()
        self._place.begin(Work.CLEAN)
        self._pictures.optimize(cleanup_older_than=unused, delete_unverified=not self._place.shared)
        self._place.vouch()
        self._left_behind = unused > _AT_ONCE and not self._place.shared

    def _unused_for(self) -> timedelta:
        """The age from which on no read that is under way can need a version."""
        oldest = self._reads.oldest()
        if oldest is None:
            return _AT_ONCE
        return min(timedelta(seconds=max(0.0, time.time() - oldest)) + _CLOCK_SLACK, _LONGEST_READ)

    # Reading rows.

    @contextmanager
    def _reading(self, doing: str) -> Iterator[None]:
        with self._reported(doing), self._reads.one():
            yield

    def get(self, ids: Sequence[str], *, vectors: bool = True) -> list[StoredPicture]:
        self._notice_binding()
        columns = [*RECORD_COLUMNS, *(self._vector_column if vectors else ())]
        with self._reading("read pictures"):
            return [
                picture for table in self._rows_of(ids, columns) for picture in self._stored_pictures(table)
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
        """:param columns: the first of them is ``id``."""
        for start in range(0, len(ids), _IDS_PER_QUERY):
            some = ids[start : start + _IDS_PER_QUERY]
            found = self._rows_where_they_were(some, columns)
            if found is None:
                found = self._pictures.search().where(_ids_sql(some)).select(columns).to_arrow()
            yield found

    def _rows_where_they_were(self, ids: Sequence[str], columns: list[str]) -> Any | None:
        """``None`` unless each of them is where it was last found: rows of two versions are never mixed."""
        row_ids = self._row_ids.known(ids)
        if len(row_ids) < len(ids):
            return None
        found = self._pictures.take_row_ids(row_ids).select(columns).to_arrow()
        return found if set(found["id"].to_pylist()) == set(ids) else None

    def find_vector(self, content_hash: str) -> Vector | None:
        self._notice_binding()
        if self._dimension is None:
            return None
        with self._reading("look up a vector"):
            where = f"content_hash = {text_sql(content_hash)} AND {HAS_VECTOR}"
            found = self._pictures.search().where(where).select([VECTOR]).limit(1).to_arrow()
            return unit(vector_matrix(found[VECTOR])[0]) if found.num_rows else None

    def find_vectors(self, content_hashes: Collection[str]) -> dict[str, Vector]:
        self._notice_binding()
        if self._dimension is None:
            return {}
        hashes = list(content_hashes)
        found: dict[str, Any] = {}
        with self._reading("look up vectors"):
            for start in range(0, len(hashes), _IDS_PER_QUERY):
                some = ", ".join(map(text_sql, hashes[start : start + _IDS_PER_QUERY]))
                query = self._pictures.search().where(f"content_hash IN ({some}) AND {HAS_VECTOR}")
                rows = query.select(["content_hash", VECTOR]).to_arrow()
                found |= zip(rows["content_hash"].to_pylist(), vector_matrix(rows[VECTOR]), strict=True)
        return {content_hash: unit(vector) for content_hash, vector in found.items()}

    def scan(self, condition: Condition | None = None, *, own: bool = False) -> Iterator[ImageRecord]:
        with self._reading("read all pictures"):
            query = _filtered(self._pictures.search(), self._where(condition, own=own)).select(RECORD_COLUMNS)
            for batch in query.to_batches(batch_size=_SCAN_ROWS):
                yield from records(batch)

    def pictures(self) -> Iterator[StoredPicture]:
        with self._reading("read all pictures"):
            query = _filtered(self._pictures.search(), self._where(None, own=True))
            query = query.select([*RECORD_COLUMNS, *self._vector_column])
            for batch in query.to_batches(batch_size=_SCAN_ROWS):
                yield from self._stored_pictures(pa.Table.from_batches([batch]))

    def count(self, condition: Condition | None = None, *, own: bool = False) -> int:
        with self._reading("count pictures"):
            return int(self._pictures.count_rows(self._where(condition, own=own)))

    def _where(self, condition: Condition | None, *, own: bool) -> str | None:
        parts = [f"{OWNER} = {text_sql(self._owner)}"] if own and self._place.shared else []
        if condition is not None:
            parts.append(f"({to_sql(condition)})" if parts else to_sql(condition))
        return " AND ".join(parts) or None

    def scrub(self) -> Iterator[StoreUnreadableError | None]:
        yield from self._place.scrub()

    def stats(self) -> StoreStats:
        with self._reading("tell its size"):
            return StoreStats(
                kind=KIND,
                uri=self._place.name,
                rows=self._pictures.count_rows(),
                vectors=self._pictures.count_rows(HAS_VECTOR),
                bytes_on_disk=self._place.size(),
            )

    # Searching by vector.

    def nearest(self, vector: Vector, limit: int, condition: Condition | None = None) -> list[Match]:
        self._notice_binding()
        if self._dimension is None or limit < 1:
            return []
        check_vector(vector, self._dimension)
        with self._reading("search by vector"):
            where = self._where(condition, own=False)
            return most_similar(lambda wanted: self._candidates(vector, wanted, where), vector, limit)

    def _candidates(self, vector: Vector, limit: int, where: str | None) -> Candidates:
        probes = None
        if self._has_index():
            probes = _PROBES if where is None else _UNTIL_ENOUGH
        found = self._nearby(vector, limit, where, probes)
        if probes == _PROBES and found.num_rows < limit:  # those partitions hold few rows
            found = self._nearby(vector, limit, where, _UNTIL_ENOUGH)
        self._row_ids.note(found)
        least = None if probes is not None else 1.0 - (pc.max(found["_distance"]).as_py() or 0.0) / 2
        return Candidates(found.drop_columns(["_distance", ROW_ID]), vector_matrix(found[VECTOR]), least)

    def _nearby(self, vector: Vector, limit: int, where: str | None, probes: int | None) -> Any:
        """:param probes: into how many partitions to look at most; ``None`` where there is no index."""
        query = self._pictures.search(unit(vector), vector_column_name=VECTOR).distance_type("l2")
        if probes is not None:
            query = query.minimum_nprobes(_PROBES).maximum_nprobes(probes).refine_factor(_REFINE)
        columns = [*PLACE_COLUMNS, VECTOR, "_distance"]
        return self._placed(_filtered(query, where, prefilter=True).limit(limit).select(columns))

    def _has_index(self) -> bool:
        """Whether the approximate index is there; of a shared table, another daemon may have made it."""
        if self._place.shared and (version := self._pictures.version) != self._looked_at:
            self._indexed, self._looked_at = _vector_index(self._pictures) is not None, version
        return self._indexed

    # Searching by words.

    def matching(self, words: Sequence[str], limit: int, condition: Condition | None = None) -> list[Match]:
        if not words or limit < 1:
            return []
        with self._reading("search by words"):
            best = self._shortest(words, limit, condition)
            lengths = best["word_count"].to_pylist()
            scores = self._scores(words, lengths) if lengths else {}
            found = zip(places(best), lengths, strict=True)
            return best_first(Match(*place, scores[length]) for place, length in found)

    def _shortest(self, words: Sequence[str], limit: int, condition: Condition | None) -> Any:
        """The rows of the matches that score best: the fewer words, the higher the score."""
        query = self._pictures.search(_all_of_them(words), query_type="fts")
        columns = [*PLACE_COLUMNS, "word_count", "_score"]
        where = self._where(condition, own=False)
        found = self._placed(_filtered(query, where, prefilter=True).limit(_EVERYTHING).select(columns))
        best = best_worded(found, limit)
        self._row_ids.note(best)
        return best

    def _scores(self, words: Sequence[str], lengths: Sequence[int]) -> Mapping[int, float]:
        """BM25 by the length of the text."""
        texts = self._known_texts()
        statistics = TextStatistics(
            texts.rows,
            texts.mean_length,
            tuple(self._frequency(word, texts) for word in dict.fromkeys(words)),
        )
        return scores_by_length(lengths, statistics)

    def _known_texts(self) -> _Texts:
        """Rows and their mean length; read once for each version of the table."""
        version = self._pictures.version
        if self._texts is None or self._texts.version != version:
            column = self._pictures.search().select(["word_count"]).to_arrow()["word_count"]
            mean = pc.mean(column).as_py() or 0.0
            self._texts = _Texts(version, len(column), mean)
        return self._texts

    def _frequency(self, word: str, texts: _Texts) -> int:
        if (known := texts.frequencies.get(word)) is not None:
            return known
        count = int(self._pictures.count_rows(_has_word_sql(word)))
        if len(texts.frequencies) < _WORDS_KEPT:
            texts.frequencies[word] = count
        return count

    def _placed(self, query: Any) -> Any:
        """What a query finds, with the row ids as a column."""
        return query.with_row_id(True).to_arrow()  # noqa: FBT003 - takes no keyword


@dataclass(frozen=True, slots=True)
class _Texts:
    """What is known of all texts in one version of the table.

    :param frequencies: in how many rows a word occurs, for those that were asked for.
    """

    version: int
    rows: int
    mean_length: float
    frequencies: dict[str, int] = field(default_factory=dict)


def _place_of(place: str, owner: str, options: Mapping[str, str] | None, *, exclusive: bool) -> Place:
    if "://" in place:
        return LanceService(place, owner, options)
    return LanceFolder(place, exclusive=exclusive)


def _ensure_text_index(table: Any) -> None:
    if not any("text" in index.columns for index in table.list_indices()):
        table.create_index("text", config=_TEXT_INDEX)


def _read_everything(table: Any) -> None:
    """Read all rows and load all indices; an engine's error where a file is missing."""
    for _ in table.search().to_batches(batch_size=_SCAN_ROWS):
        pass
    for index in table.list_indices():
        table.prewarm_index(index.name)


def _vector_index(table: Any) -> str | None:
    return next((index.name for index in table.list_indices() if VECTOR in index.columns), None)


def _cache_for(table: Any) -> int:
    """The bytes of cache in which the indices have room, within a share of the machine's memory.

    What does not fit is read from the disk and unpacked at each search, which takes ten times as long.
    """
    indices = sum(index.size_bytes or 0 for index in table.list_indices())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return CACHE_BYTES + min(indices + indices // _CACHE_SPARE, memory // _CACHE_SHARE)


def _ids_sql(ids: Iterable[str]) -> str:
    return f"id IN ({', '.join(text_sql(key) for key in ids)})"


def _has_word_sql(word: str) -> str:
    return f"contains(concat(' ', text, ' '), {text_sql(f' {word} ')})"


def _filtered(query: Any, where: str | None, **how: bool) -> Any:
    return query if where is None else query.where(where, **how)


def _all_of_them(words: Sequence[str]) -> Any:
    # A pydantic dataclass, whose fields mypy does not see.
    return MatchQuery(" ".join(words), "text", fuzziness=0, operator=FullTextOperator.AND)  # type: ignore[call-arg]
