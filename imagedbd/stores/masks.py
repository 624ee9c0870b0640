"""Conditions evaluated over Arrow columns, for an engine that has no language of its own."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .filters import (
    All,
    Among,
    AnyOf,
    Around,
    Compared,
    Contains,
    Empty,
    Matches,
    Null,
    Wildcard,
    lowered,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from imagedbd.datatypes import Condition

    from .filters import Operand, Operator, Pattern, Plan

    Mask = NDArray[np.bool_]
    """Which of the rows are selected, shape ``(rows,)``."""


def mask(condition: Condition, table: pa.Table) -> Mask:
    """Which rows of a table the condition selects, shape ``(rows,)``.

    :param table: has those columns of :func:`~imagedbd.stores.rows.table_schema` that the condition is
        about, in chunks of any size.
    :raises UsageError: if the condition does not fit the record's fields.
    """
    return _selected(lowered(condition), table)


def _selected(plan: Plan, table: pa.Table) -> Mask:
    match plan:
        case All(parts):
            return _all_of(parts, table)
        case AnyOf(parts):
            return _any_of(parts, table)
        case Compared(column, operator, value):
            return _compared(table[column], operator, value)
        case Null(column, holds):
            return _true(table[column].is_null() if holds else table[column].is_valid())
        case Around():
            return _around(plan, table)
        case _:
            hits = _hits(plan, table[plan.column])
            return hits if plan.holds else ~hits & _true(table[plan.column].is_valid())


def _all_of(parts: Sequence[Plan], table: pa.Table) -> Mask:
    selected = np.ones(table.num_rows, dtype=np.bool_)
    for part in parts:
        selected &= _selected(part, table)
    return selected


def _any_of(parts: Sequence[Plan], table: pa.Table) -> Mask:
    selected = np.zeros(table.num_rows, dtype=np.bool_)
    for part in parts:
        selected |= _selected(part, table)
    return selected


def _compared(column: Any, operator: Operator, value: Operand) -> Mask:
    return _true(_COMPARISONS[operator](column, pa.scalar(value, column.type)))


_COMPARISONS: dict[Operator, Any] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def _true(truths: Any) -> Mask:
    """Where a column of truths is true: it is null where the column was that they tell of."""
    known: Mask = pc.fill_null(truths, _FALSE).to_numpy(zero_copy_only=False)
    return known


_FALSE = pa.scalar(value=False)


def _hits(test: Among | Matches | Empty | Contains, column: Any) -> Mask:
    """The rows where the test holds, whether or not it should."""
    match test:
        case Among(_, values):
            return _true(pc.is_in(column, value_set=pa.array(values, column.type)))
        case Matches(_, pattern, lower):
            return _like(pattern, pc.ascii_lower(column) if lower else column)
        case Empty():
            return _compared(pc.list_value_length(column), "=", 0)
        case Contains(_, word):
            return _lists_with(word, column)
        case _:
            assert_never(test)


def _lists_with(word: str, column: Any) -> Mask:
    """The rows whose list has the word: its place among all lists' words tells the row."""
    places = _compared(pc.list_flatten(column), "=", word)
    rows = pc.list_parent_indices(column).to_numpy()
    hits = np.zeros(len(column), dtype=np.bool_)
    hits[rows[places]] = True
    return hits


# Patterns.


_MAX_REGEX: Final = 256
"""The longest pattern that Arrow's regular expressions are given. They try each of its pieces at each
character, which is too much of a long text, and refuse the longest ones."""


def _like(pattern: Pattern, column: Any) -> Mask:
    match pattern:
        case ():
            return _compared(column, "=", "")
        case (str(text),):
            return _compared(column, "=", text)
        case (str(text), Wildcard.TEXT):
            return _true(pc.starts_with(column, text))
        case (Wildcard.TEXT, str(text)):
            return _true(pc.ends_with(column, text))
        case (Wildcard.TEXT, str(text), Wildcard.TEXT):
            return _true(pc.match_substring(column, text))
        case _ if _length(pattern) <= _MAX_REGEX:
            return _true(pc.match_substring_regex(column, rf"\A(?s:{_regex(pattern)})\z"))
        case _:
            return _walked(pattern, column)


def _regex(pattern: Iterable[str | Wildcard]) -> str:
    return "".join(_REGEXES[piece] if isinstance(piece, Wildcard) else re.escape(piece) for piece in pattern)


_REGEXES = {Wildcard.TEXT: ".*", Wildcard.CHARACTER: "."}


def _length(pattern: Iterable[str | Wildcard]) -> int:
    """How many characters a text has at least, if each wildcard stands for one."""
    return sum(1 if isinstance(piece, Wildcard) else len(piece) for piece in pattern)


@dataclass(frozen=True, slots=True)
class _Segment:
    """What stands between two wildcards for any text, and so has a length of its own."""

    regex: re.Pattern[str]
    length: int


def _walked(pattern: Pattern, column: Any) -> Mask:
    """Match one text after the other: slow, but no text and no pattern makes it slower than their lengths."""
    segments = _segments(pattern)
    least = sum(segment.length for segment in segments)
    rows = np.flatnonzero(_compared(pc.utf8_length(column), ">=", least))
    hits = np.zeros(len(column), dtype=np.bool_)
    hits[rows] = [_fits(text, segments) for text in column.take(rows).to_pylist()]
    return hits


def _segments(pattern: Pattern) -> list[_Segment]:
    found: list[list[str | Wildcard]] = [[]]
    for piece in pattern:
        if piece is Wildcard.TEXT:
            found.append([])
        else:
            found[-1].append(piece)
    return [_Segment(re.compile(_regex(pieces), re.DOTALL), _length(pieces)) for pieces in found]


def _fits(text: str, segments: Sequence[_Segment]) -> bool:
    """Whether the first segment begins the text, the last ends it, and the others follow in between.

    Each is taken where it comes first, which leaves the most room for those after it: nothing is tried twice.
    """
    *before, last = segments
    start, end = 0, len(text) - last.length
    for number, segment in enumerate(before):
        find = segment.regex.search if number else segment.regex.match
        found = find(text, start, end)
        if found is None:
            return False
        start = found.end()
    return last.regex.match(text, end) is not None and (bool(before) or end == 0)


# Places.


def _around(test: Around, table: pa.Table) -> Mask:
    haversines = _haversines(table, test.lat, test.lon)  # not a number where a coordinate is null
    return haversines <= test.limit if test.holds else haversines > test.limit


def _haversines(table: pa.Table, lat: float, lon: float) -> NDArray[np.float64]:
    lats, lons = (np.asarray(table[name].to_numpy(), dtype=np.float64) for name in ("lat", "lon"))
    half_lats = np.sin(np.radians(lats - lat) / 2.0)
    half_lons = np.sin(np.radians(lons - lon) / 2.0)
    shrinks = np.cos(np.radians(lats)) * math.cos(math.radians(lat))
    haversines: NDArray[np.float64] = half_lats * half_lats + shrinks * half_lons * half_lons
    return haversines
