"""Text as it is compared and as it is shown.

Folding is the one way in which words are made comparable, at write time and at query time.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_WORD = re.compile(r"[^\W_]+")

_COMMON = frozenset(
    "a an and are as at by for from in into is it of on or over the to under with".split()  # noqa: SIM905 - words read best as text
)

_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that would steer a terminal, reorder text or break a line."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Format characters that belong to ordinary words and emoji."""


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


def printable(text: str) -> str:
    r"""The text on one line, with everything escaped that a terminal would act on rather than show.

    A byte that is not UTF-8 is written ``\xff``, a line feed ``\n``.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 picture``, ``1,204 pictures``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def fault(error: Exception) -> str:
    """What failed, without the number of the error, and at which path if that is known."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    return f"{error.strerror} ({os.fsdecode(error.filename)})" if error.filename else error.strerror


def _escaped(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _UNSAFE:
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
