"""The stores, where records and vectors are kept and searched. Importing this package loads none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imagedbd.errors import ConfigError

from .lean_import import lean_arrow, lean_lancedb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imagedbd.datatypes import Store

KINDS: Final = ("lance", "faiss")


def open_store(
    kind: str,
    place: str,
    *,
    owner: str = "",
    exclusive: bool = False,
    options: Mapping[str, str] | None = None,
    on_doubt: Callable[[], object] = lambda: None,
) -> Store:
    """Open the store of a kind in a place, or make one there.

    :param kind: one of :data:`KINDS`.
    :param place: a folder; for ``lance`` also any URI that LanceDB opens, such as ``s3://bucket/index``.
    :param owner: which daemon this is, among those that share a remote table.
    :param exclusive: nobody else has the store open, as the holder of the daemon's lock knows: what
        earlier runs left behind is cleaned up.
    :param options: LanceDB's ``storage_options`` for a remote place.
    :param on_doubt: called, in whichever thread, when a read or a write failed as damage would make it fail.
        The faiss store reads nothing after it was opened, so that only scrubbing can tell.
    :raises ConfigError: if there is no such store, or it cannot be in that place.
    :raises StoreUnreadableError: if what is there cannot be read.
    :raises StoreError: if a new store cannot be made there.
    """
    lean_arrow()
    match kind:
        case "lance":
            with lean_lancedb():
                from .lance import LanceStore  # noqa: PLC0415 - a second that only its users should pay

            return LanceStore(place, owner=owner, exclusive=exclusive, options=options, on_doubt=on_doubt)
        case "faiss":
            if "://" in place:
                raise ConfigError(f"The faiss store is a folder on this machine; {place} needs store lance.")
            from .faiss import FaissStore  # noqa: PLC0415 - pandas and Faiss, which only its users should pay

            return FaissStore(place, owner=owner, exclusive=exclusive)
        case _:
            raise ConfigError(f"There is no store called {kind!r}: set store to {' or '.join(KINDS)}.")
