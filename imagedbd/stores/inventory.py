"""The inventory: a log, beside a store's files, of every file that a finished commit left, with checksums.

It is for files that are written whole and never again, as LanceDB's are. A commit counts from the moment
that its files are listed here: what is not listed was left by a commit that nobody was told of. So damage,
loss and the rest of an interrupted write can be told apart, although the engine itself checks nothing.

The log has one line a commit: a checksum of the line, a space and a JSON object. A line without its end is
one that a crash cut short. Files may go only while the log says so (:attr:`Work.CLEAN`), and the log is
then written anew; until it is, a missing file proves nothing, and whoever opens the store must read it all.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from blake3 import blake3

from imagedbd.durable import replace_file
from imagedbd.errors import MENDING, StoreUnreadableError

from .syncing import files_below, flush

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FILE_NAME: Final = "inventory.log"

_EDGE = 16 * 2**10
"""How many bytes at either end of a file are looked at when a store is opened."""

_PIECE = 16 * 2**20
"""How many bytes a scrub reads at a step."""

_DIGEST_BYTES = 16


class Work(enum.StrEnum):
    """What more than one commit at a time may be under way, as the log has it."""

    REWRITE = "rewrite"
    """Several versions are written; they count together, when it ends."""
    CLEAN = "clean"
    """Files that no version needs any longer are deleted."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """:param edges: a digest of the first and the last bytes; of a small file, of all of it."""

    size: int
    edges: str
    whole: str


class Inventory:
    """The files below a folder, as they were when their commits ended.

    One thread changes it at a time; :meth:`scrub` may run beside it.

    :param ignored: whether a path, relative to the folder, is none of ours: a file that may change.
    """

    def __init__(self, folder: str, ignored: Callable[[str], bool]) -> None:
        self._folder = folder
        self._ignored = ignored
        self._path = os.path.join(folder, FILE_NAME)
        self._listed: dict[str, _Listed] = {}
        self._length = 0
        self._replacing = threading.Lock()
        """Held while the log is exchanged, so that its file and its length are read as a pair."""
        self.work: Work | None = None
        """What was begun and has not ended."""

    def exists(self) -> bool:
        return os.path.lexists(self._path)

    def __contains__(self, path: str) -> bool:
        return path in self._listed

    def __iter__(self) -> Iterator[str]:
        """The paths that are listed, relative to the folder."""
        return iter(self._listed)

    # Keeping it.

    def start(self) -> None:
        """Begin anew, durably: list what is there, and check what was listed before no more.

        :raises OSError: if the disk refuses; the log is as it was.
        """
        present = self.present()
        flush(self._folder, map(self._absolute, present.difference(self._listed)))
        listed = {path: self._listed.get(path) or self._examined(path) for path in sorted(present)}
        content = _line({"files": _written(listed)})
        with self._replacing:
            replace_file(self._path, content)
            self._listed, self._length, self.work = listed, len(content), None

    def acknowledge(self) -> None:
        """Flush the files that are new, and list them, durably. It ends a :attr:`Work.REWRITE`.

        :raises OSError: if the disk refuses; then they are not listed.
        """
        new = self.unlisted()
        flush(self._folder, map(self._absolute, new))
        listed = {path: self._examined(path) for path in new}
        self._append({"files": _written(listed)})
        self._listed |= listed
        if self.work is Work.REWRITE:
            self.work = None

    def begin(self, work: Work) -> None:
        """Note what is begun, durably, before anything of it is done.

        While files may be missing because cleaning has not ended, that remains so until :meth:`start`.

        :raises OSError: if the disk refuses; then it must not be begun.
        """
        if self.work is Work.CLEAN:
            return
        self._append({"begin": work})
        self.work = work

    def unlisted(self) -> list[str]:
        """The files that no finished commit left, relative to the folder."""
        return sorted(self.present().difference(self._listed))

    def discard(self, paths: Iterable[str]) -> None:
        """Delete unlisted files, in this order. They are not flushed: what comes back is unlisted again.

        :raises OSError: if the disk refuses.
        """
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._absolute(path))

    def remove(self) -> None:
        """Forget everything: whoever made the files is about to make them again."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._listed, self._length, self.work = {}, 0, None

    def _append(self, content: dict[str, Any]) -> None:
        line = _line(content)
        with open(self._path, "r+b", buffering=0) as file:
            file.truncate(self._length)  # what a crash or a full disk cut short is no line
            file.seek(self._length)
            try:
                _write_all(file, line)
                os.fdatasync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self._length)
                raise
        self._length += len(line)

    def present(self) -> set[str]:
        """The files that are there, listed or not, relative to the folder."""
        start = len(self._folder) + 1
        paths = (entry.path[start:] for entry in files_below(self._folder))
        return {path for path in paths if path != FILE_NAME and not self._ignored(path)}

    def _absolute(self, path: str) -> str:
        return os.path.join(self._folder, path)

    def _examined(self, path: str) -> _Listed:
        with open(self._absolute(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            edges = _edges(file.fileno(), size)
            return _Listed(size, edges, edges if size <= _EDGE else _digest(file))

    # Checking it.

    def load(self) -> None:
        """Read the log.

        :raises StoreUnreadableError: if it is damaged.
        """
        try:
            with open(self._path, "rb") as file:
                content = file.read()
            self._listed, self.work = _parsed(content)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise _unreadable(f"{self._path} cannot be read ({error})") from error
        self._length = content.rfind(b"\n") + 1

    def faults(self) -> Iterator[str]:
        """The listed files that are missing, have another size, or differ at either end, and in what."""
        for path, listed in self._listed.items():
            if fault := self._fault(path, listed):
                yield f"{self._absolute(path)} {fault}"

    def _fault(self, path: str, listed: _Listed) -> str | None:
        try:
            descriptor = os.open(self._absolute(path), os.O_RDONLY)
        except FileNotFoundError:
            return None if self.work is Work.CLEAN else "is missing"
        except OSError as error:
            return f"cannot be read ({error})"
        try:
            size = os.fstat(descriptor).st_size
            if size != listed.size:
                return f"has {size} bytes instead of {listed.size}"
            return None if _edges(descriptor, size) == listed.edges else "is damaged"
        except OSError as error:
            return f"cannot be read ({error})"
        finally:
            os.close(descriptor)

    def scrub(self) -> Iterator[str | None]:
        """Read the log and every listed file once more; for each piece ``None`` or what is wrong."""
        yield self._scrubbed_log()
        for path, listed in list(self._listed.items()):
            yield from self._scrubbed(path, listed)

    def damaged(self) -> list[str]:
        """The listed files that are not as they were, every byte of them read; relative to the folder."""
        return [path for path, listed in self._listed.items() if any(self._scrubbed(path, listed))]

    def _scrubbed_log(self) -> str | None:
        try:
            with self._replacing, open(self._path, "rb") as file:
                content = file.read(self._length)
            _parsed(content)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            return f"{self._path} cannot be read ({error})"
        return None

    def _scrubbed(self, path: str, listed: _Listed) -> Iterator[str | None]:
        digest = blake3()
        try:
            with open(self._absolute(path), "rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    yield None
            right = digest.hexdigest(_DIGEST_BYTES) == listed.whole
            yield None if right else f"{self._absolute(path)} is damaged"
        except OSError as error:
            # Whatever cleaning deletes is missing, and then no longer listed.
            gone = self.work is Work.CLEAN or path not in self._listed
            yield None if gone else f"{self._absolute(path)} cannot be read ({error})"


def _digest(file: BinaryIO) -> str:
    # Not through a memory map: where the disk fails, that kills the process.
    digest = blake3()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest(_DIGEST_BYTES)


def _edges(descriptor: int, size: int) -> str:
    digest = blake3(os.pread(descriptor, _EDGE, 0))
    if size > _EDGE:
        digest.update(os.pread(descriptor, _EDGE, max(_EDGE, size - _EDGE)))
    return digest.hexdigest(_DIGEST_BYTES)


def _line(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, separators=(",", ":")).encode()
    return blake3(text).hexdigest(_DIGEST_BYTES).encode() + b" " + text + b"\n"


def _written(listed: dict[str, _Listed]) -> list[list[str | int]]:
    return [[path, entry.size, entry.edges, entry.whole] for path, entry in listed.items()]


def _parsed(content: bytes) -> tuple[dict[str, _Listed], Work | None]:
    """What a log says; a last line without its end is left out.

    :raises ValueError: if a line is not as it was written, or there is none.
    """
    listed: dict[str, _Listed] = {}
    work: Work | None = None
    *lines, rest = content.split(b"\n")
    if not lines:
        raise ValueError("it is empty")
    if _is_right(rest[:-1]):
        raise ValueError("the end of its last line is damaged")
    for number, line in enumerate(lines, 1):
        entry = _checked(line, number)
        if "begin" in entry:
            work = work if work is Work.CLEAN else Work(entry["begin"])
            continue
        listed |= {path: _Listed(size, edges, whole) for path, size, edges, whole in entry["files"]}
        if work is Work.REWRITE:
            work = None
    return listed, work


def _checked(line: bytes, number: int) -> dict[str, Any]:
    if not _is_right(line):
        raise ValueError(f"line {number} is damaged")
    content: dict[str, Any] = json.loads(line.partition(b" ")[2])
    return content


def _is_right(line: bytes) -> bool:
    digest, _, text = line.partition(b" ")
    return digest == blake3(text).hexdigest(_DIGEST_BYTES).encode()


def _write_all(file: Any, content: bytes) -> None:
    """Write to an unbuffered file, which may take only a part at a time."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def _unreadable(why: str) -> StoreUnreadableError:
    return StoreUnreadableError(f"{why}.", MENDING)
