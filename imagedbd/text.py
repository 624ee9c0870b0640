"""Folding: the one way in which words are made comparable, at write time and at query time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"[^\W_]+")

_COMMON = frozenset(
    "a an and are as at by for from in into is it of on or over the to under with".split()  # noqa: SIM905 - words read best as text
)


def fold(text: str) -> str:
    """Compatibility-normalised, case-folded, without accents: ``Ｚürich`` and ``ZURICH`` are one.

    The order is that of Unicode's caseless matching for identifiers (UAX #31, NFKC_Casefold), with
    combining marks dropped in between. Lone surrogates (bytes that are not UTF-8) become ``?``.
    """
    plain = text.encode("utf-8", "replace").decode("utf-8")
    decomposed = unicodedata.normalize("NFKD", plain.casefold())
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return unicodedata.normalize("NFKC", bare).casefold()


def words(text: str) -> list[str]:
    """The folded words of a text, in order, repeated words kept."""
    return _WORD.findall(fold(text))


def query_words(text: str) -> list[str]:
    """The words that a search asks for: each once, without English filler unless nothing else is there."""
    found = list(dict.fromkeys(words(text)))
    telling = [word for word in found if word not in _COMMON]
    return telling or found


def searchable(parts: Iterable[str | None]) -> str:
    """The record's ``text`` field: the words of all parts, folded, each once, space-separated."""
    return " ".join(dict.fromkeys(w for part in parts if part for w in words(part)))
