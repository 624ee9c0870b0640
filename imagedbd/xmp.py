"""XMP packets: RDF/XML in a picture, where editors put titles, keywords, ratings and people.

Sources: XMP specification part 1 (the packet and its RDF subset) and part 2 (namespaces), the IPTC photo
metadata standard, the MWG guidelines (regions), and the tag lists of Lightroom and digiKam.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from imagedbd.datatypes import Metadata
from imagedbd.tag_values import Place, joined, keywords, line, moment, place, positive, text, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

MAX_PACKET_BYTES: Final = 8 << 20

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_NAMESPACES = {
    "acdsee": "http://ns.acdsee.com/iptc/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "MicrosoftPhoto": "http://ns.microsoft.com/photo/1.0/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
}

_COORDINATE = re.compile(
    r"\s*(\d{1,3})(?:,(\d{1,2}(?:\.\d*)?))?(?:,(\d{1,2}(?:\.\d*)?))?\s*([NSEWnsew])\s*\Z"
)


def read_xmp(packet: bytes | str | None) -> Metadata:
    """Read a packet, as it stands in the file. Never raises: what cannot be parsed is empty."""
    root = _parse(packet)
    if root is None:
        return Metadata()
    properties = _Properties(root)
    lat, lon = _place(properties)
    return Metadata(
        taken_at=_taken_at(properties),
        camera_make=line(properties.first("tiff:Make")),
        camera_model=line(properties.first("tiff:Model")),
        lens=line(properties.first("exifEX:LensModel") or properties.first("aux:Lens")),
        iso=whole(
            _fraction(properties.first("exifEX:PhotographicSensitivity", "exif:ISOSpeedRatings")), 1, 10**7
        ),
        f_number=positive(_fraction(properties.first("exif:FNumber"))),
        exposure_s=positive(_fraction(properties.first("exif:ExposureTime"))),
        focal_mm=positive(_fraction(properties.first("exif:FocalLength"))),
        lat=lat,
        lon=lon,
        orientation=whole(_fraction(properties.first("tiff:Orientation")), 1, 8),
        rating=whole(_fraction(properties.first("xmp:Rating")), -1, 5),
        keywords=keywords(_keywords(properties)),
        caption=_caption(properties),
        comment=text(properties.first("exif:UserComment")),
    )


def is_packet(packet: bytes) -> bool:
    """Whether :func:`read_xmp` can parse it."""
    return _parse(packet) is not None


def _parse(packet: bytes | str | None) -> Element | None:
    if not packet or len(packet) > MAX_PACKET_BYTES:
        return None
    padding = b"\0 \t\r\n" if isinstance(packet, bytes) else "\0 \t\r\n"
    try:
        # Bytes are taken as well as text, whatever the stub says.
        root: Element = fromstring(packet.strip(padding), forbid_dtd=True)  # type: ignore[arg-type]
    except (ParseError, DefusedXmlException, LookupError, ValueError, RecursionError):
        return None  # LookupError: it names an encoding that is none
    return root


class _Properties:
    """All properties of all subjects in a packet, by prefixed name, each a list of strings."""

    def __init__(self, root: Element) -> None:
        self._root = root
        self._values: dict[str, list[str]] = {}
        for description in root.iter(f"{_RDF}Description"):
            for name, value in description.attrib.items():
                self._values.setdefault(name, []).append(value)
            for element in description:
                self._values.setdefault(element.tag, []).extend(_strings(element))

    def all(self, *names: str) -> Iterator[str]:
        """The values of these properties, one after the other."""
        for name in names:
            yield from self._values.get(_qualified(name), ())

    def first(self, *names: str) -> str | None:
        """The first value that is not blank."""
        return next((value for value in self.all(*names) if value.strip()), None)

    def anywhere(self, name: str) -> Iterator[str]:
        """Values of a property however deep it stands in structures."""
        qualified = _qualified(name)
        for element in self._root.iter():
            if qualified in element.attrib:
                yield element.attrib[qualified]
            if element.tag == qualified and element.text:
                yield element.text


def _qualified(name: str) -> str:
    prefix, local = name.split(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"


def _strings(element: Element) -> list[str]:
    """A property's values: a plain one, the items of an array, or of alternatives the default language's."""
    items = [item for container in element for item in container if item.tag == f"{_RDF}li"]
    if not items:
        return [element.text] if element.text and not len(element) else []
    if element[0].tag == f"{_RDF}Alt":
        items = [item for item in items if item.get(_LANG) == "x-default"] or items[:1]
    return [item.text for item in items if item.text]


def _taken_at(properties: _Properties) -> str | None:
    names = ("exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate")
    return next((date for value in properties.all(*names) if (date := moment(value))), None)


def _caption(properties: _Properties) -> str | None:
    title = text(properties.first("dc:title", "photoshop:Headline"))
    return joined((title, text(properties.first("dc:description", "acdsee:caption"))), " — ")


def _keywords(properties: _Properties) -> Iterator[str]:
    """Keywords, the levels of hierarchical ones, the people shown, and where it was."""
    yield from properties.all("dc:subject", "MicrosoftPhoto:LastKeywordXMP")
    for value in properties.all("lr:hierarchicalSubject"):
        yield from value.split("|")
    for value in properties.all("digiKam:TagsList"):
        yield from value.split("/")
    yield from properties.all("Iptc4xmpExt:PersonInImage")
    yield from properties.anywhere("mwg-rs:Name")
    yield from properties.all(
        "Iptc4xmpCore:Location", "photoshop:City", "photoshop:State", "photoshop:Country"
    )


def _fraction(value: str | None) -> float | None:
    """A number, or a fraction as in ``28/10``."""
    numerator, _, denominator = (value or "").partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ArithmeticError):
        return None


def _place(properties: _Properties) -> Place:
    latitude, longitude = properties.first("exif:GPSLatitude"), properties.first("exif:GPSLongitude")
    return place(_degrees(latitude, "S"), _degrees(longitude, "W"))


def _degrees(value: str | None, negative: str) -> float | None:
    """XMP part 2, GPSCoordinate: ``DDD,MM,SSk`` or ``DDD,MM.mmk``, k one of N, S, E, W."""
    match = _COORDINATE.match(value or "")
    if match is None:
        return None
    degrees = math.fsum(float(match[power + 1] or 0) / 60.0**power for power in range(3))
    return -degrees if match[4].upper() == negative else degrees
