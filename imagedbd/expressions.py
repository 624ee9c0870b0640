"""The language of ``--where``: text in, :data:`~imagedbd.datatypes.Condition` out.

::

    width > 1024 AND NOT (format = 'PNG' OR taken_at < 2020-06)
    camera_make ILIKE 'canon%'      'dog' IN keywords           path UNDER '/photos/2024'
    iso BETWEEN 100 AND 400         rating NOT IN (1, 2)        lens IS NOT NULL
    exposure_s < 1/60

Keywords and field names may be written in any case. Text stands in single or double quotes, which are
doubled to be part of it. In a ``LIKE`` pattern ``%`` is any text, ``_`` one character, and a backslash
takes their meaning from them and from itself. A date stands for the whole span that it names.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from .datatypes import (
    RECORD_FIELDS,
    And,
    Compare,
    Condition,
    FieldType,
    HasWord,
    IsNull,
    Like,
    Not,
    OneOf,
    Or,
    Under,
)
from .errors import ExpressionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LENGTH: Final = 4_000
"""Characters in an expression. It bounds the number of conditions, too: none is shorter than five."""

MAX_DEPTH: Final = 24
"""Levels of AND and OR inside one another: LanceDB's SQL parser gives up soon beyond it."""

_GRAMMAR = r"""
    start: either
    either: both (_OR both)*
    both: _single (_AND _single)*
    _single: negation | group | _comparison
    negation: NOT _single
    group: LPAR either ")"

    _comparison: compare | one_of | between | like | is_null | under | has_word
    compare: NAME OPERATOR _literal
    one_of: NAME [NOT] _IN "(" _literal ("," _literal)* ")"
    between: NAME [NOT] _BETWEEN _literal _AND _literal
    like: NAME [NOT] (LIKE | ILIKE) STRING
    is_null: NAME _IS [NOT] _NULL
    under: NAME [NOT] _UNDER STRING
    has_word: STRING [NOT] _IN NAME

    _literal: STRING | NUMBER | DATE

    _AND.2: /and\b/i
    _OR.2: /or\b/i
    NOT.2: /not\b/i
    _IN.2: /in\b/i
    _BETWEEN.2: /between\b/i
    LIKE.2: /like\b/i
    ILIKE.2: /ilike\b/i
    _IS.2: /is\b/i
    _NULL.2: /null\b/i
    _UNDER.2: /under\b/i

    NAME: /[^\W\d]\w*/
    OPERATOR: /==|!=|<>|<=|>=|[=<>]/
    STRING: /'(?:[^']|'')*'|"(?:[^"]|"")*"/
    DATE.3: /[0-9]{4}-[0-9]{2}(-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9:]+)?)?)?(?![\w.-])/i
    NUMBER: /[+-]?([0-9]+\/[0-9]+|([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?)(?![\w.-])/i
    LPAR: "("

    %ignore /\s+/
"""


def parse(text: str) -> Condition:
    """Turn a ``--where`` expression into a condition whose fields and types are known to be right.

    :raises ExpressionError: with the position of the first fault, and what would be right there.
    """
    try:
        _check_length(text)
        return _parsed(text)
    except _FaultError as fault:
        raise ExpressionError(str(fault), position=fault.position, expression=text) from None


def all_of(conditions: Iterable[Condition | None]) -> Condition | None:
    """The condition that holds where all of the given ones do; ``None`` if there are none."""
    given = [condition for condition in conditions if condition is not None]
    return _joined(And, given) if given else None


class _FaultError(Exception):
    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def _check_length(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise _FaultError(f"The expression is longer than {MAX_LENGTH:,} characters.", MAX_LENGTH)
    if not text.strip():
        raise _FaultError("The expression is empty: write something like width > 1024.", 0)


def _parsed(text: str) -> Condition:
    try:
        built = _PARSER.parse(text)
    except UnexpectedToken as error:
        raise _FaultError(_unexpected_token(error), _position(error, text)) from None
    except UnexpectedCharacters as error:
        position = cast("int", error.pos_in_stream)
        raise _FaultError(_unexpected_character(text[position]), position) from None
    return cast("_Built", built).condition


# From parse to condition.


@dataclass(frozen=True, slots=True)
class _Built:
    """A condition, how many levels of AND and OR it has, and where it begins."""

    condition: Condition
    position: int
    depth: int = 0


def _joined(kind: type[And | Or], operands: Iterable[Condition]) -> Condition:
    flat = tuple(_flattened(kind, operands))
    return flat[0] if len(flat) == 1 else kind(flat)


def _flattened(kind: type[And | Or], operands: Iterable[Condition]) -> Iterator[Condition]:
    for operand in operands:
        if isinstance(operand, kind):
            yield from operand.operands
        else:
            yield operand


def _negated(condition: Condition) -> Condition:
    return condition.operand if isinstance(condition, Not) else Not(condition)


def _joined_depth(kind: type[And | Or], operands: Iterable[_Built]) -> int:
    """Levels once joined: an operand of the same kind is merged, and makes none of its own."""
    return max(o.depth if isinstance(o.condition, kind) else o.depth + 1 for o in operands)


@v_args(inline=True)
class _Builder(Transformer[Token, _Built]):
    """Called for each rule while the text is parsed, innermost first: nothing here recurses."""

    def start(self, inner: _Built) -> _Built:
        return inner

    def either(self, *operands: _Built) -> _Built:
        return self._join(Or, operands)

    def both(self, *operands: _Built) -> _Built:
        return self._join(And, operands)

    def _join(self, kind: type[And | Or], operands: tuple[_Built, ...]) -> _Built:
        first = operands[0]
        if len(operands) == 1:
            return first
        depth = _joined_depth(kind, operands)
        if depth > MAX_DEPTH:
            raise _FaultError(f"AND and OR nest more than {MAX_DEPTH} deep here.", first.position)
        return _Built(_joined(kind, (operand.condition for operand in operands)), first.position, depth)

    def negation(self, word: Token, inner: _Built) -> _Built:
        return _Built(_negated(inner.condition), _start(word), inner.depth)

    def group(self, parenthesis: Token, inner: _Built) -> _Built:
        return _Built(inner.condition, _start(parenthesis), inner.depth)

    def _built(self, first: Token, negation: Token | None, condition: Condition, depth: int = 0) -> _Built:
        return _Built(_negated(condition) if negation else condition, _start(first), depth)

    def compare(self, name: Token, operator: Token, literal: Token) -> _Built:
        field = _field(name)
        condition = Compare(field, _OPERATORS.get(operator, str(operator)), _value(field, literal))
        return self._built(name, None, condition)

    def one_of(self, name: Token, negation: Token | None, *literals: Token) -> _Built:
        field = _field(name)
        condition = OneOf(field, tuple(_value(field, literal) for literal in literals))
        return self._built(name, negation, condition)

    def between(self, name: Token, negation: Token | None, low: Token, high: Token) -> _Built:
        field = _field(name)
        bounds = (Compare(field, ">=", _value(field, low)), Compare(field, "<=", _value(field, high)))
        return self._built(name, negation, And(bounds), depth=1)

    def like(self, name: Token, negation: Token | None, kind: Token, pattern: Token) -> _Built:
        field = _text_field(name, kind)
        condition = Like(field, _unquoted(pattern), ignore_case=kind.type == "ILIKE")
        return self._built(name, negation, condition)

    def is_null(self, name: Token, negation: Token | None) -> _Built:
        return self._built(name, negation, IsNull(_known_field(name)))

    def under(self, name: Token, negation: Token | None, folder: Token) -> _Built:
        if _known_field(name) != "path":
            raise _FaultError("UNDER goes with path: write path UNDER '/folder'.", _start(name))
        return self._built(name, negation, Under(_folder(folder)))

    def has_word(self, word: Token, negation: Token | None, name: Token) -> _Built:
        field = _known_field(name)
        if RECORD_FIELDS[field] is not FieldType.WORDS:
            raise _FaultError(
                f"{field} is {_DESCRIPTIONS[RECORD_FIELDS[field]]}; only keywords is a list of words.",
                _start(name),
            )
        return self._built(word, negation, HasWord(field, _unquoted(word)))


_OPERATORS = {"==": "=", "<>": "!="}

_DESCRIPTIONS = {
    FieldType.TEXT: "text",
    FieldType.INTEGER: "a whole number",
    FieldType.NUMBER: "a number",
    FieldType.DATE: "a date",
    FieldType.WORDS: "a list of words",
}

_LITERALS = {"STRING": "text", "NUMBER": "a number", "DATE": "a date"}


def _start(token: Token) -> int:
    return token.start_pos or 0


def _known_field(name: Token) -> str:
    field = name.lower()
    if field in RECORD_FIELDS:
        return field
    close = difflib.get_close_matches(field, RECORD_FIELDS, n=3)
    guess = f"Did you mean {' or '.join(close)}? " if close else ""
    fields = ", ".join(RECORD_FIELDS)
    raise _FaultError(f"There is no field {_shown(name)}. {guess}The fields are {fields}.", _start(name))


def _field(name: Token) -> str:
    """A field that can be compared with values."""
    field = _known_field(name)
    if RECORD_FIELDS[field] is FieldType.WORDS:
        raise _FaultError(
            f"{field} is a list of words: write 'word' IN {field}, or {field} IS NULL.", _start(name)
        )
    return field


def _text_field(name: Token, wanting: Token) -> str:
    field = _field(name)
    if RECORD_FIELDS[field] is not FieldType.TEXT:
        kind = _DESCRIPTIONS[RECORD_FIELDS[field]]
        raise _FaultError(f"{wanting.upper()} compares text, and {field} is {kind}.", _start(name))
    return field


def _value(field: str, literal: Token) -> str | int | float:
    """The literal as a value of the field's type."""
    match RECORD_FIELDS[field], literal.type:
        case FieldType.TEXT, "STRING":
            return _unquoted(literal)
        case ((FieldType.INTEGER | FieldType.NUMBER), "NUMBER"):
            return _number(literal)
        case FieldType.DATE, ("STRING" | "DATE" | "NUMBER"):
            return _date(field, literal)
        case FieldType.TEXT, _:
            raise _FaultError(
                f"{field} is text, and {_shown(literal)} is {_LITERALS[literal.type]}: put it in quotes.",
                _start(literal),
            )
        case kind, _:
            raise _FaultError(
                f"{field} is {_DESCRIPTIONS[kind]}, and {_shown(literal)} is {_LITERALS[literal.type]}.",
                _start(literal),
            )


def _unquoted(string: Token) -> str:
    quote = string[0]
    return string[1:-1].replace(quote * 2, quote)


def _number(literal: Token) -> int | float:
    above, slash, below = literal.partition("/")
    if slash:
        return _quotient(literal, int(above), int(below))
    try:
        return int(literal)
    except ValueError:
        number = float(literal)
    if not math.isfinite(number):
        raise _FaultError(f"The number {_shown(literal)} is too large.", _start(literal))
    return number


def _quotient(literal: Token, above: int, below: int) -> float:
    try:
        return above / below
    except ZeroDivisionError:
        raise _FaultError(f"Nothing is divided by 0: {_shown(literal)}.", _start(literal)) from None
    except OverflowError:
        raise _FaultError(f"The number {_shown(literal)} is too large.", _start(literal)) from None


def _date(field: str, literal: Token) -> str:
    value = _unquoted(literal) if literal.type == "STRING" else str(literal)
    try:
        date_span(value)
    except UsageError:
        raise _FaultError(
            f"{field} is a date, and {_shown(literal)} is none: "
            "write 2024, 2024-05, 2024-05-01 or '2024-05-01T12:00:00'.",
            _start(literal),
        ) from None
    return value


def _folder(string: Token) -> str:
    folder = _unquoted(string)
    if not folder.startswith("/"):
        raise _FaultError("UNDER wants a whole path, one that begins with /.", _start(string))
    # POSIX lets two leading slashes mean something else, so normpath keeps them.
    return os.path.normpath("/" + folder.lstrip("/"))


# Dates.


_ISO_DATE = re.compile(
    r"""(?P<year>[0-9]{4})
        (?:-(?P<month>[0-9]{2})
        (?:-(?P<day>[0-9]{2})
        (?:[T\ ](?P<hour>[0-9]{2})
        (?::(?P<minute>[0-9]{2})
        (?::(?P<second>[0-9]{2})(?:\.[0-9]+)?)?)?
        (?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})?
        )?)?)?""",
    re.VERBOSE | re.IGNORECASE,
)

_FIRST_MOMENT = (1, 1, 1, 0, 0, 0)

_AFTER_ALL_DATES = "9999-12-31T23:59:60"


def date_span(value: str, *, utc: bool = False) -> tuple[str, str]:
    """The first second of the span that an ISO 8601 prefix names, and the first second after it.

    Both are ``YYYY-MM-DDTHH:MM:SS``. Stored dates begin like that, so that plain comparison of text
    tells whether one lies in the span: ``start <= stored < end``, whatever follows the seconds there.
    Fractions of a second are dropped.

    :param utc: for the dates that are stored in UTC: an offset in the value is converted. Otherwise it
        is dropped, because what is stored is what the camera's clock showed.
    :raises UsageError: if the value is no date of the years 1 to 9999.
    """
    match = _ISO_DATE.fullmatch(value)
    if match is None:
        raise _no_date(value)
    try:
        start = _first_moment(match, utc=utc)
    except (ValueError, OverflowError):
        raise _no_date(value) from None
    return _iso(start), _iso_after(start, match)


def is_utc(field: str) -> bool:
    """Whether a date field is stored in UTC, not as the camera's wall clock."""
    return field != "taken_at"


def _no_date(value: str) -> UsageError:
    return UsageError(f"{_shown(value)} is no date: write 2024, 2024-05, 2024-05-01 or 2024-05-01T12:00:00.")


def _first_moment(match: re.Match[str], *, utc: bool) -> datetime:
    given = tuple(int(part) for part in match.groups()[:6] if part is not None)
    year, month, day, hour, minute, second = given + _FIRST_MOMENT[len(given) :]
    wall = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    return wall - _offset(match["offset"]) if utc else wall


def _offset(text: str | None) -> timedelta:
    if text is None or text in "Zz":
        return timedelta()
    digits = text[1:].replace(":", "")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -size if text[0] == "-" else size


def _iso_after(start: datetime, match: re.Match[str]) -> str:
    try:
        return _iso(_first_moment_after(start, match))
    except (ValueError, OverflowError):
        return _AFTER_ALL_DATES


def _first_moment_after(start: datetime, match: re.Match[str]) -> datetime:
    if match["month"] is None:
        return start.replace(year=start.year + 1)
    if match["day"] is None:
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    if match["hour"] is None:
        return start + timedelta(days=1)
    if match["minute"] is None:
        return start + timedelta(hours=1)
    return start + (timedelta(minutes=1) if match["second"] is None else timedelta(seconds=1))


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


# What is wrong, in words.


def _position(error: UnexpectedToken, text: str) -> int:
    return len(text) if error.token.type == "$END" else _start(error.token)


def _unexpected_token(error: UnexpectedToken) -> str:
    accepted = set(error.accepts or error.expected)
    if error.token.type == "NAME" and "NUMBER" in accepted:
        name = error.token
        if name.lower() in RECORD_FIELDS:
            return (
                f"Expected a value: a field cannot be compared with another ({_shown(name)}). "
                "`imagedb search --jsonl` prints whole records, which `jq` can compare."
            )
        return f"Expected a value; text wants quotes: '{_short(name)}'."
    found = "the expression ends" if error.token.type == "$END" else f"found {_shown(error.token)}"
    return f"Expected {_expected(accepted)}, but {found}."


def _expected(accepted: set[str]) -> str:
    if "NUMBER" in accepted:
        return "a value (a number, a date, or text in quotes)"
    if "OPERATOR" in accepted:
        return "a comparison after the field (such as =, !=, <, >=, IN, BETWEEN, LIKE, ILIKE, IS, UNDER)"
    if "LPAR" in accepted and "NAME" in accepted:
        return "a condition, such as width > 1024 or 'dog' IN keywords"
    names = sorted(_TERMINALS.get(terminal, terminal.strip("_")) for terminal in accepted)
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


_TERMINALS = {
    "$END": "the end",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "NAME": "keywords",
    "STRING": "text in quotes",
}


def _unexpected_character(character: str) -> str:
    if character in "'\"":
        return f"The text that begins here is never closed: put {character} at its end."
    if character.isdecimal() or character in "+-.":
        return "A number or a date is malformed here."
    return f"The character {character!a} means nothing here; text wants quotes."


def _shown(text: str) -> str:
    short = _short(text)
    return short if short[:1] in "'\"" else f"'{short}'"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


_PARSER = Lark(
    _GRAMMAR,
    parser="lalr",
    lexer="basic",
    maybe_placeholders=True,
    transformer=_Builder(),
)
