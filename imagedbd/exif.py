"""Exif tags (CIPA DC-008, Exif 2.32), read with exifread.

exifread is given the directories one by one, with tag tables of our own: it then neither follows pointers
that a file made up nor stops at the first tag it cannot take, and maker notes cost nothing. The block is read
through a reader with a budget, because sixty thousand tags of a thousand values each are quickly written.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from exifread.core.exif_header import ExifHeader

from imagedbd.datatypes import Metadata
from imagedbd.tag_values import Place, joined, keywords, line, moment, place, positive, text, whole

# Its warnings are about tags that we then do without; there is nothing to do about them.
logging.getLogger("exifread").setLevel(logging.CRITICAL)

_PREFIX = b"Exif\0\0"
_READ_BUDGET: Final = 20_000
_READ_BYTES: Final = 64 << 10
_TEXT_BYTES: Final = 256 << 10

_IMAGE_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0112: "Orientation",
    0x0132: "DateTime",
    0x4746: "Rating",
    0x8769: "ExifOffset",
    0x8825: "GPSInfo",
    0x9C9B: "XPTitle",
    0x9C9C: "XPComment",
    0x9C9E: "XPKeywords",
    0x9C9F: "XPSubject",
}
_EXIF_TAGS = {
    0x829A: "ExposureTime",
    0x829D: "FNumber",
    0x8827: "PhotographicSensitivity",
    0x8832: "RecommendedExposureIndex",
    0x8833: "ISOSpeed",
    0x9003: "DateTimeOriginal",
    0x9004: "DateTimeDigitized",
    0x9010: "OffsetTime",
    0x9011: "OffsetTimeOriginal",
    0x9012: "OffsetTimeDigitized",
    0x9201: "ShutterSpeedValue",
    0x9202: "ApertureValue",
    0x920A: "FocalLength",
    0x9286: "UserComment",
    0xA432: "LensSpecification",
    0xA434: "LensModel",
}
_GPS_TAGS = {
    0x0001: "GPSLatitudeRef",
    0x0002: "GPSLatitude",
    0x0003: "GPSLongitudeRef",
    0x0004: "GPSLongitude",
}

_ISO_UNKNOWN: Final = 65535
"""PhotographicSensitivity is a short; greater values stand in tags of their own (Exif 2.32, 4.6.6)."""

_MAGIC: Final = frozenset({42, 0x4F52, 0x5352, 0x55})
"""TIFF's number, and what the raw formats of Olympus and Panasonic have in its place."""

_NO_CAPTION = re.compile(
    r"(?:[\w ]+ )?digital camera|exif[ _]jpeg(?:_picture)?|jpeg|samsung|sony dsc|untitled|dav|sdr",
    re.IGNORECASE,
)
"""What cameras write into ImageDescription of their own accord."""


@dataclass(frozen=True, slots=True)
class ExifMetadata:
    """What a block says.

    :param surely: with the date at which the picture was taken (DateTimeOriginal).
    :param perhaps: only the date at which it was scanned or last changed (DateTimeDigitized, DateTime).
    """

    surely: Metadata = Metadata()  # noqa: RUF009  (immutable)
    perhaps: Metadata = Metadata()  # noqa: RUF009  (immutable)


def read_exif(block: bytes) -> ExifMetadata:
    """Read a TIFF structure: a TIFF file, or what other formats embed (after ``Exif`` and two zeros, or not).

    Never raises. What is damaged is left out; what stands before the damage is kept.
    """
    tags = _read_tags(block.removeprefix(_PREFIX))
    lat, lon = _place(tags)
    return ExifMetadata(
        surely=Metadata(
            taken_at=tags.moment("DateTimeOriginal", "OffsetTimeOriginal"),
            camera_make=line(tags.raw("Make")),
            camera_model=line(tags.raw("Model")),
            lens=_lens(tags),
            iso=_iso(tags),
            f_number=_f_number(tags),
            exposure_s=_exposure(tags),
            focal_mm=_rounded(positive(tags.number("FocalLength"))),
            lat=lat,
            lon=lon,
            orientation=whole(tags.number("Orientation"), 1, 8),
            rating=whole(tags.number("Rating"), -1, 5),
            keywords=keywords((_utf16(tags.raw("XPKeywords")) or "").split(";")),
            caption=_caption(tags),
            comment=joined((_user_comment(tags), text(_utf16(tags.raw("XPComment")))), "\n"),
        ),
        perhaps=Metadata(
            taken_at=tags.moment("DateTimeDigitized", "OffsetTimeDigitized")
            or tags.moment("DateTime", "OffsetTime")
        ),
    )


# Reading the directories.


class _BudgetSpentError(Exception):
    """More reading than any camera's tags need."""


_EXIFREAD_ERRORS = (
    _BudgetSpentError,
    ArithmeticError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)


class _ThriftyReader(io.BytesIO):
    """Bounds how much, and how often, may be read in all."""

    budget = _READ_BUDGET

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = _READ_BYTES if size is None or size < 0 else min(size, _READ_BYTES)
        self.budget -= 1 + wanted // 1024
        if self.budget < 0:
            raise _BudgetSpentError
        return super().read(wanted)


class _Tags:
    """Tags by name. Byte order and values are as the block says; a missing tag is ``None``."""

    def __init__(self, block: bytes, order: str, found: dict[str, Any]) -> None:
        self.order = order
        self._block = block
        self._found = found

    def raw(self, name: str) -> bytes | None:
        """The bytes of a tag's value, whatever its type; exifread drops long ones and decodes others."""
        tag = self._found.get(name)
        if tag is None:
            return None
        return self._block[tag.field_offset : tag.field_offset + min(tag.field_length, _TEXT_BYTES)]

    def ascii(self, name: str) -> str | None:
        raw = self.raw(name)
        return None if raw is None else raw.split(b"\0", 1)[0].decode("latin-1").strip()

    def moment(self, name: str, offset: str) -> str | None:
        return moment(self.ascii(name), self.ascii(offset))

    def numbers(self, name: str) -> list[float]:
        """The numbers of a tag; nan for what is no number, such as a fraction of zero."""
        tag = self._found.get(name)
        values = tag.values if tag is not None and isinstance(tag.values, list) else []
        return [_number(value) for value in values]

    def number(self, name: str) -> float | None:
        return next(iter(self.numbers(name)), None)


def _number(value: Any) -> float:
    try:
        return float(value[0] if isinstance(value, tuple) else value)
    except (ArithmeticError, TypeError, ValueError, IndexError):
        return math.nan


def _read_tags(block: bytes) -> _Tags:
    order, first = _header(block)
    found: dict[str, Any] = {}
    if first is not None:
        header = ExifHeader(_ThriftyReader(block), order, 0, fake_exif=0, strict=False)
        found |= _directory(header, first, _IMAGE_TAGS)
        for pointer, names in (("ExifOffset", _EXIF_TAGS), ("GPSInfo", _GPS_TAGS)):
            offset = whole(_Tags(block, order, found).number(pointer), 8, len(block))
            if offset is not None:
                # names are unique over the directories; what stands first holds
                found = _directory(header, offset, names) | found
    return _Tags(block, order, found)


def _header(block: bytes) -> tuple[str, int | None]:
    """Byte order ("I" or "M", as exifread calls it) and offset of the first directory (TIFF 6.0)."""
    order = block[:2].decode("latin-1")
    if order not in ("II", "MM") or len(block) < 8:
        return "M", None
    magic, first = struct.unpack_from("<HI" if order == "II" else ">HI", block, 2)
    return order[0], first if magic in _MAGIC else None


def _directory(header: ExifHeader, offset: int, names: dict[int, str]) -> dict[str, Any]:
    header.tags = {}
    with suppress(*_EXIFREAD_ERRORS):  # what was read before stands
        header.dump_ifd(offset, "", tag_dict={tag: (name, None) for tag, name in names.items()})
    known = frozenset(names.values())
    return {name: tag for key, tag in header.tags.items() if (name := key.strip()) in known}


# Making sense of the tags.


def _caption(tags: _Tags) -> str | None:
    description = text(tags.raw("ImageDescription"))
    if description is not None and _NO_CAPTION.fullmatch(description):
        description = None
    titles = (text(_utf16(tags.raw(name))) for name in ("XPTitle", "XPSubject"))
    return joined((*titles, description), " — ")


def _user_comment(tags: _Tags) -> str | None:
    """Exif 2.32, 4.6.5: eight bytes that name the character code, then the text, often padded."""
    raw = tags.raw("UserComment")
    if raw is None:
        return None
    code, body = raw[:8].rstrip(b"\0 ").upper(), raw[8:]
    if code == b"UNICODE":
        return text(_utf16_of_either_order(body, tags.order))
    if code == b"JIS":
        return text(body.decode("iso2022_jp", "ignore"))
    if code in (b"ASCII", b""):
        return text(body)
    return text(raw)  # some programs leave the code out


def _utf16(raw: bytes | None) -> str | None:
    """Windows' XP tags are little-endian whatever the block is."""
    return None if raw is None else raw[: len(raw) & ~1].decode("utf-16-le", "ignore")


def _utf16_of_either_order(body: bytes, order: str) -> str:
    """The standard leaves the order open: a mark decides, then where zeros are, then the block's order."""
    body = body[: len(body) & ~1]
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", "ignore")
    zeros_first, zeros_second = body[0::2].count(0), body[1::2].count(0)
    big = order == "M" if zeros_first == zeros_second else zeros_first > zeros_second
    return body.decode("utf-16-be" if big else "utf-16-le", "ignore")


def _lens(tags: _Tags) -> str | None:
    return line(tags.raw("LensModel")) or _lens_specification(tags.numbers("LensSpecification"))


def _lens_specification(values: list[float]) -> str | None:
    """Shortest and longest focal length in mm, and the smallest f-number at each; 0/0 is unknown."""
    if len(values) != 4:
        return None
    near, far, *bounds = (positive(value) for value in values)
    if near is None or far is None:
        return None
    apertures = "-".join(dict.fromkeys(f"{bound:g}" for bound in bounds if bound is not None))
    lengths = "-".join(dict.fromkeys(f"{length:g}" for length in (near, far)))
    return f"{lengths}mm f/{apertures}" if apertures else f"{lengths}mm"


def _iso(tags: _Tags) -> int | None:
    iso = whole(tags.number("PhotographicSensitivity"), 1, _ISO_UNKNOWN - 1)
    others = (whole(tags.number(n), 1, 10**7) for n in ("RecommendedExposureIndex", "ISOSpeed"))
    return iso if iso is not None else next((other for other in others if other is not None), None)


def _exposure(tags: _Tags) -> float | None:
    """In seconds; ShutterSpeedValue is its negative binary logarithm (APEX)."""
    exposure = positive(tags.number("ExposureTime"))
    if exposure is None and (speed := tags.number("ShutterSpeedValue")) is not None and abs(speed) < 40:
        exposure = 2.0**-speed
    return exposure


def _f_number(tags: _Tags) -> float | None:
    """ApertureValue is twice the binary logarithm of the f-number (APEX)."""
    f_number = positive(tags.number("FNumber"))
    if f_number is None and (aperture := tags.number("ApertureValue")) is not None and 0 < aperture < 20:
        f_number = round(2.0 ** (aperture / 2), 1)
    return _rounded(f_number)


def _rounded(value: float | None) -> float | None:
    """A third of a stop and a tenth of a millimetre are as good as lenses get; fractions give 5.599999."""
    return None if value is None else positive(round(value, 3))


def _place(tags: _Tags) -> Place:
    lat_ref, lon_ref = tags.ascii("GPSLatitudeRef"), tags.ascii("GPSLongitudeRef")
    return place(
        _degrees(tags.numbers("GPSLatitude"), lat_ref, "S"),
        _degrees(tags.numbers("GPSLongitude"), lon_ref, "W"),
        certain=bool(lat_ref and lon_ref),
    )


def _degrees(values: list[float], reference: str | None, negative: str) -> float | None:
    """Degrees, minutes, seconds to decimal degrees; without a reference, north and east."""
    if not 1 <= len(values) <= 3 or not all(map(math.isfinite, values)):
        return None
    degrees = math.fsum(abs(value) / 60.0**power for power, value in enumerate(values))
    below = (reference or "").upper().startswith(negative) or values[0] < 0
    return -degrees if below else degrees
