"""Pictures that are there more than once, in three tiers; nothing is ever deleted.

::

    identical   files with the same bytes                           by content hash
    same        one picture re-encoded or resized                   near vectors, then a look at the pixels
    burst       shots of one scene by one camera, within seconds    by time, then near vectors

Each tier takes one picture for those that an earlier tier has put together. Vectors alone cannot tell a copy
from the next shot of a burst, or from its mirror image; they only say which pictures are worth a look. Which
ones are near each other is found by an index of lists (IVF), each looking into a few of them: pairs are never
compared one by one.
"""

from __future__ import annotations

import enum
import math
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imagedbd.datatypes import Preprocess
from imagedbd.errors import PictureError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from imagedbd.datatypes import Condition, Decoded, ImageRecord, Pixels, Store
    from imagedbd.decoder import Decoder

NEAR: Final = 0.9
"""Cosine from which on two pictures are worth a look: small or heavily compressed copies stay above it."""
NEIGHBOURS: Final = 16
"""Near pictures that are looked at for each one; those of a larger group lead to each other."""
LOOK: Final = Preprocess(32, 32, resize_mode="squash")
"""What is compared of two pictures: small enough that compression and resizing leave little trace."""
MEAN_DIFFERENCE: Final = 6.0
LOCAL_DIFFERENCE: Final = 30.0
"""Of 255, between two looks: on average, and where it is largest but for one point in a hundred.

A photograph compressed to nothing (quality 10) differs by 7 and 11, one of a tenth of the size by 6 and 27;
one that was shifted by a hundredth of its width by 5 and 48.
"""
SHOT_DIFFERENCE: Final = 12.0
"""The same for two of one size from one second, which may be two shots: compression alone is allowed."""
SHAPE: Final = 0.02
"""How much the proportions of copies may differ; those of thumbnails are rounded."""
BURST_GAP_S: Final = 3.0
BURST_NEAR: Final = 0.85
FEW: Final = 4_000
"""Pictures up to which each is compared with all, in one product of matrices after the other."""
TRAINING_ROWS: Final = 40
PROBED: Final = 8
BLOCK: Final = 1_000
WAIT_S: Final = 0.2


class Tier(enum.StrEnum):
    IDENTICAL = "identical"
    SAME = "same"
    BURST = "burst"


@dataclass(frozen=True, slots=True)
class Picture:
    """What is needed of a record."""

    id: str
    path: str
    content_hash: str
    size: int
    mtime: str
    format: str | None
    width: int | None
    height: int | None
    taken_at: str | None
    camera: str | None

    @classmethod
    def of(cls, record: ImageRecord) -> Picture:
        known = record.metadata
        camera = f"{known.camera_make or ''} {known.camera_model or ''}".strip()
        return cls(
            record.id, record.path, record.content_hash, record.size, record.mtime,
            known.format, known.width, known.height, known.taken_at, camera or None,
        )  # fmt: skip

    def public(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "id": self.id,
            "content_hash": self.content_hash,
            "size": self.size,
            "mtime": self.mtime,
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "taken_at": self.taken_at,
            "camera": self.camera,
        }

    @property
    def taken(self) -> datetime | None:
        """By the clock on the wall."""
        try:
            return datetime.fromisoformat((self.taken_at or "")[:19])
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Group:
    """Two pictures or more: the best first, or in the order in which they were taken."""

    tier: Tier
    pictures: tuple[Picture, ...]

    def public(self) -> dict[str, Any]:
        return {"tier": self.tier, "pictures": [picture.public() for picture in self.pictures]}


@dataclass(frozen=True, slots=True)
class Found:
    """
    :param looked_at: how many pictures took part.
    :param unseen: pictures that might be copies, and whose files could not be looked at.
    :param bare: pictures without a vector, which take part in the first tier only.
    """

    groups: tuple[Group, ...]
    looked_at: int
    unseen: int = 0
    bare: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """How far a hunt is. :param total: 0 if that is not known."""

    name: str
    done: int = 0
    total: int = 0


class Hunt:
    """One look for duplicates.

    :param store: opens the store for a while: it may be another one each time.
    :param condition: which pictures take part.
    """

    def __init__(
        self,
        store: Callable[[], AbstractContextManager[Store]],
        decoder: Decoder,
        condition: Condition | None,
        tiers: Iterable[Tier],
    ) -> None:
        self._store = store
        self._decoder = decoder
        self._condition = condition
        self._tiers = frozenset(tiers)
        self._stopping = threading.Event()
        self.step = Step("reading records")
        """For any thread to read."""

    def stop(self) -> None:
        """Have :meth:`run` end soon."""
        self._stopping.set()

    def run(self) -> Found:
        """Takes from a second to minutes.

        :raises CancelledError: after :meth:`stop`.
        :raises StoreError: the store cannot be read.
        """
        pictures = self._records()
        groups: list[Group] = []
        identical = list(_grouped(pictures, lambda p: p.content_hash))
        if Tier.IDENTICAL in self._tiers:
            groups += (Group(Tier.IDENTICAL, tuple(sorted(same, key=_by_path))) for same in identical)
        ones = _one_of_each(pictures, identical)
        bare = unseen = 0
        if self._tiers & {Tier.SAME, Tier.BURST}:
            pairs, bare = self._near_pairs(ones)
            same, unseen = self._verified(pairs)
            if Tier.SAME in self._tiers:
                groups += (Group(Tier.SAME, tuple(copies)) for copies in same)
            if Tier.BURST in self._tiers:
                groups += self._bursts(_one_of_each(ones, same))
        order = {tier: place for place, tier in enumerate(Tier)}
        groups.sort(key=lambda group: (order[group.tier], _by_path(group.pictures[0])))
        return Found(tuple(groups), len(pictures), unseen, bare)

    def _records(self) -> list[Picture]:
        found = []
        with self._store() as store:
            total = store.count(self._condition, own=True)
            for record in store.scan(self._condition, own=True):
                found.append(Picture.of(record))
                if not len(found) % BLOCK:
                    self._note("reading records", len(found), total)
        return found

    # The second tier.

    def _near_pairs(self, pictures: Sequence[Picture]) -> tuple[list[tuple[Picture, Picture]], int]:
        """Pairs that may be copies, by vectors and by what is known; and how many pictures have no vector."""
        by_id = {picture.id: picture for picture in pictures}
        with self._store() as store:
            if store.model is None:
                return [], len(pictures)
            index, rows = self._index(store, by_id, store.model.dimension)
            pairs: dict[tuple[Picture, Picture], None] = {}
            done = 0
            for ids, vectors in self._vectors(store, by_id):
                scores, found = index.search(vectors, min(NEIGHBOURS + 1, len(rows)))
                for key, near in zip(ids, np.where(scores >= NEAR, found, -1), strict=True):
                    others = (by_id[rows[row]] for row in near if row >= 0)
                    pairs |= dict.fromkeys(_pairs(by_id[key], others))
                done += len(ids)
                self._note("comparing vectors", done, len(rows))
        return list(pairs), len(pictures) - len(rows)

    def _index(self, store: Store, by_id: dict[str, Picture], dimension: int) -> tuple[Any, list[str]]:
        """An index of the vectors, and the id of each of its rows."""
        import faiss  # noqa: PLC0415 - 20 MB that a daemon on another store need not have for this

        # As in the store: OpenMP would spread short searches over cores that are busy otherwise.
        faiss.omp_set_num_threads(1)
        lists = 2 * math.isqrt(len(by_id)) if len(by_id) > FEW else 1
        index = faiss.index_factory(dimension, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(PROBED, lists)
        index.cp.min_points_per_centroid = 1
        rows: list[str] = []
        held: list[NDArray[np.float32]] = []
        for ids, vectors in self._vectors(store, by_id):
            rows += ids
            if index.is_trained:
                index.add(vectors)
            else:
                held.append(vectors)
                if len(rows) >= TRAINING_ROWS * lists:
                    _train(index, held)
            self._note("reading vectors", len(rows), len(by_id))
        if not index.is_trained and held:
            _train(index, held)
        return index, rows

    def _vectors(
        self, store: Store, by_id: dict[str, Picture]
    ) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """Vectors in blocks of shape ``(n, dimension)``, with their ids."""
        ids: list[str] = []
        block: list[NDArray[np.float32]] = []
        for picture in store.pictures():
            if picture.vector is None or picture.record.id not in by_id:
                continue
            ids.append(picture.record.id)
            block.append(picture.vector)
            if len(ids) == BLOCK:
                yield ids, np.stack(block)
                ids, block = [], []
        if ids:
            yield ids, np.stack(block)

    def _verified(self, pairs: Sequence[tuple[Picture, Picture]]) -> tuple[list[list[Picture]], int]:
        """Groups of what the pixels of pairs show to be copies; and how many files could not be looked at."""
        wanted = list(dict.fromkeys(picture for pair in pairs for picture in pair))
        looks: dict[str, Pixels] = {}
        for number, (picture, look) in enumerate(self._looks(wanted), start=1):
            if look is not None:
                looks[picture.id] = look
            self._note("looking at pictures", number, len(wanted))
        union = _Union()
        for one, other in pairs:
            bound = SHOT_DIFFERENCE if _may_be_shots(one, other) else LOCAL_DIFFERENCE
            if one.id in looks and other.id in looks and _look_alike(looks[one.id], looks[other.id], bound):
                union.join(one.id, other.id)
        by_id = {picture.id: picture for picture in wanted}
        groups = [sorted((by_id[key] for key in ids), key=_best_first) for ids in union.groups()]
        return groups, len(wanted) - len(looks)

    def _looks(self, pictures: Iterable[Picture]) -> Iterator[tuple[Picture, Pixels | None]]:
        ahead: deque[tuple[Picture, Future[Decoded]]] = deque()
        for picture in pictures:
            ahead.append((picture, self._decoder.submit(picture.path, frozenset(), LOOK)))
            if len(ahead) > 2 * self._decoder.capacity:
                yield self._seen(*ahead.popleft())
        while ahead:
            yield self._seen(*ahead.popleft())

    def _seen(self, picture: Picture, future: Future[Decoded]) -> tuple[Picture, Pixels | None]:
        while True:
            self._check()
            try:
                decoded = future.result(WAIT_S)
            except TimeoutError:
                continue
            except PictureError:
                return picture, None
            return picture, decoded.pixels if decoded.content_hash == picture.content_hash else None

    # The third tier.

    def _bursts(self, pictures: Sequence[Picture]) -> Iterator[Group]:
        for series in _series(pictures):
            vectors: dict[str, Any] = {}
            with self._store() as store:
                for start in range(0, len(series), BLOCK):
                    ids = [picture.id for picture in series[start : start + BLOCK]]
                    vectors |= {row.record.id: row.vector for row in store.get(ids)}
            shots: list[Picture] = []
            for picture in series:
                if shots and not _is_near(vectors.get(shots[-1].id), vectors.get(picture.id)):
                    yield from _burst(shots)
                    shots = []
                shots.append(picture)
            yield from _burst(shots)
            self._note("looking for bursts")

    def _note(self, name: str, done: int = 0, total: int = 0) -> None:
        self._check()
        self.step = Step(name, done, total)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise CancelledError


class _Union:
    """Which things belong together, told pair by pair."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def join(self, one: str, other: str) -> None:
        self._parents[self._top(one)] = self._top(other)

    def groups(self) -> list[list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for key in self._parents:
            found[self._top(key)].append(key)
        return [group for group in found.values() if len(group) > 1]

    def _top(self, key: str) -> str:
        path = []
        while (parent := self._parents.setdefault(key, key)) != key:
            path.append(key)
            key = parent
        for passed in path:
            self._parents[passed] = key
        return key


def _train(index: Any, held: list[NDArray[np.float32]]) -> None:
    rows = np.concatenate(held)
    index.train(rows)
    index.add(rows)
    held.clear()


def _grouped(pictures: Iterable[Picture], key: Callable[[Picture], str]) -> Iterator[list[Picture]]:
    found: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        found[key(picture)].append(picture)
    return (group for group in found.values() if len(group) > 1)


def _one_of_each(pictures: Sequence[Picture], groups: Iterable[list[Picture]]) -> list[Picture]:
    """The pictures, with the best one alone for each group."""
    left_out = {picture.id for group in groups for picture in sorted(group, key=_best_first)[1:]}
    return [picture for picture in pictures if picture.id not in left_out]


def _by_path(picture: Picture) -> bytes:
    return os.fsencode(picture.path)


def _best_first(picture: Picture) -> tuple[int, int, bytes]:
    return -(picture.width or 0) * (picture.height or 0), -picture.size, _by_path(picture)


def _may_be_copies(one: Picture, other: Picture) -> bool:
    """By what is known: copies keep their proportions, and the moment at which they were taken or none."""
    if not (one.width and one.height and other.width and other.height):
        return False
    taken = {picture.taken for picture in (one, other)} - {None}
    ratio = (one.width / one.height) / (other.width / other.height)
    return len(taken) < 2 and 1 - SHAPE <= ratio <= 1 + SHAPE


def _may_be_shots(one: Picture, other: Picture) -> bool:
    same_size = (one.width, one.height) == (other.width, other.height)
    return same_size and one.taken is not None and one.taken == other.taken


def _look_alike(one: Pixels, other: Pixels, bound: float) -> bool:
    difference = np.abs(one.astype(np.int16) - other).max(axis=2)
    mean, local = difference.mean(), np.percentile(difference, 99)
    return bool(mean <= MEAN_DIFFERENCE and local <= bound)


def _pairs(one: Picture, others: Iterable[Picture]) -> Iterator[tuple[Picture, Picture]]:
    """What may be copies, in an order that does not depend on which of the two found the other."""
    for other in others:
        if other.id != one.id and _may_be_copies(one, other):
            yield (one, other) if one.id < other.id else (other, one)


def _series(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Shots of one camera that follow each other within seconds."""
    shots = [(p.camera, taken, _by_path(p), p) for p in pictures if p.camera and (taken := p.taken)]
    shots.sort(key=lambda shot: shot[:3])
    series: list[Picture] = []
    for before, shot in zip([None, *shots], shots, strict=False):
        if before and not (before[0] == shot[0] and (shot[1] - before[1]).total_seconds() <= BURST_GAP_S):
            if len(series) > 1:
                yield series
            series = []
        series.append(shot[3])
    if len(series) > 1:
        yield series


def _is_near(one: Any, other: Any) -> bool:
    return one is not None and other is not None and float(one @ other) >= BURST_NEAR


def _burst(shots: Sequence[Picture]) -> Iterator[Group]:
    if len(shots) > 1:
        yield Group(Tier.BURST, tuple(shots))
