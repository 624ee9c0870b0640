"""Values that a condition asks for in another spelling than the index has: ``=`` takes them as they stand."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from imagedbd.datatypes import RECORD_FIELDS, And, Compare, FieldType, Like, Not, OneOf, Or

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagedbd.datatypes import Condition, Store

_LOOKS: Final = 4
"""Values that are looked for, at most: each may go through the whole store."""
_FORMATS: Final = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000", "heic": "HEIF", "pnm": "PPM"}
"""Endings that people take for the names of formats."""


def near_misses(condition: Condition | None, store: Store) -> list[str]:
    """A sentence for each text that no picture has as it stands, and some picture has in another case.

    :raises StoreError: the store does not answer.
    """
    asked = islice(_texts(condition), _LOOKS)
    found = ((field, text, _nearest(field, text, store)) for field, text in asked)
    return [
        f"No picture has the {field} '{text}', but '{near}' is there: = minds case, and ILIKE does not."
        for field, text, near in found
        if near is not None
    ]


def _texts(condition: Condition | None) -> Iterator[tuple[str, str]]:
    """The fields of text, and what they have to be equal to."""
    match condition:
        case And(operands) | Or(operands):
            for operand in operands:
                yield from _texts(operand)
        case Not(operand):
            yield from _texts(operand)
        case Compare(field, "=", value):
            yield from _of_text(field, (value,))
        case OneOf(field, values):
            yield from _of_text(field, values)


def _of_text(field: str, values: tuple[str | int | float, ...]) -> Iterator[tuple[str, str]]:
    if RECORD_FIELDS[field] is FieldType.TEXT:
        yield from ((field, value) for value in values if isinstance(value, str))


def _nearest(field: str, text: str, store: Store) -> str | None:
    if store.count(Compare(field, "=", text)):
        return None
    meant = _FORMATS.get(text.lower(), text) if field == "format" else text
    literal = "".join(f"\\{c}" if c in "%_\\" else c for c in meant)
    record = next(iter(store.scan(Like(field, literal, ignore_case=True))), None)
    return None if record is None else record.public().get(field)
