"""A record as flat columns: what both stores keep, and what a condition sees of it.

Text is kept as UTF-8 can hold it: a byte of a file name that is no UTF-8 stands there as ``?``. The real
path is kept beside it in bytes, and whatever must tell two paths apart uses those.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

from imagedbd.metadata import searchable_text
from imagedbd.text import fold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagedbd.datatypes import ImageRecord

Value = str | int | float | tuple[str, ...] | None

FOLDED_FIELDS: Final = ("path", "folder", "name", "camera_make", "camera_model", "lens", "caption", "comment")
"""Text fields that are kept folded, too, so that comparing without case is the same in every engine.

Of the other text fields ``text`` is folded already, and the rest are ASCII, where lower case is enough.
"""

LARGEST_INTEGER: Final = 2**63 - 1
"""The largest whole number that a column holds; its negative is the least."""


def folded(field: str) -> str:
    """The name of the column that holds a field folded."""
    return f"{field}_folded"


def plain(text: str) -> str:
    """The text as UTF-8 can hold it: lone surrogates become ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")


def path_bytes(path: str) -> bytes:
    """The bytes of a path; of a text that can be no path, bytes that no path has in common with it."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogatepass")


def folder_range(folder: str) -> tuple[bytes, bytes]:
    """The least path below a folder, and the least path beyond all of them, in bytes."""
    stem = path_bytes(folder).rstrip(b"/")
    return stem + b"/", stem + b"0"  # "0" is what follows "/"


def field_values(record: ImageRecord) -> dict[str, Value]:
    """The record's fields by the names of :data:`~imagedbd.datatypes.RECORD_FIELDS`, fit to be stored."""
    values = record.public()
    values["keywords"] = record.metadata.keywords
    values["text"] = searchable_text(record.path, record.metadata)
    return {name: _storable(value) for name, value in values.items()}


def folded_values(values: Mapping[str, Value]) -> dict[str, Value]:
    """The folded columns beside a record's field values: of :data:`FOLDED_FIELDS`, and of the keywords."""
    return {folded(field): _folded(values[field]) for field in (*FOLDED_FIELDS, "keywords")}


def _folded(value: Value) -> Value:
    match value:
        case str():
            return fold(value)
        case tuple():
            return tuple(fold(word) for word in value)
        case _:
            return value


def _storable(value: Value) -> Value:
    """The value, or ``None`` for a number that no column can hold: an unreadable tag is an empty field."""
    match value:
        case str():
            return plain(value)
        case tuple():
            return tuple(plain(word) for word in value)
        case int() if abs(value) > LARGEST_INTEGER:
            return None
        case float():
            # Engines do not agree on whether -0.0 is less than 0.0, so it stands in no column.
            return value + 0.0 if math.isfinite(value) else None
        case _:
            return value
