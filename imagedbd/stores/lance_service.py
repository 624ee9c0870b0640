"""A LanceDB table that others keep and many daemons share: in an object store, or at LanceDB's own service.

The manifest is a row of a small table beside the pictures, and is changed only from what was read: of two
daemons that bind a model at once, one finds that it was too late, and must agree. Durability, checksums and
old versions that a crash left are the service's; a failed write is not taken back, since by then others may
have written as well. One daemon at a time compacts the table, as long as its lease runs.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import lancedb
import pyarrow as pa
from lancedb.remote import ClientConfig, TimeoutConfig

from imagedbd.errors import ConfigError, StoreUnreadableError
from imagedbd.text import count

from .lance_place import CACHE_BYTES, TABLE, session
from .lance_sql import text_sql
from .manifest import Manifest, manifest_of, manifest_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .inventory import Work

_ABOUT: Final = "pictures_about"

_ABOUT_COLUMNS: list[pa.Field[Any]] = [
    pa.field("manifest", pa.string()),
    pa.field("keeper", pa.string()),
    pa.field("keeper_until", pa.float64()),
]

_LEASE_S = 15 * 60.0
"""How long one daemon alone may compact the table. Two that do so at once only undo each other's work."""

FIRST_WAIT_S = 3.0
"""When two daemons find no table at the same time, LanceDB may make it twice, the later over the earlier:
whoever made one waits for longer than that takes before anything is written there."""

_ENTERPRISE = "db://"
_ENTERPRISE_OPTIONS = ("api_key", "region", "host_override")

_BOUNDED = {
    "connect_timeout": "5 seconds",
    "timeout": "30 seconds",
    "client_max_retries": "2",
    "client_retry_timeout": "30",
}
"""What makes a service that does not answer a fault and not a hang, unless the user sets something else."""

_ENTERPRISE_CLIENT = ClientConfig(
    timeout_config=TimeoutConfig(
        timeout=timedelta(minutes=2), connect_timeout=timedelta(seconds=5), read_timeout=timedelta(minutes=1)
    )
)


class LanceService:
    """:class:`~imagedbd.stores.lance_place.Place` at a URI.

    :param owner: which daemon this is.
    :param options: LanceDB's ``storage_options``; for ``db://`` its ``api_key``, ``region`` and
        ``host_override``.
    :raises ConfigError: if LanceDB knows no such place, or lacks an option.
    """

    shared = True
    mending = ""
    keep_versions: timedelta | None = timedelta(hours=1)

    def __init__(self, uri: str, owner: str, options: Mapping[str, str] | None) -> None:
        self.name = uri
        self._owner = owner
        self._options = dict(options or {})
        if uri.startswith(_ENTERPRISE):
            _check_options(uri, self._options)
        self._known = ""

    @cached_property
    def _connection(self) -> Any:
        return self.connect()

    def connect(self, cache_bytes: int = CACHE_BYTES) -> Any:
        try:
            return _connected(self.name, self._options, cache_bytes)
        except ValueError as error:
            if "No object store provider" not in str(error):
                raise
            raise ConfigError(f"store.uri: LanceDB knows no places such as {self.name}. {error}") from error

    def unreadable(self, why: str) -> StoreUnreadableError:
        return StoreUnreadableError(
            f"The store at {self.name} cannot be read: {why}.",
            "It may not be ours alone, so `imagedbd repair` leaves it as it is: restore it where "
            "it is kept, or set store.uri to another place.",
        )

    # The manifest.

    def manifest(self) -> Manifest | None:
        self._known = ""
        if not self._has(_ABOUT):
            return None
        rows = self._about().search().select(["manifest"]).to_list()
        if len(rows) != 1:
            raise self.unreadable(f"its table {_ABOUT!r} has {count(len(rows), 'row')}")
        self._known = rows[0]["manifest"]
        return manifest_of(self._known, f"the manifest of {self.name}")

    def settle(self, manifest: Manifest) -> Manifest:
        wanted = manifest_text(manifest)
        if self._has(_ABOUT):
            self._about().update(where=f"manifest = {text_sql(self._known)}", values={"manifest": wanted})
        else:
            row = {"manifest": wanted, "keeper": "", "keeper_until": 0.0}
            self._connection.create_table(
                _ABOUT, data=pa.Table.from_pylist([row], schema=pa.schema(_ABOUT_COLUMNS))
            )
            time.sleep(FIRST_WAIT_S)
        return self.manifest() or manifest

    def _about(self) -> Any:
        return self._connection.open_table(_ABOUT)

    def _has(self, table: str) -> bool:
        found = self._connection.list_tables()
        while table not in found.tables and found.page_token:
            found = self._connection.list_tables(page_token=found.page_token)
        return table in found.tables

    # What is the service's to do.

    def clear(self, connection: Any) -> None:
        """What an interrupted making left is what this one goes on with; rows were written after one."""
        written = self._has(TABLE) and connection.open_table(TABLE).count_rows() > 0
        if written and not self._has(_ABOUT):
            raise self.unreadable(f"its table {_ABOUT!r} is missing")

    def examine(self, manifest: Manifest) -> bool:  # noqa: ARG002 - as the protocol has it
        return False

    def vouch(self) -> None: ...

    def begin(self, work: Work) -> None: ...

    def acknowledge(self) -> None: ...

    def undo(self) -> bool:
        return False

    def may_maintain(self) -> bool:
        """Take the lease, or renew it; LanceDB's own service compacts by itself."""
        if self.name.startswith(_ENTERPRISE):
            return False
        now = time.time()
        free = f"keeper = {text_sql(self._owner)} OR keeper_until < {now}"
        taken = self._about().update(
            where=free, values={"keeper": self._owner, "keeper_until": now + _LEASE_S}
        )
        return bool(taken.rows_updated)

    def scrub(self) -> Iterator[StoreUnreadableError | None]:
        yield from ()

    def size(self) -> None:
        return None


def _check_options(uri: str, options: Mapping[str, str]) -> None:
    if unknown := options.keys() - _ENTERPRISE_OPTIONS:
        raise ConfigError(
            f"store.storage_options: {uri} takes {', '.join(_ENTERPRISE_OPTIONS)}, and no {min(unknown)}."
        )
    if not (options.get("api_key") or os.environ.get("LANCEDB_API_KEY")):
        raise ConfigError(f"store.storage_options: {uri} needs an api_key (or LANCEDB_API_KEY).")


def _connected(uri: str, options: Mapping[str, str], cache_bytes: int) -> Any:
    if not uri.startswith(_ENTERPRISE):
        return lancedb.connect(
            uri,
            storage_options={**_BOUNDED, **options},
            read_consistency_interval=timedelta(0),
            session=session(cache_bytes),
        )
    given: dict[str, Any] = dict(options)
    return lancedb.connect(uri, client_config=_ENTERPRISE_CLIENT, **given)
