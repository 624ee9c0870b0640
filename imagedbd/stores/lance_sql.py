"""Conditions compiled to the SQL that LanceDB filters with (DataFusion's).

The SQL is made of nothing but our own words, names of the record's columns, and literals that are typed
and escaped here: no text of a client is ever read as code. It has no NOT in front of parentheses: the
engine's parser breaks on a few dozen of them, and :mod:`~imagedbd.stores.filters` needs none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

from .columns import plain
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
    from collections.abc import Sequence

    from imagedbd.datatypes import Condition

    from .filters import Operand, Pattern, Plan, Test


def to_sql(condition: Condition) -> str:
    """The condition as an SQL expression over the store's columns.

    :raises UsageError: if it does not fit the record's fields, or is more than the engine can read.
    """
    return _sql(lowered(condition))


def text_sql(value: str) -> str:
    """An SQL literal of a text."""
    return "'" + plain(value).replace("'", "''") + "'"


def _sql(plan: Plan) -> str:
    match plan:
        case All(()):
            return "true"
        case AnyOf(()):
            return "false"
        case All(parts):
            return " AND ".join(_operand(part) for part in parts)
        case AnyOf(parts):  # AND binds tighter than OR: it needs no parentheses
            return " OR ".join(_sql(part) for part in parts)
        case _:
            return _test(plan)


def _operand(plan: Plan) -> str:
    return f"({_sql(plan)})" if isinstance(plan, AnyOf) else _sql(plan)


def _test(test: Test) -> str:
    match test:
        case Compared(column, operator, value):
            sql = f"{column} {operator} {_literal(value)}"
        case Among(column, values, holds):
            sql = _among(column, values, holds=holds)
        case Matches(column, pattern, lower, holds):
            text = f"lower({column})" if lower else column
            sql = f"{text} {_not(unless=holds)}LIKE {text_sql(_like(pattern))}"
        case Null(column, holds):
            sql = f"{column} IS {_not(unless=holds)}NULL"
        case Empty(column, holds):
            sql = f"cardinality({column}) {'=' if holds else '>'} 0"
        case Contains(column, word, holds):
            sql = f"{_not(unless=holds)}array_has({column}, {text_sql(word)})"
        case Around(lat, lon, limit, holds):
            sql = f"{_haversine(lat, lon)} {'<=' if holds else '>'} {_literal(limit)}"
        case _:
            assert_never(test)
    return sql


def _among(column: str, values: Sequence[Operand], *, holds: bool) -> str:
    literals = ", ".join(_literal(value) for value in values)
    if holds:
        return f"{column} IN ({literals})"
    # The engine takes `x NOT IN (1) OR x NOT IN (2)` to be true of everything, of null as well.
    return f"{column} IS NOT NULL AND {column} NOT IN ({literals})"


def _not(*, unless: bool) -> str:
    return "" if unless else "NOT "


def _like(pattern: Pattern) -> str:
    return "".join(piece.value if isinstance(piece, Wildcard) else _escaped(piece) for piece in pattern)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _haversine(lat: float, lon: float) -> str:
    half_lat = f"sin(radians(lat - {_literal(lat)}) / 2.0)"
    half_lon = f"sin(radians(lon - {_literal(lon)}) / 2.0)"
    shrink = f"cos(radians(lat)) * {_literal(math.cos(math.radians(lat)))}"
    return f"{half_lat} * {half_lat} + {shrink} * {half_lon} * {half_lon}"


def _literal(value: Operand) -> str:
    match value:
        case str():
            return text_sql(value)
        case bytes():
            return f"X'{value.hex()}'"
        case _:
            return f"({value!r})" if value < 0 else repr(value)
