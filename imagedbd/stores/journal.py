"""A file of records, each durable when it was appended: what changed since a snapshot.

::

    file    = "imdbjrn1"  record*
    record  = "imjr"  sequence:u64  length:u32  crc32:u32  payload

Numbers are little-endian; the CRC covers sequence and payload, and sequences count up by one. Whatever
ends a write early (a kill, a power cut, a full disk) leaves whole records and at most one torn one behind
them, which was never acknowledged: it is cut off. A bad record with a good one behind it is damage.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imagedbd.durable import sync_folder
from imagedbd.errors import MENDING, StoreUnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC: Final = b"imdbjrn1"
_HEAD: Final = struct.Struct("<4sQII")
_MARK: Final = b"imjr"


@dataclass(frozen=True, slots=True)
class _Record:
    """:param end: the offset behind it."""

    sequence: int
    payload: memoryview
    end: int


class Journal:
    """One journal that is open for appending. It does no locking: one thread writes.

    :raises OSError: if the file cannot be opened.
    """

    def __init__(self, path: str, *, length: int, sequence: int) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._length = length
        self._sequence = sequence

    @property
    def length(self) -> int:
        """Bytes up to the end of the last durable record."""
        return self._length

    def append(self, payload: bytes) -> None:
        """Write a record and make it durable.

        :raises OSError: if the disk refuses; the journal then ends where it did before.
        """
        record = _framed(self._sequence + 1, payload)
        try:
            _write_all(self._descriptor, record, self._length)
            os.fdatasync(self._descriptor)
        except BaseException:
            os.ftruncate(self._descriptor, self._length)
            raise
        self._length += len(record)
        self._sequence += 1

    def take_back(self, length: int) -> None:
        """Drop the last record, which began at this offset."""
        os.ftruncate(self._descriptor, length)
        self._length = length
        self._sequence -= 1

    def close(self) -> None:
        os.close(self._descriptor)


def create_journal(path: str) -> Journal:
    """A new and empty journal, durable but for its name: its folder is flushed by the caller.

    :raises OSError: if the disk refuses.
    """
    with open(path, "wb") as file:
        file.write(_MAGIC)
        file.flush()
        os.fsync(file.fileno())
    return Journal(path, length=len(_MAGIC), sequence=0)


def read_journal(path: str) -> tuple[list[memoryview], int]:
    """The payloads of a journal in their order, and the offset behind the last whole record.

    :raises StoreUnreadableError: if it is missing or damaged anywhere but in its unacknowledged end.
    """
    content = _content(path)
    records = list(_records(content))
    end = records[-1].end if records else len(_MAGIC)
    if next(_records_behind(content, end), None) is not None:
        raise _damaged(path, f"there is a bad record at byte {end}, and good ones behind it")
    return [record.payload for record in records], end


def open_journal(path: str, *, length: int, records: int) -> Journal:
    """Go on with a journal that was read: what lies behind its last whole record is cut off, durably.

    :raises OSError: if the disk refuses.
    """
    if os.path.getsize(path) > length:
        os.truncate(path, length)
        sync_folder(os.path.dirname(path))
    return Journal(path, length=length, sequence=records)


def salvage_journal(path: str) -> Iterator[memoryview]:
    """The payloads of all records that are whole, whatever lies between them."""
    try:
        content = _content(path)
    except StoreUnreadableError:
        return
    yield from (record.payload for record in _records_behind(content, 0))


def verify_journal(path: str, length: int) -> bool:
    """Read the first so many bytes once more.

    :returns: true.
    :raises StoreUnreadableError: if they are no longer whole records.
    """
    content = _content(path)[:length]
    end = len(_MAGIC)
    for record in _records(content):
        end = record.end
    if end != length:
        raise _damaged(path, f"the record at byte {end} is no longer whole")
    return True


def _content(path: str) -> memoryview:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if content[: len(_MAGIC)] != _MAGIC:
        raise _damaged(path, "it does not begin as one")
    return memoryview(content)


def _records(content: memoryview) -> Iterator[_Record]:
    """The records from the beginning up to the first that is not whole."""
    offset, sequence = len(_MAGIC), 1
    while (record := _record_at(content, offset)) and record.sequence == sequence:
        yield record
        offset, sequence = record.end, sequence + 1


def _records_behind(content: memoryview, offset: int) -> Iterator[_Record]:
    """Whole records anywhere behind an offset."""
    whole = content.obj
    assert isinstance(whole, bytes)  # noqa: S101 - it was made from bytes, which can be searched
    while (offset := whole.find(_MARK, offset, len(content))) >= 0:
        record = _record_at(content, offset)
        if record is not None:
            yield record
        offset = record.end if record is not None else offset + 1


def _record_at(content: memoryview, offset: int) -> _Record | None:
    start = offset + _HEAD.size
    if start > len(content):
        return None
    mark, sequence, length, checksum = _HEAD.unpack_from(content, offset)
    payload = content[start : start + length]
    if mark != _MARK or len(payload) != length or _checksum(sequence, payload) != checksum:
        return None
    return _Record(sequence, payload, start + length)


def _framed(sequence: int, payload: bytes) -> bytes:
    return _HEAD.pack(_MARK, sequence, len(payload), _checksum(sequence, payload)) + payload


def _checksum(sequence: int, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(sequence.to_bytes(8, "little")))


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def _damaged(path: str, why: str) -> StoreUnreadableError:
    return StoreUnreadableError(f"{path} is damaged: {why}.", MENDING)
