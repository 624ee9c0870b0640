"""From a question to ranked hits: query vectors, candidates from the store, fusion.

Prompts and pictures are combined into one query vector; its ranking and that of the metadata words are
fused by reciprocal rank. All scores come from shared code, so that every store ranks alike.
"""

from __future__ import annotations

import heapq
import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from imagedbd.bounds import MAX_LIMIT, MAX_WEIGHT
from imagedbd.datatypes import (
    Compare,
    Hit,
    Like,
    Match,
    Near,
    OneOf,
    Or,
    PictureState,
    PictureTerm,
    Priority,
    PromptTerm,
    Query,
    SortOrder,
    Under,
)
from imagedbd.errors import (
    EmbedderError,
    ModelUnavailableError,
    PictureError,
    PictureNeededError,
    QueryPictureError,
    UsageError,
)
from imagedbd.expressions import all_of, date_span, parse
from imagedbd.near_misses import near_misses
from imagedbd.prompts import PromptVectors
from imagedbd.ranking import RECIPROCAL_RANK_K, cosines, fuse
from imagedbd.text import query_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from imagedbd.datatypes import Condition, Embedder, ImageRecord, Store, StoredPicture, Vector
    from imagedbd.decoder import Decoder
    from imagedbd.ledger import Ledger

_Prompts: TypeAlias = "Mapping[str, Callable[[], Vector]]"
"""What waits for the vector of each prompt."""

MAX_OFFSET: Final = 100_000
MAX_WORDS: Final = 64
MAX_CAMERA: Final = 100
FUSION_DEPTH: Final = 100
"""Candidates of each ranking that take part in a fusion, at least."""
SAME_SIMILARITY: Final = 1e-6
"""How much more similar than a query picture itself another may seem, for the noise of float32 alone."""
VECTORS_AT_ONCE: Final = 1_000
_SECONDS: Final = len("2024-05-01T12:00:00")


@dataclass(frozen=True, slots=True)
class Answer:
    """:param notes: what the user should know of how the answer came about."""

    hits: tuple[Hit, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A hit whose record is still to be read.

    :param similarity: ``None`` also where nobody has asked for it yet.
    """

    id: str
    score: float
    similarity: float | None
    text_score: float | None


class Searcher:
    """Answers queries; safe to call from many threads."""

    def __init__(self, store: Store, ledger: Ledger, decoder: Decoder, embedder: Embedder) -> None:
        self._store = store
        self._ledger = ledger
        self._decoder = decoder
        self._embedder = embedder
        self._prompts = PromptVectors(embedder, self._check_model)

    def search(self, query: Query) -> Answer:
        """Rank the pictures that meet the query's condition.

        A query without terms and words lists what meets its condition, newest first, with score 0. Where
        the model cannot be had, a query that has words as well is answered by those alone, with a note,
        unless it has a lowest similarity.

        :raises UsageError: for a limit or a weight out of range, or terms that cancel each other.
        :raises PictureNeededError: if a query picture must be sent as bytes.
        :raises QueryPictureError: if its bytes are no picture.
        :raises ModelUnavailableError: if the query needs vectors and there is no model.
        """
        words = query_words(query.text or "")
        _check(query, words)
        if query.terms and not query.weights[1]:
            words = []  # their ranking is left out
        notes: list[str] = []
        answer = self._answer(query, words, notes)
        if not answer.hits and not query.offset:
            notes += near_misses(query.condition, self._store)
        return replace(answer, notes=tuple(notes))

    def _answer(self, query: Query, words: Sequence[str], notes: list[str]) -> Answer:
        deep = replace(query, limit=query.limit + query.offset, offset=0)
        vector, worded = None, None
        if _needs_vector(query, words):
            prompts = self._prompts.begin({t.text for t in query.terms if isinstance(t, PromptTerm)})
            if words and query.weights[0]:
                # While the model is at the prompts.
                worded = self._store.matching(words, self._depth(deep), query.condition)
            vector = self._vector_or_note(query, words, prompts, notes)
        if vector is None and not words:
            return Answer(_page(self._listing(deep), query))
        ranked = _similar_enough(self._ranked(deep, vector, words, worded), query)
        bounded = vector is None or (not words and query.min_score is not None)
        return Answer(self._shown(ranked, query, vector, has_end=bounded))

    def _vector_or_note(
        self, query: Query, words: Sequence[str], prompts: _Prompts, notes: list[str]
    ) -> Vector | None:
        try:
            return self._query_vector(query.terms, prompts)
        except (ModelUnavailableError, EmbedderError) as error:
            if not words or query.min_score is not None:
                raise
            notes.append(f"Answered from metadata alone. {error.message}")
            return None

    def _ranked(
        self, query: Query, vector: Vector | None, words: Sequence[str], worded: list[Match] | None
    ) -> list[_Ranked]:
        if vector is None:
            return self._by_words(query, words, None)
        if not words:
            return self._by_vector(query, vector)
        if worded is None:
            return self._by_words(query, words, vector)
        return self._fused(query, vector, worded)

    def _by_vector(self, query: Query, vector: Vector) -> list[_Ranked]:
        limit = query.limit
        matches = self._similar(query, vector, limit)
        if query.sort is SortOrder.DATE and query.min_score is not None:
            while len(matches) == limit and matches[-1].score >= query.min_score:
                limit *= 4
                matches = self._similar(query, vector, limit)
        return [_Ranked(m.id, m.score, m.score, None) for m in matches]

    def _by_words(self, query: Query, words: Sequence[str], vector: Vector | None) -> list[_Ranked]:
        # The pictures that are similar enough may stand anywhere among those that have the words.
        some = query.min_score is None and (query.sort is SortOrder.SCORE or vector is not None)
        limit = query.limit if some else self._store.count(query.condition)
        matches = self._store.matching(words, limit, query.condition)
        wanted = [] if vector is None or query.min_score is None else [m.id for m in matches]
        similarity = {} if vector is None else self._similarities(wanted, vector)
        return [_Ranked(m.id, m.score, similarity.get(m.id), m.score) for m in matches]

    def _fused(self, query: Query, vector: Vector, worded: list[Match]) -> list[_Ranked]:
        """Both rankings as one; what one of them has further down than the depth gets nothing from it."""
        similar = self._similar(query, vector, self._depth(query))
        fused = fuse([similar, worded], weights=query.weights)
        similarity = {match.id: match.score for match in similar}
        if query.min_score is None:
            fused = fused[: query.limit]
        else:
            similarity |= self._similarities([m.id for m in fused if m.id not in similarity], vector)
        text_score = {match.id: match.score for match in worded}
        return [_Ranked(m.id, m.score, similarity.get(m.id), text_score.get(m.id)) for m in fused]

    def _depth(self, query: Query) -> int:
        """How far down both rankings are read, so that no hit is missed that both have further down.

        Such a picture scores less than ``sum(weights) / (k + depth)``, and one ranking alone puts ``limit``
        pictures at ``weight / (k + limit)`` or above. Under a lowest similarity that can only be the ranking
        by likeness: either its first ones are similar enough, or it was read to the last that is.
        """
        leading = query.weights[0] if query.min_score is not None else max(query.weights)
        depth = sum(query.weights) / leading * (RECIPROCAL_RANK_K + query.limit) - RECIPROCAL_RANK_K
        if depth > 2 * (RECIPROCAL_RANK_K + MAX_LIMIT):  # by weights far apart
            depth = min(depth, self._store.count(query.condition))
        return max(FUSION_DEPTH, math.ceil(depth))

    def _similar(self, query: Query, vector: Vector, limit: int) -> list[Match]:
        """The nearest pictures; a query picture comes before its own copies, which are exactly as similar."""
        found = self._store.nearest(vector, limit, query.condition)
        own = {os.path.realpath(t.path) for t in query.terms if isinstance(t, PictureTerm) and t.path}
        if len(found) == limit:
            found = found + self._left_out(own - {match.path for match in found}, query, vector)
        return sorted(found, key=lambda match: _likeness_key(match, own))[:limit]

    def _left_out(self, paths: set[str], query: Query, vector: Vector) -> list[Match]:
        """Query pictures that meet the condition; they may lie behind more copies than were asked for."""
        entries = (self._ledger.get(path) for path in sorted(paths, key=os.fsencode))
        ids = tuple(entry.id for entry in entries if entry and entry.id)
        if not ids:
            return []
        return self._store.nearest(vector, len(ids), all_of([query.condition, OneOf("id", ids)]))

    def _similarities(self, ids: Sequence[str], vector: Vector) -> dict[str, float]:
        """By id; pictures without a vector are left out."""
        similarity: dict[str, float] = {}
        for start in range(0, len(ids), VECTORS_AT_ONCE):
            some = self._store.get(ids[start : start + VECTORS_AT_ONCE])
            similarity |= _similarities_of(some, vector)
        return similarity

    def _shown(
        self, ranked: list[_Ranked], query: Query, vector: Vector | None, *, has_end: bool
    ) -> tuple[Hit, ...]:
        """The page that was asked for.

        :param has_end: whether these are all that there are to be put in the order of date.
        """
        if query.sort is SortOrder.DATE and has_end:
            return _page(self._read(ranked, vector), query)
        hits = self._read(ranked[query.offset : query.offset + query.limit], vector)
        return _numbered(hits, query)

    def _read(self, ranked: Sequence[_Ranked], vector: Vector | None) -> list[Hit]:
        """With their records; those that have gone meanwhile are left out."""
        hits: list[Hit] = []
        for start in range(0, len(ranked), VECTORS_AT_ONCE):
            some = ranked[start : start + VECTORS_AT_ONCE]
            unsaid = {r.id for r in some if r.similarity is None} if vector is not None else set()
            read = self._store.get([r.id for r in some], vectors=bool(unsaid))
            known = {p.record.id: p for p in read}
            similarity = {}
            if vector is not None:
                similarity = _similarities_of([p for p in read if p.record.id in unsaid], vector)
            hits += [
                Hit(known[r.id].record, 0, r.score, similarity.get(r.id, r.similarity), r.text_score)
                for r in some
                if r.id in known
            ]
        return hits

    def _listing(self, query: Query) -> list[Hit]:
        records = heapq.nsmallest(query.limit, self._store.scan(query.condition), key=_newest_first)
        return [Hit(record, 0, 0.0) for record in records]

    def _query_vector(self, terms: Sequence[PromptTerm | PictureTerm], prompts: _Prompts) -> Vector:
        weights = np.array([term.weight for term in terms], np.float64)
        vectors = np.stack([self._term_vector(term, prompts) for term in terms])
        total = (weights[:, np.newaxis] * vectors).sum(axis=0)
        length = float(np.linalg.norm(total))
        if length <= 1e-6 * float(np.abs(weights).sum()):
            raise UsageError("The terms of this query cancel each other out.")
        combined: Vector = (total / length).astype(np.float32)
        return combined

    def _term_vector(self, term: PromptTerm | PictureTerm, prompts: _Prompts) -> Vector:
        if isinstance(term, PromptTerm):
            return prompts[term.text]()
        return self._stored_vector(term) if term.data is None else self._picture_vector(term.data)

    def _check_model(self) -> None:
        """:raises ModelUnavailableError: what is embedded here cannot be compared with what is stored."""
        info, bound = self._embedder.info, self._store.model
        if info and bound and info.key != bound.key:
            raise ModelUnavailableError(
                f"The index holds vectors of {bound.spec}, and this daemon works with {info.spec}. "
                f"Set model to {bound.spec}."
            )

    def _stored_vector(self, term: PictureTerm) -> Vector:
        entry = self._ledger.get(os.path.realpath(term.path)) if term.path else None
        if entry and entry.state is PictureState.INDEXED and entry.id and entry.signature == term.signature:
            for picture in self._store.get([entry.id]):
                if picture.vector is not None:
                    return picture.vector
        raise PictureNeededError("The daemon holds no vector for this picture; send its bytes.")

    def _picture_vector(self, data: bytes) -> Vector:
        info = self._embedder.info
        try:
            content_hash, _, pixels = self._decoder.submit_bytes(
                data, info.preprocess if info else None
            ).result()
        except PictureError as error:
            raise QueryPictureError(error.message) from error
        if (known := self._store.find_vector(content_hash)) is not None:
            return known
        if pixels is None:
            status = self._embedder.status()
            raise ModelUnavailableError(status.reason or f"The model {status.name} is still loading.")
        self._check_model()
        vector: Vector = self._embedder.embed_pictures([pixels], Priority.QUERY_PICTURE).result()[0]
        return vector


def conditions_of(
    *,
    where: str | None = None,
    under: Sequence[str] = (),
    after: str | None = None,
    before: str | None = None,
    camera: str | None = None,
    near: tuple[float, float, float] | None = None,
) -> Condition | None:
    """One condition from all the ways to state one; ``None`` if nothing was asked.

    :param where: an expression; see :mod:`imagedbd.expressions`.
    :param under: folders, one of which the picture must lie in.
    :param after: an ISO 8601 prefix: taken within that time or later.
    :param before: an ISO 8601 prefix: taken before that time begins.
    :param camera: words, each of which must be part of the camera's make or model.
    :param near: latitude and longitude in degrees, and kilometres.
    :raises UsageError: for an expression or a date that cannot be understood.
    """
    if len(camera or "") > MAX_CAMERA:
        raise UsageError(f"A camera's name has at most {MAX_CAMERA} characters.")
    for date in (after, before):
        if date is not None:
            date_span(date)
    folders = tuple(Under(os.path.normpath(folder)) for folder in under)
    return all_of(
        [
            parse(where) if where is not None else None,
            Or(folders) if folders else None,
            Compare("taken_at", ">=", after) if after is not None else None,
            Compare("taken_at", "<", before) if before is not None else None,
            *(_made_by(word) for word in (camera or "").split()),
            Near(*near) if near else None,
        ]
    )


def _made_by(word: str) -> Condition:
    literal = "".join(f"\\{c}" if c in "%_\\" else c for c in word)
    fields = ("camera_make", "camera_model")
    return Or(tuple(Like(field, f"%{literal}%", ignore_case=True) for field in fields))


def _check(query: Query, words: Sequence[str]) -> None:
    if not 1 <= query.limit <= MAX_LIMIT:
        raise UsageError(f"The limit must be between 1 and {MAX_LIMIT}, not {query.limit}.")
    if not 0 <= query.offset <= MAX_OFFSET:
        raise UsageError(f"The offset must be between 0 and {MAX_OFFSET}, not {query.offset}.")
    if not all(0 <= weight <= MAX_WEIGHT for weight in query.weights) or not any(query.weights):
        raise UsageError(f"The weights of likeness and words are from 0 to {MAX_WEIGHT}, and not both are 0.")
    if query.min_score is not None and not query.terms:
        raise UsageError("A lowest similarity needs a prompt or a picture to be similar to.")
    if query.text is not None and not words:
        raise UsageError(f"There is no word in {query.text!r} to look for.")
    if len(words) > MAX_WORDS:
        raise UsageError(f"At most {MAX_WORDS} words can be looked for, not {len(words)}.")


def _needs_vector(query: Query, words: Sequence[str]) -> bool:
    """Whether anything would be ranked or left out by it: a model may have to be loaded for that."""
    return bool(query.terms and (not words or query.weights[0] or query.min_score is not None))


def _likeness_key(match: Match, own: set[str]) -> tuple[float, bytes]:
    path = match.path
    return -(match.score + SAME_SIMILARITY if path in own else match.score), os.fsencode(path)


def _newest_first(record: ImageRecord) -> tuple[bool, tuple[int, ...], bytes]:
    # By the clock on the wall: where only some name their zone, nothing else is an order.
    taken = (record.metadata.taken_at or "")[:_SECONDS]
    return not taken, tuple(-ord(c) for c in taken), os.fsencode(record.path)


def _similarities_of(pictures: Iterable[StoredPicture], vector: Vector) -> dict[str, float]:
    """By id; pictures without a vector are left out."""
    known = [(p.record.id, p.vector) for p in pictures if p.vector is not None]
    if not known:
        return {}
    scores = cosines(np.stack([other for _, other in known]), vector)
    return dict(zip((key for key, _ in known), map(float, scores), strict=True))


def _similar_enough(ranked: Sequence[_Ranked], query: Query) -> list[_Ranked]:
    bound = query.min_score
    return [r for r in ranked if bound is None or (r.similarity is not None and r.similarity >= bound)]


def _page(hits: Sequence[Hit], query: Query) -> tuple[Hit, ...]:
    """The page that was asked for, of all that there are."""
    if query.sort is SortOrder.DATE:
        hits = sorted(hits, key=_hit_by_date)
    return _numbered(hits[query.offset : query.offset + query.limit], query)


def _numbered(page: Sequence[Hit], query: Query) -> tuple[Hit, ...]:
    if query.sort is SortOrder.DATE:
        page = sorted(page, key=_hit_by_date)
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(page, start=query.offset + 1))


def _hit_by_date(hit: Hit) -> tuple[bool, tuple[int, ...], bytes]:
    return _newest_first(hit.record)
