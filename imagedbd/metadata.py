"""What a picture says of itself: every source read on its own, and one record made of them.

Sources and who wins, field by field, the first that says anything:

- facts of the camera (make, model, lens, exposure, place, orientation, date): Exif, XMP, IPTC, file text;
- words of people (caption, rating): XMP, IPTC, Exif, file text, because cameras write there what nobody said;
- keywords and comments: all sources together;
- of sidecars, their words of people go before all of these.

The date is when the picture was taken: Exif DateTimeOriginal, then XMP (exif:DateTimeOriginal,
photoshop:DateCreated, xmp:CreateDate), IPTC DateCreated, a PNG's "Creation Time", and only then Exif
DateTimeDigitized and DateTime, which scanners and editors set.
"""

from __future__ import annotations

import calendar
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL.ImageFile import ImageFile

from imagedbd.containers import jxl_xmp
from imagedbd.datatypes import Metadata
from imagedbd.exif import read_exif
from imagedbd.file_text import read_file_text
from imagedbd.iptc import read_iptc
from imagedbd.pixels import shown_size, size_upright
from imagedbd.raw import raw_xmp
from imagedbd.tag_values import Place, joined, keywords, text
from imagedbd.text import searchable
from imagedbd.xmp import read_xmp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagedbd.exif import ExifMetadata
    from imagedbd.raw import Negative

_FORMAT_NAMES = {"MPO": "JPEG", "DIB": "BMP"}

_FACTS = (
    "taken_at",
    "camera_make",
    "camera_model",
    "lens",
    "iso",
    "f_number",
    "exposure_s",
    "focal_mm",
    "orientation",
)
_WORDS = ("caption", "rating")


def read_metadata(data: bytes, image: ImageFile) -> Metadata:
    """Read all that a picture says of itself. An unreadable tag is an empty field: nothing here raises.

    :param data: the whole file.
    :param image: the same, opened by Pillow and not yet decoded (that would turn a TIFF upright).
    """
    said = _combined(
        [read_exif(_exif_block(data, image))],
        read_xmp(_xmp_packet(data, image)),
        read_iptc(image),
        read_file_text(image),
    )
    width, height = shown_size(image, said.orientation)
    orientation = image.info.get("original_orientation") or said.orientation
    return replace(said, format=_format(image), width=width, height=height, orientation=orientation)


def read_raw_metadata(data: bytes, kind: str, negative: Negative) -> Metadata:
    """As :func:`read_metadata`, of camera RAW: what the file says, and then what its preview does.

    :param kind: see :func:`imagedbd.raw.raw_format`.
    """
    preview = negative.preview
    opened = preview if isinstance(preview, ImageFile) else None
    packet = raw_xmp(data) or (_xmp_packet(b"", opened) if opened else None)
    said = _combined(
        [read_exif(data), read_exif(_exif_block(b"", opened) if opened else b"")],
        read_xmp(packet),
        read_iptc(opened) if opened else Metadata(),
        Metadata(),
    )
    width, height = size_upright(negative.size, negative.orientation)
    return replace(said, format=kind, width=width, height=height, orientation=negative.orientation)


def with_sidecars(metadata: Metadata, packets: Sequence[bytes]) -> Metadata:
    """What a picture says together with the sidecars that lie beside it.

    Those are newer than the picture: their caption and rating go before its own, their keywords are added.

    :param packets: their contents, the one that goes before the others first.
    """
    if not packets:
        return metadata
    said = [read_xmp(packet) for packet in packets]
    words = _first_of((*said, metadata), _WORDS)
    return replace(
        metadata,
        **words,
        keywords=keywords(word for source in (*said, metadata) for word in source.keywords),
    )


def _combined(exifs: Sequence[ExifMetadata], xmp: Metadata, iptc: Metadata, file_text: Metadata) -> Metadata:
    """One record without format and size, of what the sources say, the first of the Exif blocks first."""
    surely = [exif.surely for exif in exifs]
    perhaps = [exif.perhaps for exif in exifs]
    facts = _first_of((*surely, xmp, iptc, file_text, *perhaps), _FACTS)
    words = _first_of((xmp, iptc, *surely, file_text), _WORDS)
    lat, lon = _first_place((*surely, xmp))
    return Metadata(
        **facts,
        **words,
        lat=lat,
        lon=lon,
        keywords=keywords(word for source in (xmp, iptc, *surely) for word in source.keywords),
        comment=text(joined((source.comment for source in (*surely, xmp, file_text)), "\n")),
    )


def searchable_text(path: str, metadata: Metadata) -> str:
    """The record's ``text``: all words by which somebody may look for this picture, folded, each once.

    :param path: of the file, absolute; its name and all of its folders are words too.
    """
    return searchable(
        (
            os.path.basename(path),
            metadata.caption,
            *metadata.keywords,
            *_date_words(metadata.taken_at),
            metadata.camera_make,
            metadata.camera_model,
            metadata.lens,
            metadata.format,
            os.path.dirname(path),
            metadata.comment,
        )
    )


def _date_words(taken_at: str | None) -> tuple[str, ...]:
    """The year and the month's English name; the day as a number would match too much."""
    if taken_at is None:
        return ()
    year, month = taken_at[:4], int(taken_at[5:7])
    return year, calendar.month_name[month]


def _first_of(sources: Sequence[Metadata], names: Sequence[str]) -> dict[str, Any]:
    """For each field, what the first source says that says anything."""
    return {
        name: next((value for source in sources if (value := getattr(source, name)) is not None), None)
        for name in names
    }


def _first_place(sources: Sequence[Metadata]) -> Place:
    """Latitude and longitude of one source: a half from each would be a third place."""
    for source in sources:
        if source.lat is not None and source.lon is not None:
            return source.lat, source.lon
    return None, None


def _format(image: ImageFile) -> str | None:
    name = (image.format or "").upper()
    return _FORMAT_NAMES.get(name, name) or None


def _exif_block(data: bytes, image: ImageFile) -> bytes:
    """The TIFF structure that holds the tags: a part that Pillow has found, or the file itself."""
    if image.format == "TIFF":
        return data
    block = image.info.get("exif")
    return block if isinstance(block, bytes) else _raw_profile(image.info.get("Raw profile type exif"))


def _raw_profile(profile: object) -> bytes:
    """ImageMagick's way of putting Exif into PNG text: a name, a length, and lines of hexadecimal digits."""
    if not isinstance(profile, str):
        return b""
    digits = "".join(profile.split("\n")[3:])
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


def _xmp_packet(data: bytes, image: ImageFile) -> bytes | str | None:
    if image.format == "JXL":
        return jxl_xmp(data)
    for name in ("xmp", "XML:com.adobe.xmp"):
        packet = image.info.get(name)
        if isinstance(packet, (bytes, str)):
            return packet
    return None
