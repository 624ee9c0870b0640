"""What has been seen, and what became of it: one SQLite file beside the store.

The folders are the truth and the store holds the pictures; the ledger is the daemon's memory of both. It
may be lost at the cost of hashing everything again. Paths are ``str`` as :func:`os.fsdecode` gives them
and are kept as their bytes, so that every file name survives and comparisons are those of the kernel.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from imagedbd.datatypes import LedgerEntry, PictureState, Signature
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.sidecars import belongs_to, owners_stem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

NAME: Final = "ledger.sqlite3"
"""Of the file, in the data folder."""
SCHEMA_VERSION = 3

_PAGE = 1000
"""Rows that are fetched at once; no read transaction outlives one page."""

_INT64 = range(-(2**63), 2**63)

# device, inode and both times have no declared type: SQLite then keeps a value as it was given, and one
# that exceeds 64 signed bits (inodes of some network file systems, mtimes after 2262) is given as text.
_SCHEMA = """
CREATE TABLE files (
    path BLOB NOT NULL UNIQUE,
    folder BLOB NOT NULL,
    device NOT NULL,
    inode NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns NOT NULL,
    ctime_ns NOT NULL,
    state TEXT NOT NULL,
    id TEXT,
    content_hash TEXT,
    attempts INTEGER NOT NULL,
    reason TEXT,
    updated_at REAL NOT NULL,
    sidecar TEXT
);
CREATE INDEX files_folder ON files (folder);
CREATE INDEX files_size ON files (size);
CREATE INDEX files_hash ON files (content_hash) WHERE content_hash IS NOT NULL;
CREATE INDEX files_open ON files (state, path) WHERE state <> 'indexed';

CREATE TABLE folder_counts (
    folder BLOB NOT NULL,
    state TEXT NOT NULL,
    files INTEGER NOT NULL,
    PRIMARY KEY (folder, state)
) WITHOUT ROWID;
CREATE TRIGGER files_added AFTER INSERT ON files BEGIN
    INSERT INTO folder_counts VALUES (NEW.folder, NEW.state, 1)
        ON CONFLICT DO UPDATE SET files = files + 1;
END;
CREATE TRIGGER files_removed AFTER DELETE ON files BEGIN
    UPDATE folder_counts SET files = files - 1 WHERE folder = OLD.folder AND state = OLD.state;
    DELETE FROM folder_counts WHERE folder = OLD.folder AND state = OLD.state AND files <= 0;
END;
CREATE TRIGGER files_moved_on AFTER UPDATE OF state ON files WHEN NEW.state <> OLD.state BEGIN
    UPDATE folder_counts SET files = files - 1 WHERE folder = OLD.folder AND state = OLD.state;
    DELETE FROM folder_counts WHERE folder = OLD.folder AND state = OLD.state AND files <= 0;
    INSERT INTO folder_counts VALUES (NEW.folder, NEW.state, 1)
        ON CONFLICT DO UPDATE SET files = files + 1;
END;

CREATE TABLE kept_vectors (
    content_hash TEXT NOT NULL,
    model_key TEXT NOT NULL,
    id TEXT NOT NULL,
    vector BLOB NOT NULL,
    size INTEGER NOT NULL,
    kept_until REAL NOT NULL,
    PRIMARY KEY (content_hash, model_key)
) WITHOUT ROWID;
CREATE INDEX kept_size ON kept_vectors (size);
CREATE INDEX kept_until ON kept_vectors (kept_until);

CREATE TABLE places (
    folder BLOB PRIMARY KEY,
    device NOT NULL,
    file_system NOT NULL,
    inode NOT NULL,
    mounted INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE relocations (
    old BLOB PRIMARY KEY,
    new BLOB NOT NULL
) WITHOUT ROWID;
"""

# What a ledger of each older format lacks of the next one.
_MIGRATIONS = {
    # A picture with a sidecar is then read again, and not embedded.
    1: "ALTER TABLE files ADD COLUMN sidecar TEXT;",
    # What may be a mount point is protected as one, until the next scan has looked.
    2: "ALTER TABLE places ADD COLUMN mounted INTEGER NOT NULL DEFAULT 1;"
    " CREATE TABLE relocations (old BLOB PRIMARY KEY, new BLOB NOT NULL) WITHOUT ROWID;",
}

# Not part of the format: whoever has none is slower at counting, and no less right.
_INDEX_OF_AGAIN = (
    "CREATE INDEX IF NOT EXISTS files_again ON files (folder) WHERE state = 'pending' AND id IS NOT NULL"
)

_ENTRY_COLUMNS = (
    "path, device, inode, size, mtime_ns, ctime_ns, state, id, content_hash, attempts, reason, sidecar"
)

_PUT = f"""
INSERT INTO files (folder, {_ENTRY_COLUMNS}, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    device = excluded.device, inode = excluded.inode, size = excluded.size,
    mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,
    state = excluded.state, id = excluded.id, content_hash = excluded.content_hash,
    attempts = excluded.attempts, reason = excluded.reason, sidecar = excluded.sidecar,
    updated_at = excluded.updated_at
"""  # noqa: S608 - column names of our own

# A hash that stays with a pending row says: the store still holds this content, with its vector. That is
# true of what was indexed, and not of what waited for a model or failed.
_BEGIN = """
INSERT INTO files (folder, path, device, inode, size, mtime_ns, ctime_ns, state, attempts, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', 1, ?)
ON CONFLICT (path) DO UPDATE SET
    attempts = CASE
        WHEN state IN ('pending', 'failed')
            AND (device, inode, size, mtime_ns, ctime_ns)
            = (excluded.device, excluded.inode, excluded.size, excluded.mtime_ns, excluded.ctime_ns)
        THEN attempts + 1 ELSE 1 END,
    content_hash = CASE WHEN state IN ('indexed', 'pending') THEN content_hash END,
    device = excluded.device, inode = excluded.inode, size = excluded.size,
    mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,
    state = 'pending', reason = NULL, updated_at = excluded.updated_at
RETURNING attempts
"""

_PUT_PLACE = "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?)"

_RELEASE = "UPDATE files SET attempts = 0 WHERE path = ? AND state = 'pending' AND state <> 'indexed'"

_HASHES_OF_SIZE = """
SELECT content_hash FROM files
WHERE size = :size AND state IN ('indexed', 'pending') AND content_hash IS NOT NULL
UNION SELECT content_hash FROM kept_vectors WHERE size = :size
"""


@dataclass(frozen=True, slots=True)
class KeptVector:
    """The vector of a picture that was forgotten.

    :param id: that the picture had.
    :param vector: little-endian float32.
    :param size: of the file, in bytes.
    :param kept_until: POSIX time.
    """

    content_hash: str
    model_key: str
    id: str
    vector: bytes
    size: int
    kept_until: float


@dataclass(frozen=True, slots=True)
class PlaceIdentity:
    """Which folder, of which file system, lies at a root or at a mount point below one.

    :param device: ``st_dev``, which may change with a reboot or a cable.
    :param file_system: ``f_fsid`` of ``statvfs``, for most file systems made of their UUID; 0 if unknown.
    :param mounted: whether something was mounted right there.
    """

    device: int
    file_system: int
    inode: int
    mounted: bool = False


class Ledger:
    """The table of all files ever seen and not forgotten.

    Any thread may call any method. Every method that writes is one transaction and durable on return.
    Iterators fetch in pages: what is written meanwhile may or may not be seen, and never waits for them.

    :param file: path of the SQLite file, made if it is not there; ``:memory:`` is not supported.
    :raises StoreUnreadableError: the file is no ledger, is damaged, or was written by a newer imagedbd.

    Every method raises :class:`StoreError` if SQLite refuses (a full disk), and
    :class:`StoreUnreadableError` if it finds the file damaged.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._write_lock = threading.RLock()
        self._read_lock = threading.Lock()
        with self._errors_explained():
            self._writer = self._connect()
            try:
                self._prepare()
                self._writer.execute(_INDEX_OF_AGAIN)
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise

    def close(self) -> None:
        """Waits for the write in progress. A closed ledger raises :class:`StoreError` when used."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    def check(self) -> None:
        """Read the whole file.

        :raises StoreUnreadableError: if it is damaged anywhere.
        """
        (verdict,) = self._read("PRAGMA quick_check(1)", [])[0]
        if verdict != "ok":
            raise StoreUnreadableError(f"The ledger {self.file} is damaged: {verdict}.")

    # One path, or a handful of them.

    def get(self, path: str) -> LedgerEntry | None:
        rows = self._read(f"SELECT {_ENTRY_COLUMNS} FROM files WHERE path = ?", [os.fsencode(path)])  # noqa: S608 - column names of our own
        return _entry(rows[0]) if rows else None

    def put(self, entries: Iterable[LedgerEntry], *, forget: Iterable[str] = ()) -> None:
        """Write these entries whole, all of them or none; what was known of their paths is replaced.

        :param forget: paths to forget in the same transaction, before the entries are written.
        """
        now = time.time()
        rows = [
            (
                _folder_of(entry.path),
                os.fsencode(entry.path),
                *_signature_columns(entry.signature),
                entry.state.value,
                entry.id,
                entry.content_hash,
                entry.attempts,
                entry.reason,
                entry.sidecar,
                now,
            )
            for entry in entries
        ]
        with self._writing() as connection:
            connection.executemany("DELETE FROM files WHERE path = ?", [(os.fsencode(p),) for p in forget])
            connection.executemany(_PUT, rows)

    def begin(
        self, files: Iterable[tuple[str, Signature]], *, released: Iterable[str] = ()
    ) -> dict[str, int]:
        """Count an attempt at each of these files, before it is opened: then a crash counts as well.

        Attempts start again at 1 when the file has changed or the last one succeeded. The picture's id
        stays known; its content hash stays if the store holds that content's vector.

        :param released: files that were opened and did no harm: whatever ends the process now, they are
            not to blame. Their attempts are forgotten in the same transaction.
        :returns: the attempts at each path, this one included.
        """
        now = time.time()
        attempts: dict[str, int] = {}
        with self._writing() as connection:
            connection.executemany(_RELEASE, [(os.fsencode(path),) for path in released])
            for path, signature in files:
                row = (
                    _folder_of(path),
                    os.fsencode(path),
                    *_signature_columns(signature),
                    now,
                )
                attempts[path] = connection.execute(_BEGIN, row).fetchall()[0][0]
        return attempts

    def forget(self, paths: Iterable[str]) -> None:
        """Paths that are not known are no error."""
        with self._writing() as connection:
            connection.executemany("DELETE FROM files WHERE path = ?", [(os.fsencode(p),) for p in paths])

    def retry(self, paths: Sequence[str] | None = None) -> list[str]:
        """Have failed files tried again: they become pending with no attempts.

        :param paths: ``None`` means every failed file.
        :returns: those that had failed.
        """
        sql = (
            "UPDATE files SET state = 'pending', attempts = 0, reason = NULL, updated_at = ?"
            " WHERE state = 'failed' AND state <> 'indexed'"
        )
        now = time.time()
        with self._writing() as connection:
            if paths is None:
                rows = connection.execute(f"{sql} RETURNING path", (now,)).fetchall()
            else:
                rows = [
                    row
                    for path in paths
                    for row in connection.execute(
                        f"{sql} AND path = ? RETURNING path", (now, os.fsencode(path))
                    ).fetchall()
                ]
        return [os.fsdecode(row[0]) for row in rows]

    def reread(self, place: str, *, afresh: bool = False) -> list[str]:
        """Have a file, or all files in a folder and below, read again though they are unchanged.

        They become pending. Their contents stay known, so that no model need see them again.

        :param afresh: the contents become unknown, also where other files have them, and kept vectors of
            them are dropped: all of those files are embedded again.
        :returns: the paths of all files that are to be read again.
        """
        here = "path = ? OR (path > ? AND path < ?)"
        values: list[Any] = [os.fsencode(place), *_range_below(place)]
        with self._writing() as connection:
            if afresh:
                contents = f"SELECT content_hash FROM files WHERE {here}"  # noqa: S608 - a condition of our own
                connection.execute(f"DELETE FROM kept_vectors WHERE content_hash IN ({contents})", values)  # noqa: S608 - see above
                here, values = f"{here} OR content_hash IN ({contents})", [*values, *values]
            rows = connection.execute(
                "UPDATE files SET state = 'pending', attempts = 0, reason = NULL, updated_at = ?,"  # noqa: S608 - see above
                " content_hash = CASE WHEN state IN ('indexed', 'pending') AND NOT ? THEN content_hash END"
                f" WHERE {here} RETURNING path",
                [time.time(), afresh, *values],
            ).fetchall()
        return [os.fsdecode(row[0]) for row in rows]

    def clear(self) -> None:
        """Forget every file and every kept vector; which file systems roots were on stays known."""
        with self._writing() as connection:
            connection.execute("DELETE FROM files")
            connection.execute("DELETE FROM kept_vectors")

    # Folders.

    def in_folder(self, folder: str) -> dict[str, LedgerEntry]:
        """The entries that lie directly in this folder, by their path."""
        sql = f"SELECT {_ENTRY_COLUMNS} FROM files WHERE folder = ?"  # noqa: S608 - column names of our own
        entries = (_entry(row) for row in self._read(sql, [_folder_key(folder)]))
        return {entry.path: entry for entry in entries}

    def under(self, folder: str, *, recursive: bool = True) -> Iterator[LedgerEntry]:
        """The entries in this folder and anywhere below it, ordered by the bytes of their paths."""
        condition, values = "path > ? AND path < ?", _range_below(folder)
        if not recursive:
            condition, values = f"{condition} AND folder = ?", [*values, _folder_key(folder)]
        return self._pages(condition, values)

    def folders_under(self, folder: str) -> Iterator[str]:
        """Each folder, from this one downwards, that directly holds known files; in byte order."""
        low, high = _range_below(folder)
        own = _folder_key(folder)
        sql = (
            "SELECT DISTINCT folder FROM folder_counts"
            " WHERE folder > ? AND (folder = ? OR (folder >= ? AND folder < ?)) ORDER BY folder LIMIT ?"
        )
        last = b""
        while rows := self._read(sql, [last, own, low, high, _PAGE]):
            yield from (os.fsdecode(row[0]) for row in rows)
            last = rows[-1][0]

    def counts(self, folder: str | None = None) -> Mapping[PictureState, int]:
        """How many files are in each state, every state named; in this folder and below, or in all.

        Costs about a microsecond for each folder that holds pictures, not for each picture.
        """
        condition, values = _in_or_below(folder)
        sql = f"SELECT state, sum(files) FROM folder_counts WHERE {condition} GROUP BY state"  # noqa: S608 - conditions of our own
        found = {PictureState(state): total for state, total in self._read(sql, values)}
        return {state: found.get(state, 0) for state in PictureState}

    def looked_at_again(self, folder: str | None = None) -> int:
        """How many pending files the store still has, as they were: they are found meanwhile.

        Costs a microsecond or less for each of them.
        """
        condition, values = _in_or_below(folder)
        sql = f"SELECT count(*) FROM files WHERE state = 'pending' AND id IS NOT NULL AND ({condition})"  # noqa: S608 - conditions of our own
        return int(self._read(sql, values)[0][0])

    def of_sidecar(self, path: str) -> list[LedgerEntry]:
        """The entries of the pictures that a sidecar of this path belongs to, or would."""
        stem = owners_stem(path)
        base = os.fsencode(stem)
        sql = f"SELECT {_ENTRY_COLUMNS} FROM files WHERE path = ? OR (path > ? AND path < ?) ORDER BY path"  # noqa: S608 - column names of our own
        # A slash is what follows a dot: so begin all names that have a suffix behind this one.
        entries = map(_entry, self._read(sql, [base, base + b".", base + b"/"]))
        return [entry for entry in entries if belongs_to(stem, entry.path)]

    def version(self) -> int:
        """Another number after each change."""
        return int(self._read("PRAGMA data_version", [])[0][0])

    def holds_any(self, folder: str) -> bool:
        """Whether any known file lies in this folder or below."""
        sql = "SELECT 1 FROM files WHERE path > ? AND path < ? LIMIT 1"
        return bool(self._read(sql, _range_below(folder)))

    def sample(self, folder: str, size: int, *, without: Collection[str] = ()) -> list[LedgerEntry]:
        """At most ``size`` entries in this folder and below, chosen at random.

        :param without: folders in it that are left out, with all below.
        """
        outside = " AND NOT (path > ? AND path < ?)" * len(without)
        condition = f"path > ? AND path < ?{outside} ORDER BY random() LIMIT ?"
        values = [bound for place in (folder, *without) for bound in _range_below(place)]
        sql = f"SELECT {_ENTRY_COLUMNS} FROM files WHERE {condition}"  # noqa: S608 - column names of our own
        return [_entry(row) for row in self._read(sql, [*values, size])]

    # States and contents.

    def by_state(self, state: PictureState, limit: int | None = None) -> Iterator[LedgerEntry]:
        """Ordered by the bytes of their paths; at most ``limit`` of them."""
        # Naming the index's own condition is what lets SQLite use it.
        indexed = state is PictureState.INDEXED
        condition = "state = ?" if indexed else "state = ? AND state <> 'indexed'"
        return self._pages(condition, [state.value], limit)

    def failures(self) -> Iterator[LedgerEntry]:
        return self.by_state(PictureState.FAILED)

    def by_hash(self, content_hash: str) -> list[LedgerEntry]:
        """Every file with this content, in whatever state, ordered by the bytes of their paths."""
        sql = f"SELECT {_ENTRY_COLUMNS} FROM files WHERE content_hash = ? ORDER BY path"  # noqa: S608 - column names of our own
        return [_entry(row) for row in self._read(sql, [content_hash])]

    def hashes_of_size(self, size: int) -> frozenset[str]:
        """The contents of this many bytes whose vector is in the store, or kept here."""
        return frozenset(row[0] for row in self._read(_HASHES_OF_SIZE, {"size": size}))

    # Vectors of forgotten pictures.

    def keep_vectors(self, vectors: Iterable[KeptVector]) -> None:
        """Keep the vectors of forgotten pictures, in case their content comes back."""
        rows = [(v.content_hash, v.model_key, v.id, v.vector, v.size, v.kept_until) for v in vectors]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO kept_vectors VALUES (?, ?, ?, ?, ?, ?)", rows)

    def kept_vector(self, content_hash: str, model_key: str) -> tuple[str, bytes] | None:
        """The picture's former id and its vector (little-endian float32), if they are still kept."""
        sql = "SELECT id, vector FROM kept_vectors WHERE content_hash = ? AND model_key = ?"
        rows = self._read(sql, [content_hash, model_key])
        return (rows[0][0], rows[0][1]) if rows else None

    def expire_kept(self, now: float) -> int:
        """Drop the vectors whose time is over at this POSIX time, and say how many."""
        with self._writing() as connection:
            return connection.execute("DELETE FROM kept_vectors WHERE kept_until <= ?", (now,)).rowcount

    # Places: which file system a root was on.

    def root_seen(self, folder: str) -> PlaceIdentity | None:
        """What was remembered of a root, or of a mount point below one."""
        sql = "SELECT device, file_system, inode, mounted FROM places WHERE folder = ?"
        rows = self._read(sql, [_folder_key(folder)])
        return _place_identity(rows[0]) if rows else None

    def places_under(self, folder: str) -> dict[str, PlaceIdentity]:
        """What was remembered of mount points anywhere below this folder, without the folder itself."""
        sql = (
            "SELECT folder, device, file_system, inode, mounted FROM places WHERE folder >= ? AND folder < ?"
        )
        rows = self._read(sql, _range_below(folder))
        return {os.fsdecode(place): _place_identity(identity) for place, *identity in rows}

    def remember_place(self, folder: str, identity: PlaceIdentity) -> None:
        with self._writing() as connection:
            connection.execute(_PUT_PLACE, _place_row(folder, identity))

    def forget_place(self, folder: str) -> None:
        """Forget what lay at this root or mount point; no file is forgotten, nor any place below."""
        with self._writing() as connection:
            connection.execute("DELETE FROM places WHERE folder = ?", (_folder_key(folder),))

    def move_places(self, old: str, new: str, moved: Mapping[str, PlaceIdentity]) -> None:
        """Have these places, and no others, be what is known at and below two folders; all or nothing."""
        with self._writing() as connection:
            for folder in (old, new):
                connection.execute(
                    "DELETE FROM places WHERE folder = ? OR (folder >= ? AND folder < ?)",
                    (_folder_key(folder), *_range_below(folder)),
                )
            connection.executemany(_PUT_PLACE, [_place_row(*place) for place in moved.items()])

    # Relocations: roots whose pictures are being brought to another place.

    def note_relocation(self, old: str, new: str) -> None:
        """What was on its way to the old place is on its way to the new one as well."""
        row = (os.fsencode(old), os.fsencode(new))
        with self._writing() as connection:
            connection.execute("UPDATE relocations SET new = ? WHERE new = ?", (row[1], row[0]))
            connection.execute("INSERT OR REPLACE INTO relocations VALUES (?, ?)", row)
            connection.execute("DELETE FROM relocations WHERE old = new")

    def relocations(self) -> dict[str, str]:
        """Where each root lies whose pictures were not all brought over; by where it lay before."""
        rows = self._read("SELECT old, new FROM relocations", [])
        return {os.fsdecode(old): os.fsdecode(new) for old, new in rows}

    def forget_relocation(self, old: str) -> None:
        """It is complete, or not wanted any more."""
        with self._writing() as connection:
            connection.execute("DELETE FROM relocations WHERE old = ?", (os.fsencode(old),))

    # Connections.

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL costs one fdatasync a batch, a few milliseconds. In return an attempt that was counted stays
        # counted even when the picture takes the whole machine down, and after a power cut the ledger never
        # knows less than the store by more than one batch.
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version == SCHEMA_VERSION:
            return
        if version in _MIGRATIONS:
            steps = " ".join(_MIGRATIONS[lower] for lower in range(version, SCHEMA_VERSION))
            self._writer.executescript(
                f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
            return
        if version != 0 or self._writer.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise StoreUnreadableError(
                f"The ledger {self.file} has format {version}; this imagedbd reads format {SCHEMA_VERSION}.",
                "Use the program that wrote it, or run `imagedbd repair` to build the ledger anew.",
            )
        self._writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, self._errors_explained():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled back already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _read(self, sql: str, values: Sequence[Any] | Mapping[str, Any]) -> list[tuple[Any, ...]]:
        with self._read_lock, self._errors_explained():
            return self._reader.execute(sql, values).fetchall()

    def _pages(
        self, condition: str, values: Sequence[Any], limit: int | None = None
    ) -> Iterator[LedgerEntry]:
        sql = f"SELECT {_ENTRY_COLUMNS} FROM files WHERE path > ? AND {condition} ORDER BY path LIMIT ?"  # noqa: S608 - conditions of our own
        last, left = b"", limit
        while rows := self._read(sql, [last, *values, _PAGE if left is None else min(_PAGE, left)]):
            yield from (_entry(row) for row in rows)
            last = rows[-1][0]
            if left is not None:
                left -= len(rows)

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
            raise StoreError(f"The ledger {self.file} cannot be used: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise StoreUnreadableError(
                f"The ledger {self.file} is damaged: {error}.", "`imagedbd repair` builds it anew."
            ) from error


def _entry(row: tuple[Any, ...]) -> LedgerEntry:
    path, device, inode, size, mtime_ns, ctime_ns, state, id_, content_hash, attempts, reason, sidecar = row
    return LedgerEntry(
        os.fsdecode(path),
        Signature(int(device), int(inode), size, int(mtime_ns), int(ctime_ns)),
        PictureState(state),
        id_,
        content_hash,
        attempts,
        reason,
        sidecar,
    )


def _place_identity(row: Sequence[Any]) -> PlaceIdentity:
    device, file_system, inode, mounted = row
    return PlaceIdentity(int(device), int(file_system), int(inode), bool(mounted))


def _place_row(folder: str, identity: PlaceIdentity) -> tuple[Any, ...]:
    numbers = (identity.device, identity.file_system, identity.inode)
    return (_folder_key(folder), *map(_sqlite_int, numbers), identity.mounted)


def _signature_columns(signature: Signature) -> tuple[int | str, int | str, int, int | str, int | str]:
    return (
        _sqlite_int(signature.device),
        _sqlite_int(signature.inode),
        signature.size,
        _sqlite_int(signature.mtime_ns),
        _sqlite_int(signature.ctime_ns),
    )


def _sqlite_int(value: int) -> int | str:
    return value if value in _INT64 else str(value)


def _in_or_below(folder: str | None) -> tuple[str, list[bytes]]:
    """A condition on a row's folder, and its values; of every folder, if it is none."""
    if folder is None:
        return "TRUE", []
    return "folder = ? OR (folder >= ? AND folder < ?)", [_folder_key(folder), *_range_below(folder)]


def _folder_of(path: str) -> bytes:
    return os.path.dirname(os.fsencode(path))


def _folder_key(folder: str) -> bytes:
    """The folder's bytes as :func:`os.path.dirname` gives them: no slash at the end, but for ``/``."""
    return os.fsencode(folder).rstrip(b"/") or b"/"


def _range_below(folder: str) -> list[bytes]:
    """Bounds of the paths below a folder, compared as bytes: ``0`` is the character that follows ``/``."""
    stem = os.fsencode(folder).rstrip(b"/")
    return [stem + b"/", stem + b"0"]
