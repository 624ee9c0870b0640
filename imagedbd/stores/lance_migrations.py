"""What brings a table of an older schema up to date, in place. A crash may ask for a step twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from .rows import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _add_owner(table: Any) -> None:
    if OWNER not in table.schema.names:
        table.add_columns(pa.field(OWNER, pa.string()))


MIGRATIONS: Final[Mapping[int, Callable[[Any], None]]] = {1: _add_owner}
"""By the schema that a step starts from; it leads to the next one."""
