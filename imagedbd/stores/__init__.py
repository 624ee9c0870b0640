"""The stores, where records and vectors are kept and searched. Importing this package loads none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagedbd.errors import ConfigError

if TYPE_CHECKING:
    from imagedbd.datatypes import Store


def open_store(kind: str, folder: str, *, exclusive: bool = False) -> Store:
    """Open the store of a kind in a folder, or make one there.

    :param kind: ``lance``.
    :param exclusive: nobody else has the store open, as the holder of the daemon's lock knows: what
        earlier runs left behind is cleaned up.
    :raises ConfigError: if this version has no such store.
    :raises StoreUnreadableError: if what is there cannot be read.
    :raises StoreError: if a new store cannot be made there.
    """
    match kind:
        case "lance":
            from .lance import LanceStore  # noqa: PLC0415 - two seconds that only its users should pay

            return LanceStore(folder, exclusive=exclusive)
        case "faiss":
            raise ConfigError("This version of imagedbd has only the lance store: set store to lance.")
        case _:
            raise ConfigError(f"There is no store called {kind!r}: set store to lance.")
