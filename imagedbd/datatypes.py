"""Frozen values that rooms hand to each other, and the protocols that two of them honour.

This is a leaf: it imports nothing of the package but errors, and neither numpy nor a store at run time,
so that the command line may use it. Paths are ``str`` as :func:`os.fsdecode` gives them: a name that is
not UTF-8 keeps its odd bytes as lone surrogates, and :func:`os.fsencode` gives the bytes back.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from imagedbd.errors import StoreUnreadableError

    Vector = NDArray[np.float32]
    """An L2-normalised embedding, shape ``(dimension,)``."""
    Pixels = NDArray[np.uint8]
    """One picture ready for the model, shape ``(height, width, 3)``, RGB."""


_YEARS_S = (-62_135_596_800, 253_402_300_799)
"""The first and last POSIX second of the years that ISO 8601 writes in four digits."""


def iso_utc(seconds: float) -> str:
    """A POSIX time as ISO 8601 in UTC, to the second; one beyond the years 1 to 9999 as the nearest."""
    bounded = min(max(int(seconds), _YEARS_S[0]), _YEARS_S[1])
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=bounded)
    return moment.replace(tzinfo=None).isoformat() + "Z"


@dataclass(frozen=True, slots=True)
class Signature:
    """What ``lstat`` says of a file; two equal signatures mean that it need not be opened again.

    An inode alone proves nothing (ext4 hands a freed one out at once), and an edit can keep size and
    mtime, but not ctime.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Signature:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def may_outlast_a_write(self, read_at: float) -> bool:
        """Whether a write right after a reading at this POSIX time could leave all of this as it is.

        File systems count time in ticks: two seconds on FAT, that of the kernel's timer elsewhere. A time far
        in the future says nothing, for a clock was set back.
        """
        tick_s = 2.0 if self.ctime_ns % 1_000_000_000 == 0 else 0.02
        return -10.0 < read_at - self.ctime_ns / 1e9 < tick_s


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a picture says of itself. Anything that is absent or unreadable is ``None`` or empty.

    Sizes are in pixels of the picture as shown, after the EXIF orientation. ``taken_at`` is ISO 8601 as
    the camera's clock stood, with an offset only where the file names one.
    """

    format: str | None = None
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    lens: str | None = None
    iso: int | None = None
    f_number: float | None = None
    exposure_s: float | None = None
    focal_mm: float | None = None
    lat: float | None = None
    lon: float | None = None
    orientation: int | None = None
    rating: int | None = None
    keywords: tuple[str, ...] = ()
    caption: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One indexed picture: everything but its vector."""

    id: str
    path: str
    signature: Signature
    content_hash: str
    metadata: Metadata
    indexed_at: str

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def size(self) -> int:
        return self.signature.size

    @property
    def mtime(self) -> str:
        return iso_utc(self.signature.mtime_ns // 1_000_000_000)

    def public(self) -> dict[str, Any]:
        """The record as commands show it: the fields that ``--where`` knows, but ``text``."""
        return {
            "id": self.id,
            "path": self.path,
            "folder": self.folder,
            "name": self.name,
            "size": self.size,
            "mtime": self.mtime,
            **asdict(self.metadata),
            "keywords": list(self.metadata.keywords),
            "content_hash": self.content_hash,
            "indexed_at": self.indexed_at,
        }


class FieldType(enum.Enum):
    """The types that a condition checks its operands against."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    DATE = "date"
    WORDS = "list of words"


RECORD_FIELDS: dict[str, FieldType] = {
    "id": FieldType.TEXT,
    "path": FieldType.TEXT,
    "folder": FieldType.TEXT,
    "name": FieldType.TEXT,
    "format": FieldType.TEXT,
    "size": FieldType.INTEGER,
    "mtime": FieldType.DATE,
    "width": FieldType.INTEGER,
    "height": FieldType.INTEGER,
    "taken_at": FieldType.DATE,
    "camera_make": FieldType.TEXT,
    "camera_model": FieldType.TEXT,
    "lens": FieldType.TEXT,
    "iso": FieldType.INTEGER,
    "f_number": FieldType.NUMBER,
    "exposure_s": FieldType.NUMBER,
    "focal_mm": FieldType.NUMBER,
    "lat": FieldType.NUMBER,
    "lon": FieldType.NUMBER,
    "orientation": FieldType.INTEGER,
    "rating": FieldType.INTEGER,
    "keywords": FieldType.WORDS,
    "caption": FieldType.TEXT,
    "comment": FieldType.TEXT,
    "text": FieldType.TEXT,
    "content_hash": FieldType.TEXT,
    "indexed_at": FieldType.DATE,
}
"""The record's fields, as ``--where`` and both stores know them."""


# Conditions: what a --where expression is parsed into, and what a store compiles.


@dataclass(frozen=True, slots=True)
class Compare:
    """``field operator value``; operator is one of ``= != < <= > >=``.

    A date's value is an ISO 8601 prefix of any precision (``2024``, ``2024-05``, … to the second) and
    stands for that whole span: ``taken_at <= 2024-05`` includes the 31st.
    """

    field: str
    operator: str
    value: str | int | float


@dataclass(frozen=True, slots=True)
class Like:
    """SQL ``LIKE`` with ``%`` and ``_``, which a backslash makes literal.

    ``ignore_case`` compares folded text (``ILIKE``).
    """

    field: str
    pattern: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """``field IN (…)``, true where the field equals one of the values."""

    field: str
    values: tuple[str | int | float, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """``field IS NULL``; for a list of words, that it is empty."""

    field: str


@dataclass(frozen=True, slots=True)
class HasWord:
    """``'word' IN keywords``: membership in a list of words, compared folded."""

    field: str
    word: str


@dataclass(frozen=True, slots=True)
class Under:
    """The picture lies in this folder or anywhere below it."""

    folder: str


@dataclass(frozen=True, slots=True)
class Near:
    """The picture was taken within ``km`` kilometres (great circle) of a place in decimal degrees."""

    lat: float
    lon: float
    km: float


@dataclass(frozen=True, slots=True)
class Not:
    """True where the operand is false. Where the operand is unknown (a null), so is its negation."""

    operand: Condition


@dataclass(frozen=True, slots=True)
class And:
    operands: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    operands: tuple[Condition, ...]


Condition = Compare | Like | OneOf | IsNull | HasWord | Under | Near | Not | And | Or


# What the store takes and gives.


@dataclass(frozen=True, slots=True, eq=False)
class StoredPicture:
    """A record with its vector; ``None`` while no model has seen the picture."""

    record: ImageRecord
    vector: Vector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One unit of writing.

    :param upserts: rows written whole, vector included; an id that is there is replaced.
    :param patches: rows whose record is replaced and whose vector stays as it is (a move, new metadata).
    :param deletes: ids to remove; an id that is not there is no error.
    """

    upserts: tuple[StoredPicture, ...] = ()
    patches: tuple[ImageRecord, ...] = ()
    deletes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserts or self.patches or self.deletes)


@dataclass(frozen=True, slots=True)
class Match:
    """One candidate of a ranking; its record is read by :meth:`Store.get`, of those alone that are shown.

    :param score: cosine similarity, or BM25.
    """

    id: str
    path: str
    score: float


@dataclass(frozen=True, slots=True)
class StoreStats:
    kind: str
    uri: str
    rows: int
    vectors: int
    bytes_on_disk: int | None


class Store(Protocol):
    """One table of pictures with vectors. One writer, any number of concurrent readers.

    Every method raises :class:`StoreError` if the engine or the disk refuses, and
    :class:`StoreUnreadableError` if it finds that what is stored is damaged. A store on this machine has
    one owner; a remote table may have many, and what is said of *own* rows leaves out those of the others.
    """

    @property
    def model(self) -> ModelInfo | None:
        """The model whose vectors are here; ``None`` before the first vector was written."""

    def bind(self, model: ModelInfo) -> None:
        """Fix the model, its hashes, dimension and dtype in the manifest, durably.

        :raises StoreError: if the store is bound to another model.
        """

    def apply(self, batch: Batch) -> None:
        """Write a batch: all of it or nothing, durable on return, visible to the next read.

        :raises StoreError: nothing was written; the message says why.
        """

    def get(self, ids: Sequence[str], *, vectors: bool = True) -> list[StoredPicture]:
        """The rows with these ids; unknown ids are left out; order is free.

        :param vectors: whether to read those as well, where there are any.
        """

    def find_vector(self, content_hash: str) -> Vector | None:
        """The vector of any row with this content; ``None`` if no row with it has one."""

    def find_vectors(self, content_hashes: Collection[str]) -> dict[str, Vector]:
        """As :meth:`find_vector`, for many at once, by content; it takes about as long as for one."""

    def scan(self, condition: Condition | None = None, *, own: bool = False) -> Iterator[ImageRecord]:
        """Every record that meets the condition, in no particular order, read in batches.

        :param own: leave out what other daemons wrote.
        """

    def pictures(self) -> Iterator[StoredPicture]:
        """Every own row with its vector, in no particular order, read in batches."""

    def count(self, condition: Condition | None = None, *, own: bool = False) -> int:
        """How many rows :meth:`scan` would give."""

    def nearest(self, vector: Vector, limit: int, condition: Condition | None = None) -> list[Match]:
        """The rows with the highest cosine similarity, rescored in float32, best first."""

    def matching(self, words: Sequence[str], limit: int, condition: Condition | None = None) -> list[Match]:
        """The rows whose ``text`` has all of these folded words, by BM25, best first."""

    def maintain(self, *, idle: bool = False) -> None:
        """Compact what many small writes left behind. Called by the writer, between batches."""

    def scrub(self) -> Iterator[StoreUnreadableError | None]:
        """Read what is on the disk once more and compare it with its checksums, a piece at each step.

        Any thread may do this beside the writer and readers; the caller sets the pace.

        :returns: for each piece ``None``, or what reading it would raise. A remote store, whose service
            checks by itself, yields nothing.
        """

    def stats(self) -> StoreStats: ...

    def close(self) -> None: ...


# What the model is, and what the embedder does.


@dataclass(frozen=True, slots=True)
class Preprocess:
    """OpenCLIP's preprocessing, as plain values: what a decoder needs without loading the model.

    ``mean`` and ``std`` are applied by the embedder; a decoder makes colours sRGB, resizes and crops only.

    :param to_srgb: whether colour profiles are applied. They are, but for stores from before that was done:
        those stay as they were begun, so that no two ways of seeing mix in one of them.
    """

    width: int
    height: int
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    fill_color: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    to_srgb: bool = field(default=True, repr=False)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A loaded model's identity.

    :param spec: as the user names it, e.g. ``ViT-B-16/laion2b_s34b_b88k``.
    :param weights_hash: BLAKE3 of the checkpoint's files.
    :param preprocess: part of the identity: other crops give other vectors.
    """

    spec: str
    weights_hash: str
    dimension: int
    preprocess: Preprocess

    @property
    def key(self) -> str:
        """What vectors are looked up by: equal keys mean that they may be compared."""
        colours = ":sRGB" if self.preprocess.to_srgb else ""
        return f"{self.weights_hash}:{self.preprocess!r}{colours}"


class ModelState(enum.StrEnum):
    LOADING = "loading"
    READY = "ready"
    UNLOADED = "unloaded"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """:param only_prompts: what embeds pictures has left memory; it is loaded again for the next picture."""

    name: str
    state: ModelState
    reason: str | None = None
    help: tuple[str, ...] = ()
    device: str | None = None
    dtype: str | None = None
    only_prompts: bool = False


class Priority(enum.IntEnum):
    """Who goes first into the model; lower is sooner."""

    PROMPT = 0
    QUERY_PICTURE = 1
    INDEX = 2


class Embedder(Protocol):
    """Turns prompts and pictures into vectors, elsewhere than in this process."""

    @property
    def info(self) -> ModelInfo | None:
        """The model's identity, known from its first load on and remembered over restarts."""

    @property
    def batch_size(self) -> int:
        """How many pictures make a batch that holds the model for about 150 ms."""

    def status(self) -> ModelStatus: ...

    def embed_prompts(self, prompts: Sequence[str]) -> Future[NDArray[np.float32]]:
        """Unit vectors, shape ``(len(prompts), dimension)``.

        The future raises :class:`ModelUnavailableError` or :class:`EmbedderError`.
        """

    def embed_pictures(
        self, pictures: Sequence[Pixels], priority: Priority = Priority.INDEX
    ) -> Future[NDArray[np.float32]]:
        """Unit vectors, shape ``(len(pictures), dimension)``; all pictures of the model's own size."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What one reading of a file gave.

    :param pixels: ``None`` where the content was known already, or no model's preprocessing is.
    :param sidecar: the mark of the sidecars that were read with it; see :mod:`imagedbd.sidecars`.
    """

    signature: Signature
    content_hash: str
    metadata: Metadata
    pixels: Pixels | None = None
    sidecar: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one picture may cost.

    :param memory_bytes: of private memory, beyond what a worker uses to begin with.
    :param timeout_s: wall-clock seconds from the start of decoding.
    """

    max_bytes: int = 1 << 30
    max_pixels: int = 250_000_000
    memory_bytes: int = 4 << 30
    timeout_s: float = 60.0


# Changes, states and answers.


@dataclass(frozen=True, slots=True)
class FileChange:
    """Look at this path: nothing is said of what happened there.

    :param sequence: grows with every change; a waiter remembers the newest and waits until all up to
        it are done.
    """

    path: str
    sequence: int


class PictureState(enum.StrEnum):
    """What the ledger says of a path."""

    PENDING = "pending"
    """Seen, not yet through."""
    INDEXED = "indexed"
    """In the store, with its vector."""
    WAITING = "waiting"
    """In the store without a vector: metadata is searchable, the model is not there yet."""
    FAILED = "failed"
    """Could not be read; not tried again until it changes or someone asks."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One path that was seen.

    :param id: the picture's id in the store, where it is there.
    :param sidecar: the mark of the sidecars whose words the store has; see :mod:`imagedbd.sidecars`.
    """

    path: str
    signature: Signature
    state: PictureState
    id: str | None = None
    content_hash: str | None = None
    attempts: int = 0
    reason: str | None = None
    sidecar: str | None = None


class RootState(enum.StrEnum):
    ONLINE = "online"
    SCANNING = "scanning"
    OFFLINE = "offline"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class RootStatus:
    """:param unwatched: folders in it that can only be scanned now and then."""

    path: str
    state: RootState
    indexed: int = 0
    reason: str | None = None
    unwatched: int = 0


@dataclass(frozen=True, slots=True)
class PromptTerm:
    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PictureTerm:
    """A query picture: by its path, if its vector is in the store and it has not changed, or by its bytes.

    :param signature: the file as the client sees it; the daemon's own view may be barred.
    """

    path: str | None = None
    signature: Signature | None = None
    data: bytes | None = field(default=None, repr=False)
    weight: float = 1.0


class SortOrder(enum.StrEnum):
    SCORE = "score"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Query:
    """One search. Terms are combined into one vector; ``text`` makes a second ranking.

    :param text: words that the metadata must have, all of them.
    :param offset: how many of the first hits to leave out.
    :param min_score: lower bound on a hit's cosine similarity.
    :param sort: by date, the newest come first by the camera's own clock, and those without a date last. Of
        what words or conditions find, and what a lowest similarity leaves, that is all; of a ranking that
        has no end it is the best ``limit`` after the offset.
    :param weights: how much the ranking by likeness and the one by words count when they are fused, from 0
        to :data:`imagedbd.bounds.MAX_WEIGHT`, not both 0. A ranking of weight 0 takes no part; where there
        is only one ranking, there is nothing to weigh.
    """

    terms: tuple[PromptTerm | PictureTerm, ...] = ()
    text: str | None = None
    condition: Condition | None = None
    limit: int = 10
    offset: int = 0
    min_score: float | None = None
    sort: SortOrder = SortOrder.SCORE
    weights: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Hit:
    """One result, best first; rank counts from 1.

    :param offline: its root or disk is not there at the moment.
    """

    record: ImageRecord
    rank: int
    score: float
    similarity: float | None = None
    text_score: float | None = None
    offline: bool = False

    def public(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "score": self.score,
            "similarity": self.similarity,
            "text_score": self.text_score,
            "offline": self.offline,
            **self.record.public(),
        }


METADATA_FIELDS: tuple[str, ...] = tuple(f.name for f in fields(Metadata))
