"""What filters are tried on: odd records, the engines, and a plain reading of conditions."""

from __future__ import annotations

import functools
import math
import os
import random
import re

import pyarrow as pa

from imagedbd.datatypes import (
    RECORD_FIELDS,
    And,
    Batch,
    Compare,
    FieldType,
    HasWord,
    ImageRecord,
    IsNull,
    Like,
    Metadata,
    Near,
    Not,
    OneOf,
    Or,
    Signature,
    StoredPicture,
    Under,
)
from imagedbd.metadata import searchable_text
from imagedbd.stores import masks, open_store
from imagedbd.stores.rows import Row, to_arrow
from imagedbd.text import fold

# Records of odd values, which conditions share, so that they often meet.

TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "it's",
    "'; --",
    '"',
    "%",
    "a%b",
    "a_b",
    "a\\b",
    "\\",
    "\\%",
    "é",
    "É",
    "e\u0301",
    "ß",
]
TEXTS += [
    "SS",
    "ＡＢ",
    "％",
    "😀",
    "日本",
    "a\nb",
    "a\x00b",
    "x\udcffy",
    "İ",
    "ﬁne",
    "' OR 1=1 --",
    "\u2028",
    "\x7f",
    "\u0301",
    "\ue000",
    "ﷺ",
    "a" * 300 + "é",
]
PATHS = [
    "/",
    "/a",
    "/a/b.jpg",
    "/a/B.JPG",
    "/a b/x.jpg",
    "/a%/x.jpg",
    "/a_/x.jpg",
    "/aa/x.jpg",
    "/a/b/c/x.jpg",
    "/a0",
]
PATHS += [
    "/' OR 1=1 --.jpg",
    "/é/x.jpg",
    "/\udcff/x.jpg",
    "/\udcfe/x.jpg",
    "/a\\/x.jpg",
    "/a.jpg",
    "/A/x.jpg",
    "/?/x.jpg",
]
INTEGERS = [0, 1, -1, 100, 1024, 4000, 2**31, 2**53, 2**53 + 1, 2**62]
NUMBERS = [0.0, -0.0, 1.0, 0.004, -33.9, 1e-9, 1e300, 0.1, 100.0, 2.0**53, 5e-324]
LATITUDES = [0.0, -0.0, 90.0, -90.0, 89.9, 45.0, -33.9, 51.5]
LONGITUDES = [0.0, -0.0, 180.0, -180.0, 179.9, -179.9, 151.2, -0.1]
DATES = [
    "2024-05-01T12:00:00",
    "2024-05-31T23:59:59.999+02:00",
    "2024-06-01T00:00:00-05:00",
    "2023-12-31T23:59:59",
]
DATES += ["0001-01-01T00:00:00", "9999-12-31T23:59:59", "2024-02-29T10:30:00Z"]
WORDS = ["dog", "Dog", "it's", "Zürich", "ZURICH", "a b", "", "%"]


def random_record(chosen: random.Random, number: int) -> ImageRecord:
    def maybe(values):
        return chosen.choice([None, *values])

    path = chosen.choice(PATHS)
    metadata = Metadata(
        format=maybe(["JPEG", "PNG", "gif"]),
        width=maybe(INTEGERS),
        height=maybe(INTEGERS),
        taken_at=maybe(DATES),
        camera_make=maybe(TEXTS),
        camera_model=maybe(TEXTS),
        lens=maybe(TEXTS),
        iso=maybe(INTEGERS),
        f_number=maybe(NUMBERS),
        exposure_s=maybe(NUMBERS),
        focal_mm=maybe(NUMBERS),
        lat=maybe(LATITUDES),
        lon=maybe(LONGITUDES),
        orientation=maybe(range(1, 9)),
        rating=maybe(range(6)),
        keywords=tuple(chosen.sample(WORDS, chosen.randint(0, 3))),
        caption=maybe(TEXTS),
        comment=maybe(TEXTS),
    )
    signature = Signature(
        1, number, chosen.choice(INTEGERS), chosen.choice([0, 1_714_564_800, 10**9]) * 10**9, 0
    )
    return ImageRecord(f"id{number}", path, signature, f"{number % 7:x}", metadata, "2024-05-01T12:00:00Z")


RECORDS = {record.id: record for record in (random_record(random.Random(n), n) for n in range(120))}

# The engines.


class LanceEngine:
    def __init__(self, folder):
        self.store = open_store("lance", folder)
        self.store.apply(Batch(upserts=tuple(StoredPicture(record) for record in RECORDS.values())))

    def selected(self, condition):
        return {record.id for record in self.store.scan(condition)}


class MaskEngine:
    def __init__(self, table):
        self.table = table

    def selected(self, condition):
        mask = masks.mask(condition, self.table)
        assert mask.shape == (self.table.num_rows,)
        return set(self.table.filter(pa.array(mask))["id"].to_pylist())


def in_chunks(table, sizes):
    ends = [sum(sizes[:n]) for n in range(len(sizes) + 1)]
    return pa.concat_tables([table.slice(end, size) for end, size in zip(ends, sizes, strict=False)])


def open_engines(folder):
    """Each engine by its name; the one on LanceDB keeps its store in the folder until it is closed."""
    table = to_arrow([Row(record, None) for record in RECORDS.values()], None, "")
    many = in_chunks(table, [1, 0, 2, 50, 0, 7, len(RECORDS)])
    return dict(zip(ENGINES, (LanceEngine(folder), MaskEngine(table), MaskEngine(many)), strict=True))


ENGINES = ["lance", "masks", "masks of many chunks"]


# The reference: three-valued logic, read from the docstrings of the conditions.


def value_of(record, field):
    return values_of(record.id)[field]


@functools.cache
def values_of(key):
    values = {**RECORDS[key].public(), "text": searchable_text(RECORDS[key].path, RECORDS[key].metadata)}
    return {name: kept(value) if isinstance(value, str) else value for name, value in values.items()}


def kept(text):
    return text.encode("utf-8", "replace").decode()


def matches(condition, record):
    match condition:
        case Not(operand):
            truth = matches(operand, record)
            return None if truth is None else not truth
        case And(operands):
            truths = [matches(operand, record) for operand in operands]
            return False if False in truths else None if None in truths else True
        case Or(operands):
            truths = [matches(operand, record) for operand in operands]
            return True if True in truths else None if None in truths else False
        case HasWord(field, word):
            return fold(word) in [fold(w) for w in value_of(record, field)]
        case Under(folder):
            return record.path == folder or record.path.startswith(folder.rstrip("/") + "/")
        case Near():
            return near(condition, record.metadata.lat, record.metadata.lon)
        case IsNull(field):
            return value_of(record, field) in (None, [])
        case Compare(field) | OneOf(field) | Like(field):
            value = value_of(record, field)
            return None if value is None else compared(condition, value, record)


def compared(condition, value, record):
    match condition:
        case Compare("path", ("=" | "!=") as operator, literal):
            return (os.fsencode(record.path) == literal.encode("utf-8", "surrogateescape")) is (
                operator == "="
            )
        case Compare(field, operator, literal):
            if RECORD_FIELDS[field] is FieldType.DATE:
                value = value[: len(literal)]
            elif isinstance(literal, str):
                literal = kept(literal)
            return OPERATORS[operator](value, literal)
        case OneOf(field, literals):
            return any(compared(Compare(field, "=", literal), value, record) for literal in literals)
        case Like(_, pattern, ignore_case):
            folded = fold if ignore_case else kept
            return like(pattern, folded(value), folded)


OPERATORS = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def like(pattern, text, folded):
    """Follow every way through the text at once."""
    places = {0}
    for piece in like_pieces(pattern):
        match piece:
            case "%":
                places = set(range(min(places, default=len(text) + 1), len(text) + 1))
            case "_":
                places = {place + 1 for place in places if place < len(text)}
            case _:
                literal = folded(re.sub(r"\\([%_\\])", r"\1", piece))
                places = {place + len(literal) for place in places if text.startswith(literal, place)}
    return len(text) in places


def like_pieces(pattern):
    return re.findall(r"[%_]|(?:\\[%_\\]|[^%_\\]|\\(?![%_\\]))+", pattern, re.DOTALL)


def near(place, lat, lon):
    if lat is None or lon is None:
        return None
    a, b = (math.radians(place.lat), math.radians(lat))
    dlat, dlon = b - a, math.radians(lon - place.lon)
    h = math.sin(dlat / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(dlon / 2) ** 2
    return 2 * 6371.0088 * math.asin(math.sqrt(min(1.0, h))) <= place.km


def expected(condition):
    return {key for key, record in RECORDS.items() if matches(condition, record) is True}
