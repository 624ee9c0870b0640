"""Conditions compiled to the SQL that LanceDB filters with (DataFusion's).

The SQL is made of nothing but our own words, names of the record's fields, and literals that are typed
and escaped here: no text of a client is ever read as code.

**Nulls.** A condition is true, false or unknown, as in SQL. A comparison with an empty field is unknown,
and so is its negation; AND, OR and NOT follow Kleene's logic; a row is selected where the whole is true.
A list of words is never null: it may be empty, and then has no word. So ``NOT width > 10`` leaves out the
pictures of unknown width, but ``NOT 'dog' IN keywords`` has those without keywords.

NOT never reaches the engine, whose parser breaks on a few dozen of them. Every condition is compiled
either for the rows where it is true or for those where it is false, De Morgan's laws carry that choice
down to the comparisons, and there unknown is neither. With no NOT above it, unknown and false select the
same rows, so a comparison need not tell the two apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, assert_never

from imagedbd.datatypes import (
    RECORD_FIELDS,
    And,
    Compare,
    Condition,
    FieldType,
    HasWord,
    IsNull,
    Like,
    Near,
    Not,
    OneOf,
    Or,
    Under,
)
from imagedbd.errors import UsageError
from imagedbd.expressions import date_span, is_utc
from imagedbd.text import fold

from .columns import FOLDED_FIELDS, LARGEST_INTEGER, folded, folder_range, path_bytes, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EARTH_RADIUS_KM: Final = 6371.0088

_MAX_DEPTH = 27
"""Levels of AND and OR: more than an expression has, and fewer than the 31 that break the engine's parser."""

_NEGATED = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def to_sql(condition: Condition) -> str:
    """The condition as an SQL expression over the store's columns.

    :raises UsageError: if it names an unknown field, a value that does not fit the field's type or is not
        finite, or nests deeper than the engine can read.
    """
    return str(_compiled(condition, wanted=True, depth=0))


def text_sql(value: str) -> str:
    """An SQL literal of a text."""
    return "'" + plain(value).replace("'", "''") + "'"


# The shape: AND, OR and NOT.


@dataclass(frozen=True, slots=True)
class _Clause:
    """SQL parts joined by one word; a single part is joined by nothing."""

    word: Literal["AND", "OR"]
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(self.parts)

    def within(self, word: str) -> Iterator[str]:
        """What to join with others by that word. AND binds tighter than OR: it needs no parentheses."""
        if self.word == word or len(self.parts) == 1:
            yield from self.parts
        elif word == "OR":
            yield str(self)
        else:
            yield f"({self})"


def _compiled(condition: Condition, *, wanted: bool, depth: int) -> _Clause:
    """The clause that is true where the condition has the wanted truth, and not true elsewhere."""
    if depth > _MAX_DEPTH:
        raise UsageError(f"AND and OR nest more than {_MAX_DEPTH} deep.")
    while isinstance(condition, Not):
        condition, wanted = condition.operand, not wanted
    match condition:
        case And(operands) | Or(operands):
            word: Literal["AND", "OR"] = "AND" if isinstance(condition, And) is wanted else "OR"
            return _joined(word, (_compiled(o, wanted=wanted, depth=depth + 1) for o in operands))
        case _:
            return _comparison(condition, wanted=wanted)


def _joined(word: Literal["AND", "OR"], clauses: Iterable[_Clause]) -> _Clause:
    parts = tuple(part for clause in clauses for part in clause.within(word))
    return _Clause(word, parts) if parts else _one("true" if word == "AND" else "false")


def _one(sql: str) -> _Clause:
    return _Clause("AND", (sql,))


def _all(*sql: str) -> _Clause:
    return _Clause("AND", sql)


def _any(*sql: str) -> _Clause:
    return _Clause("OR", sql)


# The comparisons.


def _comparison(
    condition: Compare | Like | OneOf | IsNull | HasWord | Under | Near, *, wanted: bool
) -> _Clause:
    match condition:
        case Compare(field, operator, value):
            clause = _compare(field, operator if wanted else _negated(operator), value)
        case OneOf(field, values):
            clause = _one_of(field, values, wanted=wanted)
        case Like(field, pattern, ignore_case):
            clause = _like(field, pattern, ignore_case=ignore_case, wanted=wanted)
        case IsNull(field):
            clause = _is_null(field, wanted=wanted)
        case HasWord(field, word):
            clause = _has_word(field, word, wanted=wanted)
        case Under(folder):
            clause = _under(folder, wanted=wanted)
        case Near():
            clause = _near(condition, wanted=wanted)
        case _:
            assert_never(condition)
    return clause


def _negated(operator: str) -> str:
    try:
        return _NEGATED[operator]
    except KeyError:
        raise UsageError(f"There is no operator {operator!r}.") from None


def _type(field: str) -> FieldType:
    try:
        return RECORD_FIELDS[field]
    except KeyError:
        raise UsageError(f"There is no field {field!r}.") from None


def _compare(field: str, operator: str, value: str | float) -> _Clause:
    _negated(operator)
    match _type(field), value:
        case FieldType.TEXT, str() if field == "path" and operator in {"=", "!="}:
            return _one(f"path_bytes {operator} {_bytes_sql(path_bytes(value))}")
        case FieldType.TEXT, str():
            return _one(f"{field} {operator} {text_sql(value)}")
        case FieldType.DATE, str():
            return _compare_date(field, operator, value)
        case FieldType.INTEGER, (int() | float()):
            return _compare_integer(field, operator, value)
        case FieldType.NUMBER, (int() | float()):
            return _one(f"{field} {operator} {_float_sql(value)}")
        case kind, _:
            raise UsageError(f"{field} is of type {kind.value} and cannot be compared with {value!r}.")


def _compare_date(field: str, operator: str, value: str) -> _Clause:
    start, after = (text_sql(bound) for bound in date_span(value, utc=is_utc(field)))
    match operator:
        case "=":
            return _all(f"{field} >= {start}", f"{field} < {after}")
        case "!=":
            return _any(f"{field} < {start}", f"{field} >= {after}")
        case "<" | ">=":
            return _one(f"{field} {operator} {start}")
        case "<=":
            return _one(f"{field} < {after}")
        case _:
            return _one(f"{field} >= {after}")


def _compare_integer(field: str, operator: str, value: float) -> _Clause:
    """Compare whole numbers as such: the engine takes no fraction here, and rounds what it casts."""
    _check_finite(value)
    bound = math.floor(value) if operator in {"<=", ">"} else math.ceil(value)
    beyond_all = abs(bound) > LARGEST_INTEGER
    if operator in {"=", "!="} and (beyond_all or bound != value):
        return _constant(field, holds=operator == "!=")
    if beyond_all:
        return _constant(field, holds=operator.startswith("<") is (bound > 0))
    return _one(f"{field} {operator} {bound}")


def _constant(field: str, *, holds: bool) -> _Clause:
    """A comparison that comes out the same for every value, but is unknown where there is none."""
    return _one(f"{field} IS NOT NULL" if holds else "false")


def _one_of(field: str, values: tuple[str | int | float, ...], *, wanted: bool) -> _Clause:
    if _type(field) is FieldType.TEXT and values and all(isinstance(value, str) for value in values):
        return _one_of_texts(field, [str(value) for value in values], wanted=wanted)
    if not values:
        return _constant(field, holds=not wanted)
    operator = "=" if wanted else "!="
    return _joined("OR" if wanted else "AND", (_compare(field, operator, value) for value in values))


def _one_of_texts(field: str, values: list[str], *, wanted: bool) -> _Clause:
    literals = (_bytes_sql(path_bytes(v)) if field == "path" else text_sql(v) for v in values)
    column = "path_bytes" if field == "path" else field
    return _one(f"{column} {'IN' if wanted else 'NOT IN'} ({', '.join(literals)})")


def _is_null(field: str, *, wanted: bool) -> _Clause:
    if _type(field) is FieldType.WORDS:
        return _one(f"cardinality({field}) {'=' if wanted else '>'} 0")
    return _one(f"{field} {'IS NULL' if wanted else 'IS NOT NULL'}")


def _has_word(field: str, word: str, *, wanted: bool) -> _Clause:
    if _type(field) is not FieldType.WORDS:
        raise UsageError(f"{field} is no list of words.")
    return _one(f"{'' if wanted else 'NOT '}array_has({folded(field)}, {text_sql(fold(word))})")


def _under(folder: str, *, wanted: bool) -> _Clause:
    first, beyond = (_bytes_sql(bound) for bound in folder_range(folder))
    itself = _bytes_sql(path_bytes(folder))
    if wanted:
        return _any(f"path_bytes = {itself}", f"path_bytes >= {first} AND path_bytes < {beyond}")
    return _all(f"path_bytes != {itself}", f"(path_bytes < {first} OR path_bytes >= {beyond})")


# Patterns.


ANY_TEXT: Final = "%"
ANY_CHARACTER: Final = "_"


def pattern_pieces(pattern: str) -> Iterator[tuple[bool, str]]:
    """The pieces of a ``LIKE`` pattern: whether each is a wildcard, and the wildcard or the literal text.

    A backslash before a wildcard or a backslash makes it literal; before anything else it is itself.
    """
    literal = ""
    characters = iter(pattern)
    for character in characters:
        if character in {ANY_TEXT, ANY_CHARACTER}:
            if literal:
                yield False, literal
            literal = ""
            yield True, character
        elif character == "\\":
            following = next(characters, "")
            literal += following if following and following in "%_\\" else character + following
        else:
            literal += character
    if literal:
        yield False, literal


def _like(field: str, pattern: str, *, ignore_case: bool, wanted: bool) -> _Clause:
    if _type(field) is not FieldType.TEXT:
        raise UsageError(f"{field} is no text.")
    column = _folded_column(field) if ignore_case else field
    sql = "".join(
        piece if wildcard else _literal_pattern(fold(piece) if ignore_case else piece)
        for wildcard, piece in pattern_pieces(pattern)
    )
    return _one(f"{column} {'LIKE' if wanted else 'NOT LIKE'} {text_sql(sql)}")


def _folded_column(field: str) -> str:
    if field in FOLDED_FIELDS:
        return folded(field)
    return field if field == "text" else f"lower({field})"


def _literal_pattern(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


# Places.


def _near(place: Near, *, wanted: bool) -> _Clause:
    """Compare by the haversine, which grows with the distance and is right at poles and the antimeridian.

    A band of latitudes goes before it, which halves the time. Longitudes get none: around a pole it would
    have to span all of them, and at the antimeridian it would be two.
    """
    haversine = _haversine_sql(place.lat, place.lon)
    limit = _float_sql(haversine_limit(place.km))
    if not wanted:
        return _one(f"{haversine} > {limit}")
    reach = math.degrees(place.km / EARTH_RADIUS_KM) + _BAND_SLACK
    south, north = _float_sql(place.lat - reach), _float_sql(place.lat + reach)
    return _all(f"lat >= {south}", f"lat <= {north}", f"{haversine} <= {limit}")


_BAND_SLACK = 1e-6
"""Degrees, some ten centimetres: more than what rounding can take from the band."""


def haversine_limit(km: float) -> float:
    """The haversine of a distance along the Earth; two, beyond all, from half its circumference on."""
    _check_finite(km)
    if km < 0:
        raise UsageError("A distance cannot be negative.")
    angle = km / EARTH_RADIUS_KM
    return 2.0 if angle >= math.pi else math.sin(angle / 2) ** 2


def _haversine_sql(lat: float, lon: float) -> str:
    half_lat = f"sin(radians(lat - {_float_sql(lat)}) / 2.0)"
    half_lon = f"sin(radians(lon - {_float_sql(lon)}) / 2.0)"
    shrink = f"cos(radians(lat)) * {_float_sql(math.cos(math.radians(lat)))}"
    return f"{half_lat} * {half_lat} + {shrink} * {half_lon} * {half_lon}"


# Literals.


def _bytes_sql(value: bytes) -> str:
    return f"X'{value.hex()}'"


def _float_sql(value: float) -> str:
    _check_finite(value)
    return f"({float(value)!r})" if value < 0 else repr(float(value))


def _check_finite(value: float) -> None:
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer that no float can hold is finite
        finite = True
    if not finite:
        raise UsageError("A number must be finite.")
