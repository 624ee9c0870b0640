"""Conditions lowered to plans: small trees of tests on columns, which each engine carries out in its own way.

What a condition means is settled here, once: fields and types are checked, dates become spans, numbers
become what a column can hold, words are folded, paths become bytes. An engine is left with the few tests
below, on the columns of :func:`~imagedbd.stores.rows.table_schema` and with values of their types.

**Nulls.** A condition is true, false or unknown, as in SQL. A comparison with an empty field is unknown,
and so is its negation; AND, OR and NOT follow Kleene's logic; a row is selected where the whole is true.
A list of words is never null: it may be empty, and then has no word. So ``NOT width > 10`` leaves out the
pictures of unknown width, but ``NOT 'dog' IN keywords`` has those without keywords.

A plan has no NOT. Every condition is lowered either for the rows where it is true or for those where it is
false, De Morgan's laws carry that choice down to the comparisons, and there unknown is neither. With no NOT
above it, unknown and false select the same rows, so a test need not tell the two apart.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from itertools import groupby
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

MAX_WILDCARDS: Final = 100
"""Wildcards in a pattern. Engines try each of them at each character, and take a second for a long text with
two thousand."""

_MAX_DEPTH = 27
"""Levels of AND and OR: more than an expression has, and fewer than the 31 that break LanceDB's parser."""


# The plan.


Operator = Literal["=", "!=", "<", "<=", ">", ">="]

Operand = str | bytes | int | float
"""As the column has it: text without lone surrogates, 64-bit integers, finite floats other than -0.0."""


class Wildcard(enum.Enum):
    TEXT = "%"
    """Any text, of any lines; also none."""
    CHARACTER = "_"
    """Any one character."""


Pattern = tuple[str | Wildcard, ...]
"""Pieces of literal text, none of them empty, and wildcards between them, ``TEXT`` last where they meet."""


@dataclass(frozen=True, slots=True)
class All:
    """Selects the rows that every part selects: all rows, if there are no parts."""

    parts: tuple[Plan, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Selects the rows that at least one part selects: no row, if there are no parts."""

    parts: tuple[Plan, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Text is compared by its bytes in UTF-8. No null is selected, as by any of the tests that follow."""

    column: str
    operator: Operator
    value: Operand


@dataclass(frozen=True, slots=True)
class Among:
    """The column equals one of the values, of which there is at least one; or, if not ``holds``, none."""

    column: str
    values: tuple[Operand, ...]
    holds: bool


@dataclass(frozen=True, slots=True)
class Matches:
    """The whole text fits the pattern, or does not.

    :param lower: compare the column's text, which is ASCII, in lower case.
    """

    column: str
    pattern: Pattern
    lower: bool
    holds: bool


@dataclass(frozen=True, slots=True)
class Null:
    column: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Empty:
    """The list has no words, or has some."""

    column: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Contains:
    """The list has the word, or has not."""

    column: str
    word: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Around:
    """The haversine of the way from a place (in degrees) to ``lat`` and ``lon`` is at most a limit, or above.

    Engines must compute it alike: the square of the sine of half the difference in latitude, plus the
    product of the cosines of both latitudes and the square of the sine of half the difference in longitude.
    """

    lat: float
    lon: float
    limit: float
    holds: bool


Test = Compared | Among | Matches | Null | Empty | Contains | Around

Plan = All | AnyOf | Test

_NOTHING = AnyOf(())


def lowered(condition: Condition) -> Plan:
    """The condition as a plan.

    :raises UsageError: if it names an unknown field, a value that does not fit the field's type or is not
        finite, has too many wildcards, or nests deeper than every engine can read.
    """
    return _lowered(condition, wanted=True, depth=0)


# The shape: AND, OR and NOT.


def _lowered(condition: Condition, *, wanted: bool, depth: int) -> Plan:
    """The plan that selects the rows where the condition has the wanted truth."""
    if depth > _MAX_DEPTH:
        raise UsageError(f"AND and OR nest more than {_MAX_DEPTH} deep.")
    while isinstance(condition, Not):
        condition, wanted = condition.operand, not wanted
    match condition:
        case And(operands) | Or(operands):
            kind = All if isinstance(condition, And) is wanted else AnyOf
            return _joined(kind, (_lowered(o, wanted=wanted, depth=depth + 1) for o in operands))
        case _:
            return _comparison(condition, wanted=wanted)


def _joined(kind: type[All | AnyOf], plans: Iterable[Plan]) -> Plan:
    parts = tuple(part for plan in plans for part in (plan.parts if isinstance(plan, kind) else (plan,)))
    return parts[0] if len(parts) == 1 else kind(parts)


# The comparisons.


def _comparison(condition: Compare | Like | OneOf | IsNull | HasWord | Under | Near, *, wanted: bool) -> Plan:
    match condition:
        case Compare(field, operator, value):
            plan = _compare(field, _operator(operator, wanted=wanted), value)
        case OneOf(field, values):
            plan = _one_of(field, values, wanted=wanted)
        case Like(field, pattern, ignore_case):
            plan = _like(field, pattern, ignore_case=ignore_case, wanted=wanted)
        case IsNull(field):
            plan = _is_null(field, wanted=wanted)
        case HasWord(field, word):
            plan = _has_word(field, word, wanted=wanted)
        case Under(folder):
            plan = _under(folder, wanted=wanted)
        case Near():
            plan = _near(condition, wanted=wanted)
        case _:
            assert_never(condition)
    return plan


_NEGATED: dict[str, Operator] = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def _operator(written: str, *, wanted: bool) -> Operator:
    """The operator that is true where the written one has the wanted truth."""
    try:
        negated = _NEGATED[written]
    except KeyError:
        raise UsageError(f"There is no operator {written!r}.") from None
    return _NEGATED[negated] if wanted else negated


def _type(field: str) -> FieldType:
    try:
        return RECORD_FIELDS[field]
    except KeyError:
        raise UsageError(f"There is no field {field!r}.") from None


def _compare(field: str, operator: Operator, value: str | float) -> Plan:
    match _type(field), value:
        case FieldType.TEXT, str() if field == "path" and operator in {"=", "!="}:
            return Compared("path_bytes", operator, path_bytes(value))
        case FieldType.TEXT, str():
            return Compared(field, operator, plain(value))
        case FieldType.DATE, str():
            return _compare_date(field, operator, _span(field, value))
        case FieldType.INTEGER, (int() | float()):
            return _compare_integer(field, operator, value)
        case FieldType.NUMBER, (int() | float()):
            return _compare_number(field, operator, value)
        case _:
            raise _misfit(field, value)


def _misfit(field: str, value: str | float) -> UsageError:
    given = "text" if isinstance(value, str) else "a number"
    return UsageError(f"{field} is of type {_type(field).value} and cannot be compared with {given}.")


def _compare_date(field: str, operator: Operator, span: tuple[str, str]) -> Plan:
    start, after = span
    match operator:
        case "=" | "!=":
            return _in_spans(field, [span], wanted=operator == "=")
        case "<" | ">=":
            return Compared(field, operator, start)
        case "<=":
            return Compared(field, "<", after)
        case ">":
            return Compared(field, ">=", after)


def _span(field: str, value: str | float) -> tuple[str, str]:
    if not isinstance(value, str):
        raise _misfit(field, value)
    return date_span(value, utc=is_utc(field))


def _in_spans(field: str, spans: Iterable[tuple[str, str]], *, wanted: bool) -> Plan:
    if wanted:
        within = (All((Compared(field, ">=", start), Compared(field, "<", after))) for start, after in spans)
        return _joined(AnyOf, within)
    beside = (AnyOf((Compared(field, "<", start), Compared(field, ">=", after))) for start, after in spans)
    return _joined(All, beside)


def _merged(spans: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Spans that touch made one: an engine needs a second for many hundreds."""
    ordered = sorted(spans)
    first, last = ordered[0]
    for start, after in ordered[1:]:
        if start > last:
            yield first, last
            first = start
        last = max(last, after)
    yield first, last


def _compare_integer(field: str, operator: Operator, value: float) -> Plan:
    """Compare whole numbers as such: engines take no fraction here, or round what they cast."""
    _check_finite(value)
    bound = math.floor(value) if operator in {"<=", ">"} else math.ceil(value)
    if abs(bound) > LARGEST_INTEGER:
        return _compare_beyond_all(field, operator, above=bound > 0)
    if bound != value and operator in {"=", "!="}:
        return _constant(field, holds=operator == "!=")
    return Compared(field, operator, bound)


def _compare_number(field: str, operator: Operator, value: float) -> Plan:
    """Compare with the value itself: where no float equals it, with the nearest, which is beside it."""
    _check_finite(value)
    try:
        nearest = _float(value)
    except OverflowError:
        return _compare_beyond_all(field, operator, above=value > 0)
    match operator:
        case "=" | "!=" if nearest != value:
            return _constant(field, holds=operator == "!=")
        case "<" | "<=" if nearest != value:
            return Compared(field, "<" if nearest > value else "<=", nearest)
        case ">" | ">=" if nearest != value:
            return Compared(field, ">" if nearest < value else ">=", nearest)
        case _:
            return Compared(field, operator, nearest)


def _compare_beyond_all(field: str, operator: Operator, *, above: bool) -> Plan:
    """A comparison with a number above, or below, everything that a column can hold."""
    return _constant(field, holds=operator in {"!=", *(("<", "<=") if above else (">", ">="))})


def _constant(field: str, *, holds: bool) -> Plan:
    """A comparison that comes out the same for every value, but is unknown where there is none."""
    return Null(field, holds=False) if holds else _NOTHING


def _one_of(field: str, values: tuple[str | int | float, ...], *, wanted: bool) -> Plan:
    if _type(field) is FieldType.DATE and values:
        return _in_spans(field, _merged(_span(field, value) for value in values), wanted=wanted)
    tests = [_compare(field, "=", value) for value in values]
    possible = [test for test in tests if isinstance(test, Compared)]
    if not possible:
        return _constant(field, holds=not wanted)
    return Among(possible[0].column, tuple(test.value for test in possible), holds=wanted)


def _is_null(field: str, *, wanted: bool) -> Plan:
    return (Empty if _type(field) is FieldType.WORDS else Null)(field, holds=wanted)


def _has_word(field: str, word: str, *, wanted: bool) -> Plan:
    if _type(field) is not FieldType.WORDS:
        raise UsageError(f"{field} is no list of words.")
    return Contains(folded(field), fold(word), holds=wanted)


def _under(folder: str, *, wanted: bool) -> Plan:
    first, beyond = folder_range(folder)
    itself = Compared("path_bytes", _operator("=", wanted=wanted), path_bytes(folder))
    bounds = (
        Compared("path_bytes", _operator(">=", wanted=wanted), first),
        Compared("path_bytes", _operator("<", wanted=wanted), beyond),
    )
    return AnyOf((itself, All(bounds))) if wanted else All((itself, AnyOf(bounds)))


# Patterns.


def _like(field: str, pattern: str, *, ignore_case: bool, wanted: bool) -> Plan:
    if _type(field) is not FieldType.TEXT:
        raise UsageError(f"{field} is no text.")
    pieces = _pattern(pattern, ignore_case=ignore_case)
    if sum(isinstance(piece, Wildcard) for piece in pieces) > MAX_WILDCARDS:
        raise UsageError(f"A pattern can have {MAX_WILDCARDS} wildcards, and here are more.")
    if not ignore_case or field == "text":  # which is folded as it is
        return Matches(field, pieces, lower=False, holds=wanted)
    if field in FOLDED_FIELDS:
        return Matches(folded(field), pieces, lower=False, holds=wanted)
    return Matches(field, pieces, lower=True, holds=wanted)


def _pattern(pattern: str, *, ignore_case: bool) -> Pattern:
    """The pattern's pieces, with text as a column has it, and each run of wildcards in its simplest form."""
    comparable = fold if ignore_case else plain
    read = (piece if isinstance(piece, Wildcard) else comparable(piece) for piece in _pieces(pattern))
    # Also accents without a letter fold to nothing, and no longer stand between two wildcards.
    return tuple(_simple(piece for piece in read if piece))


def _simple(pieces: Iterable[str | Wildcard]) -> Iterator[str | Wildcard]:
    for _, run in groupby(pieces, lambda piece: isinstance(piece, Wildcard)):
        found = list(run)
        yield from (piece for piece in found if piece is not Wildcard.TEXT)
        if Wildcard.TEXT in found:
            yield Wildcard.TEXT


def _pieces(pattern: str) -> Iterator[str | Wildcard]:
    """The wildcards of a ``LIKE`` pattern, and the literal text around them, which may be empty.

    A backslash before a wildcard or a backslash makes it literal; before anything else it is itself.
    """
    literal = ""
    characters = iter(pattern)
    for character in characters:
        if character in "%_":
            yield literal
            yield Wildcard(character)
            literal = ""
        elif character == "\\":
            following = next(characters, "")
            literal += following if following and following in "%_\\" else character + following
        else:
            literal += character
    yield literal


# Places.


def _near(place: Near, *, wanted: bool) -> Plan:
    """Compare by the haversine, which grows with the distance and is right at poles and the antimeridian.

    A band of latitudes goes before it, which halves the time. Longitudes get none: around a pole it would
    have to span all of them, and at the antimeridian it would be two.
    """
    lat, lon, km = (_bounded(number) for number in (place.lat, place.lon, place.km))
    around = Around(lat, lon, _haversine_limit(km), holds=wanted)
    if not wanted:
        return around
    reach = math.degrees(km / EARTH_RADIUS_KM) + _BAND_SLACK
    south, north = _float(lat - reach), _float(lat + reach)
    return All((Compared("lat", ">=", south), Compared("lat", "<=", north), around))


_BAND_SLACK = 1e-6
"""Degrees, some ten centimetres: more than what rounding can take from the band."""


def _haversine_limit(km: float) -> float:
    """The haversine of a distance along the Earth; two, beyond all, from half its circumference on."""
    if km < 0:
        raise UsageError("A distance cannot be negative.")
    angle = km / EARTH_RADIUS_KM
    return 2.0 if angle >= math.pi else math.sin(angle / 2) ** 2


# Numbers.


def _float(value: float) -> float:
    """The nearest float, and zero without a sign: engines do not agree on whether -0.0 is less than 0.0.

    :raises OverflowError: if no float comes near.
    """
    return float(value) + 0.0


def _bounded(value: float) -> float:
    _check_finite(value)
    try:
        return _float(value)
    except OverflowError:
        raise UsageError("A number is too large.") from None


def _check_finite(value: float) -> None:
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer that no float can hold is finite
        finite = True
    if not finite:
        raise UsageError("A number must be finite.")
