"""IPTC-IIM datasets (Information Interchange Model 4.2), as agencies and older editors write them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from PIL import IptcImagePlugin

from imagedbd.datatypes import Metadata
from imagedbd.tag_values import decoded, joined, keywords, moment, text

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_DataSets = dict[tuple[int, int], bytes | list[bytes]]

_CODED_CHARACTER_SET = (1, 90)
_UTF_8 = b"\x1b%G"
_OBJECT_NAME = (2, 5)
_KEYWORDS = (2, 25)
_DATE_CREATED = (2, 55)
_TIME_CREATED = (2, 60)
_SUBLOCATION, _CITY, _STATE, _COUNTRY = (2, 92), (2, 90), (2, 95), (2, 101)
_HEADLINE = (2, 105)
_CAPTION = (2, 120)


def read_iptc(image: ImageFile) -> Metadata:
    """Read what Pillow finds in a JPEG's Photoshop block or a TIFF's tag. Never raises."""
    try:
        found = IptcImagePlugin.getiptcinfo(image) or {}
    except (SyntaxError, OSError, ValueError, TypeError, LookupError, AttributeError, struct.error):
        return Metadata()
    return _metadata(found)


def _metadata(found: _DataSets) -> Metadata:
    utf_8 = _values(found, _CODED_CHARACTER_SET)[:1] == [_UTF_8]

    def strings(key: tuple[int, int]) -> list[str]:
        return [
            value.decode("utf-8", "replace") if utf_8 else decoded(value) for value in _values(found, key)
        ]

    def first(key: tuple[int, int]) -> str | None:
        return next(iter(strings(key)), None)

    places = [value for key in (_SUBLOCATION, _CITY, _STATE, _COUNTRY) for value in strings(key)]
    title = text(first(_OBJECT_NAME)) or text(first(_HEADLINE))
    return Metadata(
        taken_at=_taken_at(first(_DATE_CREATED), first(_TIME_CREATED)),
        keywords=keywords(strings(_KEYWORDS) + places),
        caption=joined((title, text(first(_CAPTION))), " — "),
    )


def _values(found: _DataSets, key: tuple[int, int]) -> list[bytes]:
    """A dataset may stand there once, several times, or empty, which Pillow gives as ``None``."""
    value = found.get(key)
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, bytes)]


def _taken_at(date: str | None, time: str | None) -> str | None:
    """CCYYMMDD and HHMMSS±HHMM; zeros stand for a month or day that is not known."""
    if date is None or len(date) < 8:
        return None
    day = f"{date[:4]}-{date[4:6]}-{date[6:8]}".replace("-00", "")
    if time is None or len(time) < 6:
        return moment(day)
    return moment(f"{day}T{time[:2]}:{time[2:4]}:{time[4:6]}{time[6:11]}") or moment(day)
