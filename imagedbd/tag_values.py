"""Values that tags of any kind hold: text of uncertain encoding, dates, places, numbers.

Every function takes what a file claims and gives a value that can be stored, or ``None``; none raises.
"""

from __future__ import annotations

import codecs
import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LINE_CHARS: Final = 1024
TEXT_CHARS: Final = 65536
KEYWORD_CHARS: Final = 256
MAX_KEYWORDS: Final = 1000

Place = tuple[float, float] | tuple[None, None]

_BYTES_PER_CHAR = 4
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
"""Control characters other than tabs and line ends, and what UTF-8 cannot carry."""

_LINE_END = re.compile("\r\n|[\r\u2028\u2029]")

_DATE = re.compile(
    r"""\s*(?P<year>\d{4})
    (?:[-:/.](?P<month>\d{1,2})
      (?:[-:/.](?P<day>\d{1,2})
        (?:[T\s]\s*(?P<hour>\d{1,2}):(?P<minute>\d{1,2})
          (?::(?P<second>\d{1,2})(?:[.,]\d*)?)?
          \s*(?P<offset>Z|[-+]\d{2}:?\d{2})?
        )?
      )?
    )?\s*(?:\Z|\x00)""",
    re.VERBOSE | re.ASCII,
)
_OFFSET = re.compile(r"\s*(?:(Z)|([-+])(\d{2}):?(\d{2}))\s*(?:\Z|\x00)", re.ASCII)
_MAX_OFFSET_MINUTES = 14 * 60


def decoded(data: bytes) -> str:
    """UTF-8 if it is that, a cut-off last character aside; or else Latin-1, which takes anything."""
    try:
        return codecs.utf_8_decode(data, "strict", False)[0]  # noqa: FBT003  (takes no keywords)
    except UnicodeDecodeError:
        return data.decode("latin-1")


def line(value: bytes | str | None, limit: int = LINE_CHARS) -> str | None:
    """One line of at most ``limit`` characters, runs of white space made one space."""
    return _shortened(" ".join(_plain(value, limit).split()), limit)


def text(value: bytes | str | None, limit: int = TEXT_CHARS) -> str | None:
    """Text of any number of lines, of at most ``limit`` characters."""
    return _shortened(_plain(value, limit), limit)


def _plain(value: bytes | str | None, limit: int) -> str:
    if value is None:
        return ""
    # Padding may be long: it goes before the cut
    if isinstance(value, bytes):
        value = decoded(value.strip(b"\0 \t\r\n")[: limit * _BYTES_PER_CHAR])
    unpadded = value.strip("\0 \t\r\n")[: limit * _BYTES_PER_CHAR]
    return _UNWANTED.sub(" ", _LINE_END.sub("\n", unpadded))


def _shortened(plain: str, limit: int) -> str | None:
    return plain.strip()[:limit].rstrip() or None


def joined(parts: Iterable[str | None], separator: str) -> str | None:
    """What is there of the parts, each once; a part that another begins with is left out."""
    found = list(dict.fromkeys(part for part in parts if part))
    telling = [part for part in found if not any(o != part and o.startswith(part) for o in found)]
    return separator.join(telling) or None


def keywords(values: Iterable[bytes | str | None]) -> tuple[str, ...]:
    """Keywords in order, each once."""
    found: dict[str, None] = {}
    for value in values:
        if word := line(value, KEYWORD_CHARS):
            found[word] = None
        if len(found) >= MAX_KEYWORDS:
            break
    return tuple(found)


def moment(date: str | None, offset: str | None = None) -> str | None:
    """A date as ISO 8601: ``YYYY-MM-DD``, with ``THH:MM:SS`` and ``±HH:MM`` where they are known.

    Exif 2.32 writes ``YYYY:MM:DD HH:MM:SS``; XMP (part 2, 1.2) writes ISO 8601 of any precision. A year or a
    month alone becomes its first day. Fractions of seconds are dropped.

    :param offset: from UTC, where it stands in a tag of its own (Exif OffsetTime…).
    :return: ``None`` for blanks, zeros and days that no calendar has.
    """
    match = _DATE.match(date or "")
    if match is None:
        return None
    year, month, day, hour, minute, second = (
        int(match[part] or least)
        for part, least in (("year", 0), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))
    )
    try:
        when = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001  (a camera's clock has no zone)
    except ValueError:
        return None
    if match["hour"] is None:
        return when.date().isoformat()
    return when.isoformat(timespec="seconds") + _offset(match["offset"] or offset)


def _offset(offset: str | None) -> str:
    match = _OFFSET.match(offset or "")
    if match is None:
        return ""
    if match[1]:
        return "+00:00"
    if int(match[4]) >= 60 or int(match[3]) * 60 + int(match[4]) > _MAX_OFFSET_MINUTES:
        return ""
    return f"{match[2]}{match[3]}:{match[4]}"


def place(lat: float | None, lon: float | None, *, certain: bool = True) -> Place:
    """Latitude and longitude in decimal degrees (WGS 84), if both are there and on the globe.

    :param certain: whether the tags name hemispheres; without, 0/0 is a default and not a place.
    """
    if lat is None or lon is None or not (math.isfinite(lat) and math.isfinite(lon)):
        return None, None
    if abs(lat) > 90 or abs(lon) > 180 or (not certain and lat == lon == 0):
        return None, None
    return round(lat, 7), round(lon, 7)


def positive(value: float | None) -> float | None:
    """A measure that makes sense: above zero, and finite."""
    return value if value is not None and math.isfinite(value) and value > 0 else None


def whole(value: float | None, lowest: int, highest: int) -> int | None:
    """An integer within bounds."""
    if value is None or not math.isfinite(value) or not lowest <= value <= highest:
        return None
    return int(value)
