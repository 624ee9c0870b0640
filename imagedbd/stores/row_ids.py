"""Where the rows of recent answers lie, which spares looking for them in the whole table."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

ROW_ID: Final = "_rowid"
_KEPT: Final = 20_000


class RowIds:
    """LanceDB's row ids by the ids of pictures; any thread may call any method.

    A row that is written again, or compacted, lies elsewhere from then on: who reads one that was known
    here sees by its picture's id whether it is the one that was meant.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}

    def note(self, table: Any) -> None:
        """:param table: an Arrow table with the columns ``id`` and ``_rowid``."""
        found = dict(zip(table["id"].to_pylist(), table[ROW_ID].to_pylist(), strict=True))
        with self._lock:
            if len(self._known) + len(found) > _KEPT:
                self._known.clear()
            self._known |= found

    def known(self, ids: Iterable[str]) -> list[int]:
        with self._lock:
            return [self._known[key] for key in ids if key in self._known]
