"""From what was typed to what the daemon is asked: query terms and conditions."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any, Final

from imagedbd.bounds import MAX_TEXT, MAX_WEIGHT
from imagedbd.cli import notation, output
from imagedbd.errors import QueryPictureError, UsageError
from imagedbd.formats import is_picture_name
from imagedbd.text import query_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagedbd.cli.notation import Term

AVERSION: Final = -0.5
"""Weight of ``--not``. Prompts are alike in much (all are prompts), and a full -1 would take that away too:
half leaves a query in the neighbourhood of what was asked for. A minus in the notation is arithmetic, and
subtracts what it says."""
MAX_STDIN: Final = 190 << 20
"""Bytes of a picture on standard input: what the daemon takes, less what base64 adds."""
DEFAULT_KM: Final = 10.0
_COMPARISON: Final = re.compile(r"\s*(\w+)\s*([=<>]|!=)")


def terms_of(
    query: Sequence[Term], images: Sequence[str], prompts: Sequence[str], unwanted: Sequence[str]
) -> list[dict[str, Any]]:
    """What the query's vector is made of.

    :param query: the terms of the bare query. Those of the options are taken as they stand.
    """
    if list(images).count("-") > 1:
        raise UsageError("Standard input holds one picture: give `--image -` once.")
    terms = [_term(term) for term in query]
    terms += [_picture(image) for image in images]
    terms += [{"prompt": _filled("--prompt", prompt)} for prompt in prompts]
    terms += [{"prompt": _filled("--not", prompt), "weight": AVERSION} for prompt in unwanted]
    return terms


def bare_terms(query: str | None) -> tuple[Term, ...]:
    """The terms of the bare query; see :mod:`imagedbd.cli.notation`."""
    return () if query is None else notation.parse(_bounded("QUERY", query), _names_picture)


def words_of(query: Sequence[Term], text: str | None) -> str | None:
    """The words to look for in the metadata: those of ``--text``, or of what a bare query adds.

    Its pictures have no words; and those of what it subtracts say what is not to be seen, while a word that
    the metadata lacks says nothing.
    """
    if text is not None:
        return _bounded("--text", text)
    words = " ".join(term.text for term in query if term.weight > 0 and not term.is_picture)
    return words if query_words(words) else None


def weights_of(text: str) -> dict[str, float]:
    """``LIKENESS,WORDS``: how much each of the two rankings counts in their fusion."""
    try:
        likeness, words = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--weights: {text!r} is not LIKENESS,WORDS. To let likeness count twice: --weights 2,1"
        ) from None
    if not (0 <= likeness <= MAX_WEIGHT and 0 <= words <= MAX_WEIGHT and likeness + words):
        raise UsageError(f"--weights: {text!r}: both are from 0 to {MAX_WEIGHT}, and one is above 0.")
    return {"likeness": likeness, "words": words}


def conditions(
    *,
    where: str | None = None,
    folders: Sequence[str] = (),
    after: str | None = None,
    before: str | None = None,
    camera: str | None = None,
    near: str | None = None,
) -> dict[str, Any]:
    """The fields of a search that narrow it; what was not given is left out."""
    fields = {
        "where": where,
        "under": [real_path(folder) for folder in folders] or None,
        "after": after,
        "before": before,
        "camera": camera,
        "near": None if near is None else place_of(near),
    }
    return {name: value for name, value in fields.items() if value is not None}


def place_of(text: str) -> dict[str, float]:
    """``LAT,LON[,KM]`` in decimal degrees and kilometres."""
    try:
        lat, lon, *rest = (float(part) for part in text.split(","))
        (km,) = rest or [DEFAULT_KM]
    except ValueError:
        raise UsageError(
            f"--near: {text!r} is not LAT,LON[,KM]. For 25 km around Lisbon: --near 38.71,-9.14,25"
        ) from None
    if not (-90 <= lat <= 90 and -180 <= lon <= 180 and 0 < km <= 20_040):
        raise UsageError(
            f"--near: {text!r} is not on this earth: latitude is -90 to 90, longitude -180 to 180, "
            "and kilometres are above 0 and at most 20040."
        )
    return {"lat": lat, "lon": lon, "km": km}


def real_path(path: str) -> str:
    """A path as the index knows it."""
    return os.path.realpath(os.path.expanduser(path))


def entry_path(path: str) -> str:
    """Like :func:`real_path`, but a symbolic link stands for itself: it is what `why` is asked about."""
    folder, name = os.path.split(os.path.expanduser(path))
    return real_path(path) if name in {"", ".", ".."} else os.path.join(os.path.realpath(folder), name)


def _term(term: Term) -> dict[str, Any]:
    weight = {} if term.weight == 1 else {"weight": term.weight}
    if term.is_picture:
        return _picture_file(term.text) | weight
    if _names_folder(term.text):
        shown = output.printable(term.text)
        output.note(f"{shown} is a folder, and is taken for words: `--in {shown}` looks for pictures in it.")
    elif is_picture_name(term.text):
        done = "this is taken for words" if term.weight > 0 else "its words are subtracted"
        output.note(f"There is no file {output.printable(term.text)} here, so {done}.")
    elif _is_condition(term.text):
        shown = output.printable(shlex.quote(term.text))
        output.note(f"{shown} is taken for words: `--where {shown}` looks for pictures that meet it.")
    return {"prompt": term.text} | weight


def _is_condition(text: str) -> bool:
    """Whether it begins as what would go behind ``--where``."""
    if not (found := _COMPARISON.match(text)):
        return False
    from imagedbd.datatypes import RECORD_FIELDS

    return found[1].lower() in RECORD_FIELDS


def _names_picture(query: str) -> bool:
    return is_picture_name(query) and os.path.lexists(os.path.expanduser(query))


def _names_folder(text: str) -> bool:
    """Whether it is written as a path to a folder; a plain word may well be the name of one by chance."""
    return (os.sep in text or text in {".", ".."}) and os.path.isdir(os.path.expanduser(text))


def _filled(place: str, prompt: str) -> str:
    if not prompt.strip():
        raise UsageError(f"{place} is empty.")
    return _bounded(place, prompt)


def _bounded(place: str, text: str) -> str:
    if len(text) > MAX_TEXT:
        raise UsageError(f"{place} has {len(text):,} characters, and may have {MAX_TEXT:,} at most.")
    return text


def _picture(image: str) -> dict[str, Any]:
    return {"data": _stdin_picture()} if image == "-" else _picture_file(image)


def _picture_file(path: str) -> dict[str, Any]:
    return {"path": os.path.expanduser(path)}


def _stdin_picture() -> bytes:
    if sys.stdin.isatty():
        raise UsageError("`--image -` reads a picture from a pipe: `… | imagedb search --image -`.")
    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if not data:
        raise QueryPictureError("Standard input is empty.")
    if len(data) > MAX_STDIN:
        raise QueryPictureError(f"Standard input holds more than {MAX_STDIN >> 20} MiB.")
    return data
