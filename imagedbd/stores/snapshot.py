"""What the faiss store keeps on disk: numbered snapshots, of which ``snapshot.json`` names the valid one.

::

    manifest.json            what the store holds; see the manifest module
    snapshot.json            number, files, their sizes and checksums; replaced as the last step
    metadata-N.parquet       the records
    vectors-N.f16            their vectors, row by row, little-endian float16; zeros where there is none
    index-N.ivf              the approximate index, if there is one; it can be made anew
    journal-N.log            what changed since

A snapshot's files are written once and checked by blocks: a damaged one costs the rows of its block only.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from blake3 import blake3

from imagedbd.durable import replace_file, sync_folder
from imagedbd.errors import MENDING, StoreUnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

FILE_NAME: Final = "snapshot.json"

BLOCK: Final = 8 << 20
"""Bytes that one checksum covers."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is written once.

    :param size: in bytes.
    :param blocks: the BLAKE3 of each :data:`BLOCK` bytes.
    """

    name: str
    size: int
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """:param vectors: ``None`` before there are any.
    :param approximate: the approximate index …
    :param trained_rows: … of how many rows it was made …
    :param added_rows: … and how many have been added to it since.
    :param journal_length: bytes that its journal had at least when the store was last closed.
    """

    number: int
    rows: int
    metadata: StoredFile
    vectors: StoredFile | None = None
    approximate: StoredFile | None = None
    trained_rows: int = 0
    added_rows: int = 0
    journal_length: int = 0

    @property
    def journal_name(self) -> str:
        return journal_name(self.number)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        return tuple(file for file in (self.metadata, self.vectors, self.approximate) if file)

    @property
    def size(self) -> int:
        """Bytes of its files, without the journal."""
        return sum(file.size for file in self.files)

    @property
    def names(self) -> frozenset[str]:
        """All file names that belong to it."""
        return frozenset({self.journal_name, *(file.name for file in self.files)})


def journal_name(number: int) -> str:
    return f"journal-{number}.log"


def metadata_name(number: int) -> str:
    return f"metadata-{number}.parquet"


def read_snapshot(folder: str) -> Snapshot | None:
    """What ``snapshot.json`` says; ``None`` if there is none.

    :raises StoreUnreadableError: if it is damaged.
    """
    path = os.path.join(folder, FILE_NAME)
    try:
        with open(path, encoding="utf-8") as file:
            return _snapshot(_unsealed(json.load(file)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(path, str(error)) from error


def commit_snapshot(folder: str, snapshot: Snapshot) -> None:
    """Make this the valid snapshot, durably; its files must be durable already.

    :raises OSError: and the one before is still valid.
    """
    content = asdict(snapshot)
    text = json.dumps({"blake3": _seal(content), "snapshot": content}, indent=2) + "\n"
    replace_file(os.path.join(folder, FILE_NAME), text.encode())


def write_file(folder: str, name: str, write: Callable[[BinaryIO], object]) -> StoredFile:
    """Write a new file durably, but for its name: the folder is flushed when the snapshot is committed.

    :raises OSError: if the disk refuses.
    """
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    return stored_file(folder, name)


def stored_file(folder: str, name: str) -> StoredFile:
    """What a file is now."""
    path = os.path.join(folder, name)
    return StoredFile(name, os.path.getsize(path), tuple(digest for digest in _digests(path)))


def damage_by_block(folder: str, file: StoredFile) -> Iterator[str | None]:
    """For each block of a file, what is wrong with it, or ``None``.

    A file that is gone or of another size is one damaged block.
    """
    path = os.path.join(folder, file.name)
    try:
        size = os.path.getsize(path)
    except OSError as error:
        yield f"it cannot be read ({error.strerror})"
        return
    if size != file.size:
        yield f"it has {size} bytes, and had {file.size}"
        return
    try:
        for number, (digest, expected) in enumerate(zip(_digests(path), file.blocks, strict=True)):
            yield None if digest == expected else f"block {number} has changed since it was written"
    except OSError as error:  # a bad sector, or a snapshot that was replaced meanwhile
        yield f"it cannot be read ({error.strerror})"


def check_file(folder: str, file: StoredFile) -> None:
    """:raises StoreUnreadableError: if the file is not as it was written."""
    for damage in damage_by_block(folder, file):
        if damage is not None:
            raise damaged(os.path.join(folder, file.name), damage)


def read_codes(folder: str, file: StoredFile, dimension: int) -> NDArray[np.float16]:
    """The vectors of a snapshot, shape ``(rows, dimension)``."""
    return np.fromfile(os.path.join(folder, file.name), dtype="<f2").reshape(-1, dimension)


def remove_files(folder: str, keep: frozenset[str]) -> None:
    """Remove what other snapshots left behind; a file that resists stays for the next time."""
    for name in os.listdir(folder):
        stem, _, ending = name.rpartition(".")
        if ending in {"parquet", "f16", "ivf", "log"} and "-" in stem and name not in keep:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
    sync_folder(folder)


def damaged(path: str, why: str) -> StoreUnreadableError:
    return StoreUnreadableError(f"{path} is damaged: {why}.", MENDING)


def _digests(path: str) -> Iterator[str]:
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            yield blake3(block).hexdigest()


def _unsealed(sealed: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = sealed["snapshot"]
    if sealed["blake3"] != _seal(content):
        raise ValueError("its checksum does not fit")
    return content


def _seal(content: dict[str, Any]) -> str:
    return blake3(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _snapshot(content: dict[str, Any]) -> Snapshot:
    parts = {name: _file(content[name]) for name in ("metadata", "vectors", "approximate")}
    metadata = parts["metadata"]
    if metadata is None:
        raise ValueError("it names no metadata")
    return Snapshot(
        int(content["number"]),
        int(content["rows"]),
        metadata,
        parts["vectors"],
        parts["approximate"],
        int(content["trained_rows"]),
        int(content["added_rows"]),
        int(content["journal_length"]),
    )


def _file(content: dict[str, Any] | None) -> StoredFile | None:
    if content is None:
        return None
    return StoredFile(str(content["name"]), int(content["size"]), tuple(map(str, content["blocks"])))
