"""The notation of a query that adds and subtracts: ``2:dog + ./pool.jpg - snow``.

::

    query   =  [sign] term { sign term }
    sign    =  "+" | "-"                  on its own, between spaces
    term    =  [weight ":"] (quoted | plain)
    weight  =  a number without a sign, such as 2 or 0.5
    quoted  =  a text in double quotes, in which signs, digits and colons are letters
    plain   =  anything else; behind a weight, it does not begin with a digit

So a hyphen in a word, ``c++``, ``-5 degrees``, ``16:9 wallpaper`` and ``2:1 crop`` are plain words, and a
query of plain words is one term. Names of pictures go before all of it: wherever a term may begin, the
longest text up to a sign or the end that names one is that picture, with the signs that are in the name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from imagedbd.bounds import MAX_WEIGHT
from imagedbd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    NamesPicture = Callable[[str], bool]
    """Whether a text is the name of a picture that is there."""

MAX_TERMS: Final = 100
"""Terms of a query, at most: what the daemon takes."""

_LITERALLY: Final = "Double quotes around a term, or --prompt, take words literally."

_SIGN: Final = re.compile(r'(?<![^\s:])"[^"]*"(?!\S)|(?<!\S)(?P<sign>[+-])(?!\S)')
"""A sign, or a quoted text, which is passed over with the signs in it."""
_WEIGHT: Final = re.compile(r"(?P<sign>[+-]?)(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+):\s*(?P<digit>(?=\d))?")
_QUOTED: Final = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Term:
    """Words or a picture, and how much it counts; below 0 it is subtracted."""

    text: str
    weight: float = 1.0
    is_picture: bool = False


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where the text between two signs, or a sign and an end, begins and ends; and the sign before it."""

    start: int
    end: int
    sign: str = ""


def parse(query: str, names_picture: NamesPicture) -> tuple[Term, ...]:
    """The terms of a query, at least one.

    :raises UsageError: if a term is empty, a weight is out of range, or there are too many terms.
    """
    pieces = _pieces(query)
    if names_picture(query):
        return (Term(query, is_picture=True),)
    if not query.strip():
        raise UsageError("QUERY is empty.")
    if len(pieces) > MAX_TERMS:
        raise UsageError(f"QUERY has {len(pieces)} terms; {MAX_TERMS} are the most. {_LITERALLY}")
    return tuple(_terms(query, pieces, names_picture))


def _pieces(query: str) -> list[_Piece]:
    signs = [match for match in _SIGN.finditer(query) if match["sign"]]
    ends = [*(sign.start() for sign in signs), len(query)]
    signed = (_Piece(sign.end(), end, sign["sign"]) for sign, end in zip(signs, ends[1:], strict=True))
    return [_Piece(0, ends[0]), *signed]


def _terms(query: str, pieces: Sequence[_Piece], names_picture: NamesPicture) -> Iterator[Term]:
    at = 0
    while at < len(pieces):
        piece = pieces[at]
        text = query[piece.start : piece.end].strip()
        picture, behind = _longest_picture(query, pieces, at, names_picture)
        if picture is not None or text or piece.sign:  # a query may begin with a sign
            term = picture or _words(text, piece.sign)
            yield replace(term, weight=-term.weight) if piece.sign == "-" else term
        at = behind


def _longest_picture(
    query: str, pieces: Sequence[_Piece], at: int, names_picture: NamesPicture
) -> tuple[Term | None, int]:
    """The picture that some pieces from this one on name, and the first piece behind them."""
    for behind in range(len(pieces), at, -1):
        text = query[pieces[at].start : pieces[behind - 1].end].strip()
        if (picture := _picture(text, names_picture)) is not None:
            return picture, behind
    return None, at + 1


def _picture(text: str, names_picture: NamesPicture) -> Term | None:
    if names_picture(text):
        return Term(text, is_picture=True)
    prefix, name = _split(text)
    return Term(name, _weight(prefix), is_picture=True) if names_picture(name) else None


def _words(text: str, sign: str) -> Term:
    prefix, words = _split(text)
    if prefix is not None and prefix["digit"] is not None:
        return Term(text)
    if not words.strip():
        raise UsageError(f"The term {f'{sign} {text}'.strip()!r} is empty. {_LITERALLY}")
    return Term(words, _weight(prefix))


def _split(text: str) -> tuple[re.Match[str] | None, str]:
    """What may be a weight, and the rest without the quotes around it."""
    prefix = _WEIGHT.match(text)
    rest = text[prefix.end() :] if prefix else text
    quoted = _QUOTED.fullmatch(rest)
    return prefix, quoted[1] if quoted else rest


def _weight(prefix: re.Match[str] | None) -> float:
    if prefix is None:
        return 1.0
    weight = float(prefix["number"])
    if prefix["sign"]:
        raise UsageError(f"{prefix[0].strip()!r}: a weight has no sign. To subtract: 'beach - 2:snow'.")
    if not 0 < weight <= MAX_WEIGHT:
        raise UsageError(f"{prefix[0].strip()!r}: a weight is above 0 and at most {MAX_WEIGHT}. {_LITERALLY}")
    return weight
