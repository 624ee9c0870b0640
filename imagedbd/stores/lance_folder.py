"""A LanceDB table in a folder of this machine: made durable, checked, and rolled back by what is said here.

LanceDB flushes nothing to the disk by itself, checks nothing that it reads, and opens a table whose newest
version was zeroed by a crash as an empty one. So a commit counts once its files are flushed and listed in
the :mod:`inventory <imagedbd.stores.inventory>`, and one that does not is taken back by deleting what it
left: its version first, which needs no room on a full disk.

::

    manifest.json        which model's vectors these are, and the schema
    inventory.log        the checksums of all other files
    spare/               copies of what all else hangs on, for `imagedbd repair`
    pictures.lance/      the table
"""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

import lancedb

from imagedbd.durable import replace_file, sync_folder
from imagedbd.errors import MENDING, StoreUnreadableError

from .checks import ENGINE_ERRORS
from .inventory import Inventory, Work
from .lance_place import CACHE_BYTES, TABLE, session
from .manifest import FILE_NAME as MANIFEST
from .manifest import SPARE, Manifest, mend_spare, read_manifest, settle_manifest
from .syncing import files_below, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

_log = logging.getLogger(__name__)

TABLE_FOLDER: Final = f"{TABLE}.lance"

VERSIONS: Final = f"{TABLE_FOLDER}/_versions/"

_INVENTORY_SINCE = 2
"""The first schema whose stores have an inventory."""


class LanceFolder:
    """:class:`~imagedbd.stores.lance_place.Place` in a folder.

    :param exclusive: nobody else has it open, so that what was interrupted can be taken back.
    """

    shared = False
    mending = "If that is damage, `imagedbd repair` mends it."
    keep_versions: timedelta | None = None

    def __init__(self, folder: str, *, exclusive: bool) -> None:
        self.name = os.path.abspath(folder)
        self._exclusive = exclusive
        self._inventory = Inventory(self.name, may_change)

    def connect(self, cache_bytes: int = CACHE_BYTES) -> Any:
        os.makedirs(self.name, mode=0o700, exist_ok=True)
        return lancedb.connect(self.name, session=session(cache_bytes))

    def unreadable(self, why: str) -> StoreUnreadableError:
        return StoreUnreadableError(f"The store in {self.name} cannot be read: {why}.", MENDING)

    # The manifest.

    def manifest(self) -> Manifest | None:
        found = read_manifest(self.name)
        if found is None and os.path.lexists(self._spare):
            raise self.unreadable("its manifest.json is missing")
        return found

    def settle(self, manifest: Manifest) -> Manifest:
        if not self._inventory.exists():
            self._inventory.start()
            sync_folder(os.path.dirname(self.name))
        settle_manifest(self.name, manifest)
        return manifest

    @property
    def _spare(self) -> str:
        return os.path.join(self.name, SPARE)

    def clear(self, connection: Any) -> None:
        self._check_abandoned(connection)
        shutil.rmtree(os.path.join(self.name, TABLE_FOLDER), ignore_errors=True)
        self._inventory.remove()

    def _check_abandoned(self, connection: Any) -> None:
        """A table without a manifest is what an interrupted making left, if there is nothing in it."""
        if not any(path.startswith(f"{TABLE_FOLDER}/data/") for path in self._inventory.present()):
            return
        try:
            rows = connection.open_table(TABLE).count_rows()
        except ENGINE_ERRORS as error:
            raise self.unreadable(str(error)) from error
        if rows > 0:
            raise self.unreadable("its manifest.json is missing")

    # Opening.

    def examine(self, manifest: Manifest) -> bool:
        if not self._inventory.exists():
            if manifest.schema >= _INVENTORY_SINCE:
                raise self.unreadable("its inventory.log is missing")
            self._check_newest_version()
            return True
        self._inventory.load()
        self._check_files()
        mend_spare(self.name, manifest)
        if self._exclusive:
            self._take_back()
        return self._exclusive and self._inventory.work is Work.CLEAN

    def _check_files(self) -> None:
        if not self._has_acknowledged() and not (
            self._inventory.work is Work.CLEAN and self._newer_versions()
        ):
            raise self.unreadable("its table is missing")
        if faults := list(self._inventory.faults()):
            more = f", and {len(faults) - 1} more files are damaged" if len(faults) > 1 else ""
            raise self.unreadable(f"{faults[0]}{more}")

    def _has_acknowledged(self) -> bool:
        newest = self._newest_acknowledged()
        return newest is not None and os.path.exists(os.path.join(self.name, newest))

    def _take_back(self) -> None:
        """Delete what a commit left that was interrupted before it counted."""
        if not self._has_acknowledged():
            return  # LanceDB may write a version while it cleans, and then the one before goes as well
        versions = self._newer_versions()
        if len(versions) > 1 and self._inventory.work is None:
            raise self.unreadable(f"the end of its inventory is missing: {versions[0]} is not in it")
        if versions:
            _log.warning("a write to %s was interrupted, and is taken back", self.name)
        self._discard()

    def _check_newest_version(self) -> None:
        """A version whose file was not whole when the power went is opened as an empty table."""
        versions = [path for path in self._inventory.unlisted() if _is_version(path)]
        if not versions:
            raise self.unreadable("its table is missing")
        newest = os.path.join(self.name, min(versions))
        with open(newest, "rb") as file:
            file.seek(max(0, os.path.getsize(newest) - 4))
            if file.read() != b"LANC":
                raise self.unreadable(f"{newest} is damaged")

    def vouch(self) -> None:
        self._keep_spare_version()
        self._inventory.start()

    def _keep_spare_version(self) -> None:
        """Copy the newest version: of a table that was cleaned there is no other, and without it no row."""
        newest = os.path.basename(min(filter(_is_version, self._inventory.present())))
        os.makedirs(self._spare, mode=0o700, exist_ok=True)
        with open(os.path.join(self.name, VERSIONS, newest), "rb") as file:
            replace_file(os.path.join(self._spare, newest), file.read())
        for other in os.listdir(self._spare):
            if other not in (newest, MANIFEST):
                os.unlink(os.path.join(self._spare, other))

    # Writing.

    def begin(self, work: Work) -> None:
        self._inventory.begin(work)

    def acknowledge(self) -> None:
        self._inventory.acknowledge()

    def undo(self) -> bool:
        versions = self._newer_versions()
        self._discard()
        return bool(versions)

    def _discard(self) -> None:
        versions = self._newer_versions()
        self._inventory.discard(versions)
        self._inventory.discard(self._inventory.unlisted())

    def _newer_versions(self) -> list[str]:
        """The versions after the last one that counts, newest first."""
        newest = self._newest_acknowledged()
        unlisted = filter(_is_version, self._inventory.unlisted())
        return [path for path in unlisted if newest is None or path < newest]  # their names count down

    def _newest_acknowledged(self) -> str | None:
        return min(filter(_is_version, self._inventory), default=None)

    def may_maintain(self) -> bool:
        return True

    # Looking after it.

    def scrub(self) -> Iterator[StoreUnreadableError | None]:
        yield self._scrubbed_manifest()
        for fault in self._inventory.scrub():
            yield None if fault is None else self.unreadable(fault)

    def _scrubbed_manifest(self) -> StoreUnreadableError | None:
        try:
            found = read_manifest(self.name)
        except StoreUnreadableError as error:
            return error
        return None if found else self.unreadable("its manifest.json is missing")

    def size(self) -> int:
        return sum(size_of(entry) for entry in files_below(self.name))


def _is_version(path: str) -> bool:
    return path.startswith(VERSIONS) and path.endswith(".manifest")


def may_change(path: str) -> bool:
    """Whether a file is none of those that are written whole and never again.

    Of the table that is what is still being written, and LanceDB's own hint at its newest version, which it
    can do without.
    """
    place, _, name = path.rpartition("/")
    if not f"{place}/".startswith((f"{TABLE_FOLDER}/", f"{SPARE}/")):
        return True
    return name in (MANIFEST, "latest_version_hint.json") or name.endswith(".tmp") or "#" in name
