"""What differs between a LanceDB table in a folder of our own and one that a service keeps for many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import lancedb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from imagedbd.errors import StoreUnreadableError

    from .inventory import Work
    from .manifest import Manifest

TABLE: Final = "pictures"

CACHE_BYTES: Final = 64 * 2**20
"""For each of LanceDB's two caches, which by default may fill gigabytes with what old versions were like.

That for indices is larger where they are.
"""


def session(index_cache_bytes: int) -> lancedb.Session:
    """What one connection keeps in memory."""
    return lancedb.Session(index_cache_size_bytes=index_cache_bytes, metadata_cache_size_bytes=CACHE_BYTES)


class Place(Protocol):
    """Where the table and its manifest are. What a place cannot do, it knowingly leaves undone."""

    name: str
    """The folder or the URI."""
    shared: bool
    """Whether other daemons write to the table as well."""
    mending: str
    """What helps where a read fails of damage, in a sentence; empty where it is not ours to mend."""
    keep_versions: timedelta | None
    """How long superseded versions stay; ``None`` where only the reads of this process may need them."""

    def connect(self, cache_bytes: int = CACHE_BYTES) -> Any:
        """A new connection of LanceDB's.

        :param cache_bytes: for indices.
        """

    def unreadable(self, why: str) -> StoreUnreadableError:
        """The fault that what is there cannot be read, and what mends it."""

    def manifest(self) -> Manifest | None:
        """The manifest; ``None`` if there is none yet.

        :raises StoreUnreadableError: if it is damaged.
        """

    def settle(self, manifest: Manifest) -> Manifest:
        """Write the manifest, durably, unless another daemon was first.

        :returns: the one that holds now.
        """

    def clear(self, connection: Any) -> None:
        """Remove what an interrupted making left.

        :raises StoreUnreadableError: if that is more than an empty table.
        """

    def examine(self, manifest: Manifest) -> bool:
        """Look for damage before the table is opened, and take back what no finished commit left.

        :returns: whether there may be damage that only reading everything shows: see :meth:`vouch`.
        :raises StoreUnreadableError: if there is damage.
        """

    def vouch(self) -> None:
        """Everything could be read: what is there now is right."""

    def begin(self, work: Work) -> None:
        """Note that several versions will be written, or old ones deleted."""

    def acknowledge(self) -> None:
        """Make durable what was written since the last time; then it counts."""

    def undo(self) -> bool:
        """Take back what was written and not acknowledged.

        :returns: whether the table must be opened anew.
        """

    def may_maintain(self) -> bool:
        """Whether it is for this daemon to compact the table now."""

    def scrub(self) -> Iterator[StoreUnreadableError | None]:
        """As :meth:`imagedbd.datatypes.Store.scrub`."""

    def size(self) -> int | None:
        """Bytes on the disk."""
