"""Metadata: what is written by the usual programs is read back, and nothing that a file says can hurt."""

from __future__ import annotations

import io
import json
import random
import string
import struct
import time
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from imagedbd.datatypes import Limits, Metadata
from imagedbd.decoder import decode_bytes
from imagedbd.exif import read_exif
from imagedbd.metadata import searchable_text
from imagedbd.png_chunks import metadata_first
from imagedbd.tag_values import TEXT_CHARS, keywords, line, moment, place, text
from imagedbd.xmp import read_xmp

PICTURE = Image.new("RGB", (30, 20), (200, 100, 50))

EXIF_IFD, GPS_IFD = 0x8769, 0x8825


def metadata_of(data: bytes) -> Metadata:
    return decode_bytes(data, None, Limits())[1]


def saved(format: str = "JPEG", image: Image.Image = PICTURE, **options: Any) -> bytes:  # noqa: A002 - Pillow calls it so
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif_block(
    image: dict[int, Any] | None = None, exif: dict[int, Any] | None = None, gps: dict[int, Any] | None = None
) -> bytes:
    tags = Image.Exif()
    tags.update(image or {})
    for pointer, values in ((EXIF_IFD, exif), (GPS_IFD, gps)):
        if values:
            tags.get_ifd(pointer).update(values)
    return tags.tobytes()


def from_exif(
    image: dict[int, Any] | None = None, exif: dict[int, Any] | None = None, gps: dict[int, Any] | None = None
) -> Metadata:
    return read_exif(exif_block(image, exif, gps)).surely


# Exif.

FULL_IMAGE = {0x010F: "NIKON CORPORATION ", 0x0110: "NIKON D90\0\0", 0x0112: 6, 0x010E: "On the bridge"}
FULL_EXIF = {
    0x9003: "2008:10:22 16:28:39",
    0x9011: "+02:00",
    0x829A: IFDRational(1, 75),
    0x829D: IFDRational(59, 10),
    0x8827: 64,
    0x920A: IFDRational(24, 1),
    0xA434: "AF-S 18-105mm",
    0x9286: b"ASCII\0\0\0A note\0\0\0",
}
FULL_GPS = {1: "S", 2: (33.0, 51.0, 35.9), 3: "W", 4: (70.0, 30.0, 0.0)}


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_in_every_format_that_holds_it(format_: str) -> None:
    block = exif_block(FULL_IMAGE, FULL_EXIF, FULL_GPS)
    if format_ == "TIFF":
        data = saved(format_, exif=Image.Exif())
        tags = Image.Exif()
        tags.load(block)
        data = saved(format_, exif=tags)
    else:
        data = saved(format_, exif=block)
    found = metadata_of(data)
    assert (found.format, found.width, found.height, found.orientation) == (format_, 20, 30, 6)
    assert (found.camera_make, found.camera_model) == ("NIKON CORPORATION", "NIKON D90")
    assert (found.caption, found.comment, found.lens) == ("On the bridge", "A note", "AF-S 18-105mm")
    assert found.taken_at == "2008-10-22T16:28:39+02:00"
    assert found.exposure_s == pytest.approx(1 / 75)
    assert (found.f_number, found.iso, found.focal_mm) == (5.9, 64, 24.0)
    assert found.lat == pytest.approx(-33.8599722, abs=1e-6)
    assert found.lon == pytest.approx(-70.5)


def test_a_picture_without_metadata() -> None:
    assert metadata_of(saved("PNG")) == Metadata(format="PNG", width=30, height=20)
    assert metadata_of(saved("BMP")) == Metadata(format="BMP", width=30, height=20)


def test_both_byte_orders() -> None:
    tags = ImageFileDirectory_v2(ifh=b"MM\0*\0\0\0\x08")
    tags[0x010F], tags[0x0112] = "Big", 8
    found = read_exif(b"MM\0*\0\0\0\x08" + tags.tobytes(8)).surely
    assert (found.camera_make, found.orientation) == ("Big", 8)
    tags = ImageFileDirectory_v2(ifh=b"II*\0\x08\0\0\0")
    tags[0x010F], tags[0x0112] = "Little", 8
    found = read_exif(b"Exif\0\0II*\0\x08\0\0\0" + tags.tobytes(8)).surely
    assert (found.camera_make, found.orientation) == ("Little", 8)


@pytest.mark.parametrize(
    ("image", "exif", "taken_at"),
    [
        ({0x0132: "2001:01:01 01:01:01"}, {0x9003: "2002:02:02 02:02:02"}, "2002-02-02T02:02:02"),
        ({0x0132: "2001:01:01 01:01:01"}, {0x9004: "2003:03:03 03:03:03"}, "2003-03-03T03:03:03"),
        ({0x0132: "2001:01:01 01:01:01"}, {0x9010: "-07:30"}, "2001-01-01T01:01:01-07:30"),
        ({0x0132: "2001:01:01 01:01:01"}, {0x9003: "0000:00:00 00:00:00"}, "2001-01-01T01:01:01"),
        ({}, {0x9003: "2002:02:02 02:02:02", 0x9011: "   :  "}, "2002-02-02T02:02:02"),
        ({}, {0x9003: "2002:02:02 02:02:02", 0x9010: "+05:00"}, "2002-02-02T02:02:02"),
        ({}, {0x9003: "    :  :     :  :  "}, None),
        ({}, {0x9003: "2002:02:30 02:02:02"}, None),
        ({}, {0x9003: ""}, None),
    ],
)
def test_the_date_it_was_taken(image: dict[int, Any], exif: dict[int, Any], taken_at: str | None) -> None:
    assert metadata_of(saved(exif=exif_block(image, exif))).taken_at == taken_at


@pytest.mark.parametrize(
    ("written", "offset", "read"),
    [
        ("2008:10:22 16:28:39", None, "2008-10-22T16:28:39"),
        ("2008:10:22 16:28:39", "Z", "2008-10-22T16:28:39+00:00"),
        ("2008:10:22 16:28:39", "+25:00", "2008-10-22T16:28:39"),
        ("2008-10-22T16:28:39.123+02:00", "-01:00", "2008-10-22T16:28:39+02:00"),
        ("2008-10-22T16:28Z", None, "2008-10-22T16:28:00+00:00"),
        ("2008-10-22T16:28:39+0200", None, "2008-10-22T16:28:39+02:00"),
        ("2008/10/22 6:28:39", None, "2008-10-22T06:28:39"),
        ("2008:10:22", "+02:00", "2008-10-22"),
        ("2008-10", None, "2008-10-01"),
        ("1931", None, "1931-01-01"),
        ("2008:10:22 16:28:39\0junk", None, "2008-10-22T16:28:39"),
        ("2008:10:22 24:00:00", None, None),
        ("0000:00:00", None, None),
        ("2008:13:01", None, None),
        ("20081022", None, None),
        ("yesterday", None, None),
        ("", None, None),
        (None, "Z", None),
    ],
)
def test_dates(written: str | None, offset: str | None, read: str | None) -> None:
    assert moment(written, offset) == read


@pytest.mark.parametrize(
    ("gps", "expected"),
    [
        ({1: "N", 2: (43, 28, 2.814), 3: "E", 4: (11, 53, 6.456)}, (43.467448, 11.885127)),
        ({1: "n", 2: (43, 28.5), 3: "w", 4: (11, 0.0)}, (43.475, -11.0)),
        ({2: (10, 0, 0), 4: (20, 0, 0)}, (10.0, 20.0)),
        ({1: "N", 2: (0, 0, 0), 3: "E", 4: (0, 0, 0)}, (0.0, 0.0)),
        ({2: (0, 0, 0), 4: (0, 0, 0)}, (None, None)),
        ({1: "N", 2: (91, 0, 0), 3: "E", 4: (11, 0, 0)}, (None, None)),
        ({1: "N", 2: (9, 0, 0), 3: "E", 4: (181, 0, 0)}, (None, None)),
        ({1: "N", 2: (9, 0, 0)}, (None, None)),
        ({1: "N", 2: (IFDRational(9, 0), 0, 0), 3: "E", 4: (1, 0, 0)}, (None, None)),
    ],
)
def test_places(gps: dict[int, Any], expected: tuple[float | None, float | None]) -> None:
    found = from_exif(gps=gps)
    if expected[0] is None:
        assert (found.lat, found.lon) == (None, None)
    else:
        assert (found.lat, found.lon) == pytest.approx(expected, abs=1e-6)


def test_places_that_are_none() -> None:
    for lat, lon in ((float("nan"), 1.0), (1.0, float("inf")), (None, 1.0), (1.0, None)):
        assert place(lat, lon) == (None, None)


def test_numbers_that_make_no_sense_are_left_out() -> None:
    exif = {0x829A: IFDRational(1, 0), 0x829D: IFDRational(0, 1), 0x920A: IFDRational(0, 0), 0x8827: 0}
    found = from_exif({0x0112: 9, 0x4746: 77}, exif)
    assert found == Metadata()


def test_exposure_from_its_logarithms() -> None:
    found = from_exif(exif={0x9201: IFDRational(5, 1), 0x9202: IFDRational(6, 1)})
    assert found.exposure_s == pytest.approx(1 / 32)
    assert found.f_number == 8.0


def test_great_sensitivities_stand_elsewhere() -> None:
    assert from_exif(exif={0x8827: 65535, 0x8832: 102400}).iso == 102400
    assert from_exif(exif={0x8827: 65535}).iso is None


@pytest.mark.parametrize(
    ("specification", "lens"),
    [
        ((18, 55, 3.5, 5.6), "18-55mm f/3.5-5.6"),
        ((50, 50, 1.8, 1.8), "50mm f/1.8"),
        ((24, 70, IFDRational(0, 0), IFDRational(0, 0)), "24-70mm"),
        ((IFDRational(0, 0), 70, 2.8, 2.8), None),
    ],
)
def test_a_lens_without_a_name(specification: tuple[Any, ...], lens: str | None) -> None:
    rationals = tuple(IFDRational(n) if isinstance(n, float | int) else n for n in specification)
    assert from_exif(exif={0xA432: rationals}).lens == lens


LONG = "a red fox in the snow, " * 200


@pytest.mark.parametrize(
    ("raw", "comment"),
    [
        (b"ASCII\0\0\0plain", "plain"),
        (b"UNICODE\0" + "Zürich".encode("utf-16-le"), "Zürich"),
        (b"UNICODE\0" + "Zürich".encode("utf-16-be"), "Zürich"),
        (b"UNICODE\0" + "東京".encode("utf-16"), "東京"),
        (b"UNICODE\0" + LONG.encode("utf-16-be"), LONG.strip()),
        (b"JIS\0\0\0\0\0" + "東京".encode("iso2022_jp"), "東京"),
        (b"\0\0\0\0\0\0\0\0Gr\xc3\xbc\xc3\x9fe", "Grüße"),
        (b"ASCII\0\0\0Gr\xfc\xdfe", "Grüße"),
        (b"no code at all", "no code at all"),
        (b"ASCII\0\0\0" + b" " * 100, None),
        (b"ASCII\0\0\0" + bytes(100), None),
        (b"UNICODE\0", None),
        (b"", None),
    ],
)
def test_user_comments(raw: bytes, comment: str | None) -> None:
    assert from_exif(exif={0x9286: raw}).comment == comment


def test_windows_tags() -> None:
    def xp(value: str) -> bytes:
        return value.encode("utf-16-le") + b"\0\0"

    found = from_exif(
        {
            0x9C9B: xp("Ein Tag"),
            0x9C9F: xp("am See"),
            0x9C9C: xp("Kommentar"),
            0x9C9E: xp("See; Sommer;;Boot"),
        }
    )
    assert found.caption == "Ein Tag — am See"
    assert found.comment == "Kommentar"
    assert found.keywords == ("See", "Sommer", "Boot")


@pytest.mark.parametrize("junk", ["OLYMPUS DIGITAL CAMERA         ", "SONY DSC", "   ", "Exif_JPEG_PICTURE"])
def test_what_cameras_call_a_description_is_no_caption(junk: str) -> None:
    assert from_exif({0x010E: junk}).caption is None


def test_orientation_decides_the_sides() -> None:
    for orientation in range(1, 9):
        found = metadata_of(saved(exif=exif_block({0x0112: orientation})))
        assert (found.width, found.height) == ((20, 30) if orientation >= 5 else (30, 20))
        assert found.orientation == orientation


# Hostile Exif.


def directory(entries: list[tuple[int, int, int, bytes]], start: int = 8) -> bytes:
    """A block with one directory of (tag, type, count, four bytes)."""
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return struct.pack("<2sHIH", b"II", 42, start, len(entries)) + body + bytes(4)


def test_one_bad_tag_costs_no_other() -> None:
    block = directory(
        [
            (0x010F, 2, 4, b"Abc\0"),
            (0x0112, 3, 1, b"\x06\0\0\0"),
            (0x0110, 2, 0xFFFFFFFF, b"\xff\xff\xff\xff"),
            (0x8769, 2, 4, b"\xff\xff\xff\xff"),
            (0x8825, 11, 1, b"\0\0\xc0\x7f"),
            (0x829A, 5, 1, b"\xf0\xff\xff\xff"),
            (0x4746, 3, 1, b"\x04\0\0\0"),
            (0x0132, 12, 1, b"\xf0\xff\xff\xff"),
        ]
    )
    found = read_exif(block).surely
    assert (found.camera_make, found.orientation, found.rating, found.camera_model) == ("Abc", 6, 4, None)


def test_directories_that_point_at_each_other_end() -> None:
    block = directory(
        [(0x8769, 4, 1, b"\x08\0\0\0"), (0x8825, 4, 1, b"\x08\0\0\0"), (0x010F, 2, 4, b"Abc\0")]
    )
    assert read_exif(block).surely.camera_make == "Abc"


def test_thousands_of_endless_tags_are_soon_given_up() -> None:
    entries = [(0x010F, 2, 4, b"Abc\0")]
    entries += [(0xC000 + i % 999, 4, 999, b"\x08\0\0\0") for i in range(60_000)]
    started = time.thread_time()
    assert read_exif(directory(entries)).surely.camera_make == "Abc"
    entries[1:] = [(0xC000 + i % 999, 2, 1 << 30, b"\x08\0\0\0") for i in range(60_000)]
    assert read_exif(directory(entries) + bytes(50_000_000)).surely.camera_make == "Abc"
    assert time.thread_time() - started < 2


def test_damaged_exif_never_raises() -> None:
    block = exif_block(FULL_IMAGE | {0x9C9E: "a;b".encode("utf-16-le")}, FULL_EXIF, FULL_GPS)
    chance = random.Random(5)
    for _ in range(1500):
        damaged = bytearray(block)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(6, len(damaged))] = chance.choice((0, 1, 2, 255, chance.randrange(256)))
        read_exif(bytes(damaged[: chance.randrange(len(damaged))] if chance.random() < 0.2 else damaged))


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"", b"Exif\0\0II"]))
def test_any_bytes_are_exif_or_nothing(data: bytes, start: bytes) -> None:
    found = read_exif(start + data)
    assert found.surely.orientation in (None, *range(1, 9))


# XMP.


def packet(attributes: str = "", elements: str = "") -> bytes:
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
    <x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
      xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
      xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
      xmlns:lr="http://ns.adobe.com/lightroom/1.0/" xmlns:aux="http://ns.adobe.com/exif/1.0/aux/"
      xmlns:digiKam="http://www.digikam.org/ns/1.0/" xmlns:exifEX="http://cipa.jp/exif/1.0/"
      xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
      xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/" {attributes}>
    {elements}</rdf:Description></rdf:RDF></x:xmpmeta>{" " * 500}<?xpacket end="w"?>""".encode()


def bag(name: str, *items: str, kind: str = "Bag") -> str:
    return f"<{name}><rdf:{kind}>{''.join(f'<rdf:li>{i}</rdf:li>' for i in items)}</rdf:{kind}></{name}>"


FULL_XMP = packet(
    'xmp:Rating="4" tiff:Make="Leica" exif:GPSLatitude="47,22.5N" exif:GPSLongitude="8,32,30.0W" '
    'photoshop:City="Zürich" aux:Lens="35mm"',
    bag("dc:subject", "lake", " boat ", "lake", "", "<![CDATA[x & y]]>")
    + bag("lr:hierarchicalSubject", "Places|Europe|Zürich")
    + bag("digiKam:TagsList", "People/Anna", kind="Seq")
    + bag("Iptc4xmpExt:PersonInImage", "Bob")
    + '<dc:title><rdf:Alt><rdf:li xml:lang="fr">Le lac</rdf:li><rdf:li xml:lang="x-default">The lake</rdf:li>'
    "</rdf:Alt></dc:title>"
    + bag("dc:description", "An evening", kind="Alt")
    + "<xmp:CreateDate>2012-06-10T12:06:14.5+01:00</xmp:CreateDate>"
    + bag("exif:ISOSpeedRatings", "200", kind="Seq")
    + "<exif:FNumber>28/10</exif:FNumber><exif:ExposureTime>1/0</exif:ExposureTime>"
    "<tiff:Model>M6</tiff:Model>"
    '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description '
    'mwg-rs:Name="Carla" mwg-rs:Type="Face"/></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>',
)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_xmp_in_every_format_that_holds_it(format_: str) -> None:
    options: dict[str, Any] = {"xmp": FULL_XMP}
    if format_ == "PNG":
        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", FULL_XMP.decode(), zip=True)
    if format_ == "TIFF":
        options = {"tiffinfo": {700: FULL_XMP}}
    found = metadata_of(saved(format_, **options))
    assert found.keywords == (
        *("lake", "boat", "x & y", "Places", "Europe", "Zürich", "People", "Anna", "Bob", "Carla"),
    )
    assert found.caption == "The lake — An evening"
    assert found.taken_at == "2012-06-10T12:06:14+01:00"
    assert (found.rating, found.camera_make, found.camera_model, found.lens) == (4, "Leica", "M6", "35mm")
    assert (found.iso, found.f_number, found.exposure_s) == (200, 2.8, None)
    assert (found.lat, found.lon) == pytest.approx((47.375, -8.541667), abs=1e-6)


def test_people_who_rate_outrank_cameras_and_cameras_know_themselves() -> None:
    block = exif_block(
        {0x010F: "Canon", 0x4746: 0, 0x010E: "from the camera"}, {0x9003: "2002:02:02 02:02:02"}
    )
    found = metadata_of(saved(exif=block, xmp=FULL_XMP))
    assert (found.camera_make, found.camera_model) == ("Canon", "M6")
    assert (found.rating, found.caption) == (4, "The lake — An evening")
    assert found.taken_at == "2002-02-02T02:02:02"
    assert found.lat == pytest.approx(47.375)


def test_xmp_orientation_counts_where_exif_has_none() -> None:
    found = metadata_of(saved(xmp=packet('tiff:Orientation="6"')))
    assert (found.orientation, found.width, found.height) == (6, 20, 30)


def test_a_rejected_picture() -> None:
    assert read_xmp(packet('xmp:Rating="-1"')).rating == -1
    assert read_xmp(packet('xmp:Rating="4.0"')).rating == 4
    assert read_xmp(packet('xmp:Rating="9"')).rating is None


LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (i + 1, b"&l%d;" % i * 10) for i in range(9))


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\0\0\0",
        b"<x:xmpmeta",
        FULL_XMP[:900],
        FULL_XMP.replace(b"rdf:RDF", b"rdf:RDF a='1' a='1'"),
        b'<!DOCTYPE l [<!ENTITY l0 "lol">' + LAUGHS + b"]><l>&l9;</l>",
        b'<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]><l>&x;</l>',
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        b"<a>" * 200_000,
        b"<a/>" + b" " * 9_000_000 + b"x",
        "text that is no XML",
    ],
)
def test_bad_xmp_is_no_xmp(data: bytes | str | None) -> None:
    started = time.thread_time()
    assert read_xmp(data) == Metadata()
    assert time.thread_time() - started < 2


def test_numbers_in_xmp_that_are_none() -> None:
    found = read_xmp(
        packet('exif:FNumber="nan" exif:ExposureTime="1e999" exif:FocalLength="-3" xmp:Rating="good"')
    )
    assert found == Metadata()
    assert read_xmp(packet('exif:GPSLatitude="99,0N" exif:GPSLongitude="1,0E"')).lat is None
    assert read_xmp(packet('exif:GPSLatitude="north" exif:GPSLongitude="1,0E"')).lat is None


# IPTC.


def dataset(record: int, number: int, value: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value


def photoshop_jpeg(datasets: bytes) -> bytes:
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(datasets)) + datasets + b"\0" * (len(datasets) % 2)
    segment = b"Photoshop 3.0\0" + resource
    data = saved()
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def test_iptc() -> None:
    data = photoshop_jpeg(
        dataset(1, 90, b"\x1b%G")
        + dataset(2, 5, b"Title")
        + dataset(2, 25, b"fog")
        + dataset(2, 25, "Brücke".encode())
        + dataset(2, 55, b"20050907")
        + dataset(2, 60, b"150740-0700")
        + dataset(2, 90, b"Bern")
        + dataset(2, 101, b"Schweiz")
        + dataset(2, 120, "Über den Fluss".encode())
    )
    found = metadata_of(data)
    assert found.keywords == ("fog", "Brücke", "Bern", "Schweiz")
    assert found.caption == "Title — Über den Fluss"
    assert found.taken_at == "2005-09-07T15:07:40-07:00"


def test_iptc_in_latin_1_and_half_a_date() -> None:
    found = metadata_of(
        photoshop_jpeg(
            dataset(2, 25, "Brücke".encode("latin-1")) + dataset(2, 55, b"20050900") + dataset(2, 120, b"")
        )
    )
    assert (found.keywords, found.taken_at, found.caption) == (("Brücke",), "2005-09-01", None)


def test_iptc_in_tiff() -> None:
    tags = ImageFileDirectory_v2()
    tags[33723] = dataset(2, 25, b"fog") + dataset(2, 120, b"words")
    tags.tagtype[33723] = 7
    found = metadata_of(saved("TIFF", tiffinfo=tags))
    assert (found.keywords, found.caption) == (("fog",), "words")


@pytest.mark.parametrize(
    "data", [b"", b"\x1c", b"\x1c\x02\x19\xff\xff", b"\x1c\x02\x19\0\x99ab", b"nonsense" * 9]
)
def test_damaged_iptc_is_no_iptc(data: bytes) -> None:
    assert metadata_of(photoshop_jpeg(data)).format == "JPEG"


# Text in files.


def png_with(**texts: str) -> bytes:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key.replace("_", " "), value, zip=len(value) > 100)
    return saved("PNG", pnginfo=info)


def test_png_text() -> None:
    found = metadata_of(
        png_with(Title="A fox", Description="in the snow", Creation_Time="22 Oct 2008 16:28:39 +0200")
    )
    assert found.caption == "A fox — in the snow"
    assert found.taken_at == "2008-10-22T16:28:39+02:00"
    assert metadata_of(png_with(Creation_Time="2008:10:22 16:28:39")).taken_at == "2008-10-22T16:28:39"
    assert metadata_of(png_with(Creation_Time="one day")).taken_at is None


def test_generation_parameters() -> None:
    parameters = "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 7"
    assert metadata_of(png_with(parameters=parameters)).comment == parameters


def test_a_graph_of_nodes_gives_its_prompts() -> None:
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 5, "positive": ["6", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    }
    found = metadata_of(png_with(prompt=json.dumps(graph), workflow=json.dumps({"nodes": [1] * 999})))
    assert found.comment == "a red fox\nblurry"
    assert metadata_of(png_with(prompt="{not json")).comment == "{not json"
    assert metadata_of(png_with(prompt="{" + '"a":[' * 20_000)).comment is not None


def test_comments_of_jpeg_and_gif() -> None:
    assert metadata_of(saved(comment="Grüße".encode())).comment == "Grüße"
    assert metadata_of(saved("GIF", comment=b"Gr\xfc\xdfe\0")).comment == "Grüße"


def test_all_comments_are_kept_once() -> None:
    block = exif_block(exif={0x9286: b"ASCII\0\0\0one"})
    assert metadata_of(saved(exif=block, comment=b"two")).comment == "one\ntwo"
    assert metadata_of(saved(exif=block, comment=b"one")).comment == "one"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_png_metadata_behind_the_pixels_are_read() -> None:
    plain = saved("PNG")
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + FULL_XMP
    late = chunk(b"eXIf", exif_block({0x0112: 6})[6:]) + chunk(b"iTXt", xmp) + chunk(b"tEXt", b"Title\0Fox")
    found = metadata_of(plain[:-12] + late + plain[-12:])
    assert (found.orientation, found.width, found.rating) == (6, 20, 4)
    assert "lake" in found.keywords


def test_other_files_stay_as_they_are() -> None:
    for data in (
        saved("PNG"),
        saved("JPEG"),
        b"",
        saved("PNG")[:40],
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIDAT",
    ):
        assert metadata_first(data) is data


def test_very_long_png_text_fails_no_picture() -> None:
    found = metadata_of(png_with(Comment="word " * 2_000_000))
    assert found.comment is not None
    assert len(found.comment) <= TEXT_CHARS


def test_exif_as_imagemagick_writes_it() -> None:
    block = exif_block({0x010F: "Canon"})
    digits = block.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    profile = f"\nexif\n{len(block):8}\n{lines}\n"
    assert metadata_of(png_with(Raw_profile_type_exif=profile)).camera_make == "Canon"
    assert metadata_of(png_with(Raw_profile_type_exif="\nexif\n 4\nxyz")).camera_make is None


# Strings.


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (b"  NIKON\0\0\0", "NIKON"),
        ("a\tb\r\nc", "a b c"),
        ("a\x00b\x1b[31mc\x9fd", "a b [31mc d"),
        ("\ud800x\udfff", "x"),
        (b"\xff\xfe", "ÿþ"),
        ("\ufeffmarked", "marked"),
        (b"\xc3\xbc\xc3", "ü"),
        ("👨‍👩‍👧 family", "👨‍👩‍👧 family"),
        (b"", None),
        ("\0\0 \0", None),
        (None, None),
    ],
)
def test_lines(raw: bytes | str | None, clean: str | None) -> None:
    assert line(raw) == clean


def test_text_keeps_its_lines() -> None:
    assert text("a\r\nb\rc\u2028d\n\n") == "a\nb\nc\nd"


def test_lengths_are_bounded() -> None:
    assert len(line("é" * 10_000) or "") == 1024
    assert len(line(("é" * 10_000).encode()) or "") == 1024
    assert len(text(b" " * 300_000 + b"x" * 300_000) or "") == TEXT_CHARS
    assert len(keywords(str(i) for i in range(5000))) == 1000


@settings(deadline=None)
@given(st.text() | st.binary())
@example("\x85\u2029")
def test_whatever_is_cleaned_can_be_stored(raw: bytes | str) -> None:
    for clean in (line(raw), text(raw)):
        if clean is not None:
            assert clean == clean.strip() != ""
            assert clean.encode("utf-8")
            assert not set(clean) & set(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))


# Words to search by.


def test_searchable_text() -> None:
    metadata = Metadata(
        format="JPEG",
        width=4000,
        iso=6400,
        taken_at="2008-10-22T16:28:39",
        camera_make="NIKON",
        camera_model="COOLPIX P6000",
        lens="24mm",
        keywords=("Brücke", "Fluss"),
        caption="Über den Fluss",
        comment="seed 7",
    )
    words = searchable_text("/home/anna/Été/DSC_0010.jpg", metadata).split()
    assert {"dsc", "0010", "jpg", "home", "anna", "ete", "2008", "october", "nikon", "coolpix"} <= set(words)
    assert {"p6000", "24mm", "brucke", "fluss", "uber", "seed", "jpeg"} <= set(words)
    assert "6400" not in words
    assert "4000" not in words
    assert len(words) == len(set(words))


def test_searchable_text_of_next_to_nothing() -> None:
    assert searchable_text("/x/caf\udce9.png", Metadata()) == "caf png x"


# Everything at once.


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_damage_anywhere_never_costs_the_picture_its_other_metadata(seed: int) -> None:
    chance = random.Random(seed)
    original = SOURCES[chance.choice(sorted(SOURCES))]
    data = bytearray(original)
    needle = chance.choice((b"Exif\0\0", b"<rdf", b"Photoshop"))
    start = original.find(needle)
    if start < 0:
        return
    inside = range(start + len(needle), _end_of_segment(original, start))
    for _ in range(chance.randint(1, 20)):
        data[chance.choice(inside[:300])] = (
            chance.choice(string.printable.encode()) if chance.random() < 0.5 else chance.randrange(256)
        )
    found = metadata_of(bytes(data))
    assert found.format == "JPEG"
    assert {found.width, found.height} == {30, 20}


def _end_of_segment(data: bytes, inside: int) -> int:
    """Where the JPEG segment ends that holds this position: beyond it lies the picture itself."""
    begin = max(data.rfind(marker, 0, inside) for marker in (b"\xff\xe1", b"\xff\xed"))
    return begin + 2 + int.from_bytes(data[begin + 2 : begin + 4], "big")


SOURCES = {
    "exif": saved(exif=exif_block(FULL_IMAGE, FULL_EXIF, FULL_GPS)),
    "xmp": saved(xmp=FULL_XMP),
    "iptc": photoshop_jpeg(dataset(2, 25, b"fog") + dataset(2, 120, b"x" * 200)),
}
