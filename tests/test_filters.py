"""Conditions compiled to SQL select what a plain reading of them in Python selects."""

from __future__ import annotations

import math
import os
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from imagedbd.errors import UsageError
from imagedbd.expressions import MAX_DEPTH
from imagedbd.metadata import searchable_text
from imagedbd.stores import open_store
from imagedbd.stores.filters import to_sql
from imagedbd.text import fold

# The reference: three-valued logic, read from the docstrings of the conditions.


def value_of(record, field):
    if field == "text":
        return searchable_text(record.path, record.metadata)
    value = record.public()[field]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


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
                literal = literal.encode("utf-8", "replace").decode()
            return OPERATORS[operator](value, literal)
        case OneOf(field, literals):
            return any(compared(Compare(field, "=", literal), value, record) for literal in literals)
        case Like(_, pattern, ignore_case):
            folded = fold if ignore_case else lambda text: text.encode("utf-8", "replace").decode()
            return re.fullmatch(like_regex(pattern, folded), folded(value), re.DOTALL) is not None


OPERATORS = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def like_regex(pattern, folded):
    tokens = re.findall(r"\\[%_\\]|[%_]|(?:[^%_\\]|\\(?![%_\\]))+", pattern)
    literal, regex = "", ""
    for piece in tokens:
        if piece in "%_":
            regex += re.escape(folded(literal)) + {"%": ".*", "_": "."}[piece]
            literal = ""
        else:
            literal += piece[1] if re.fullmatch(r"\\[%_\\]", piece) else piece
    return regex + re.escape(folded(literal))


def near(place, lat, lon):
    if lat is None or lon is None:
        return None
    a, b = (math.radians(place.lat), math.radians(lat))
    dlat, dlon = b - a, math.radians(lon - place.lon)
    h = math.sin(dlat / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(dlon / 2) ** 2
    return 2 * 6371.0088 * math.asin(math.sqrt(min(1.0, h))) <= place.km


# Records and conditions that share their odd values, so that they often meet.

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
NUMBERS = [0.0, -0.0, 1.0, 0.004, -33.9, 1e-9, 1e300, 0.1, 100.0]
LATITUDES = [0.0, 90.0, -90.0, 89.9, 45.0, -33.9, 51.5]
LONGITUDES = [0.0, 180.0, -180.0, 179.9, -179.9, 151.2, -0.1]
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

PLAIN_FIELDS = {
    kind: st.sampled_from([name for name, of in RECORD_FIELDS.items() if of is kind]) for kind in FieldType
}
some_text = st.sampled_from([*TEXTS, *PATHS, "JPEG", "id3", "3"]) | st.text(max_size=4)
some_number = (
    st.sampled_from([*INTEGERS, *NUMBERS, 0.5, 1024.5, -0.5, 1e19, -1e19, 2**63, -(2**63), 10**400])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
some_date = st.sampled_from(DATES).flatmap(lambda d: st.sampled_from([d[:n] for n in (4, 7, 10, 13, 16, 19)]))
some_folder = st.sampled_from([os.path.dirname(p) for p in PATHS] + PATHS)
some_pattern = st.lists(
    st.sampled_from(["%", "_", "\\", "\\%", "\\_", "\\\\", *TEXTS, ".jpg", "/"]), max_size=5
).map("".join) | st.text("ab%_\\é", max_size=6)
VALUES = {
    FieldType.TEXT: some_text,
    FieldType.INTEGER: some_number,
    FieldType.NUMBER: some_number.filter(lambda n: abs(n) < 10**300),
    FieldType.DATE: some_date,
}


@st.composite
def comparisons(draw):
    kind = draw(st.sampled_from(list(VALUES)))
    field = draw(PLAIN_FIELDS[kind])
    if draw(st.booleans()):
        return Compare(field, draw(st.sampled_from(sorted(OPERATORS))), draw(VALUES[kind]))
    return OneOf(field, tuple(draw(st.lists(VALUES[kind], max_size=3))))


leaves = st.one_of(
    comparisons(),
    st.builds(Like, PLAIN_FIELDS[FieldType.TEXT], some_pattern, st.booleans()),
    st.sampled_from(list(RECORD_FIELDS)).map(IsNull),
    st.builds(HasWord, st.just("keywords"), st.sampled_from([*WORDS, "zurich", "cat"])),
    some_folder.map(Under),
    st.builds(
        Near, st.sampled_from(LATITUDES), st.sampled_from(LONGITUDES), st.sampled_from([0, 1, 30, 5e3, 3e4])
    ),
)
conditions = st.recursive(
    leaves,
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, max_size=3).map(lambda c: And(tuple(c)))
        | st.lists(inner, max_size=3).map(lambda c: Or(tuple(c)))
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store("lance", os.fspath(tmp_path_factory.mktemp("filters") / "store"))
    store.apply(Batch(upserts=tuple(StoredPicture(record) for record in RECORDS.values())))
    yield store
    store.close()


def selected(store, condition):
    return {record.id for record in store.scan(condition)}


def expected(condition):
    return {key for key, record in RECORDS.items() if matches(condition, record) is True}


EXAMPLES = int(os.environ.get("IMAGEDBD_FILTER_EXAMPLES", "100"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conditions)
def test_random_conditions_select_what_the_reference_selects(store, condition):
    assert selected(store, condition) == expected(condition)
    assert store.count(condition) == len(expected(condition))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(leaves)
def test_a_comparison_its_negation_and_the_unknown_share_out_the_rows(store, condition):
    true, false = selected(store, condition), selected(store, Not(condition))
    assert true == expected(condition)
    assert false == expected(Not(condition))
    assert not true & false


# Nulls, one by one.


UNKNOWN_WIDTH = {key for key, record in RECORDS.items() if record.metadata.width is None}


@pytest.mark.parametrize(
    "condition",
    [
        Compare("width", ">", 10),
        Compare("width", "!=", 10),
        Compare("width", "<", 1e30),
        Compare("width", "=", 0.5),
        OneOf("width", (1, 2)),
        OneOf("width", ()),
    ],
)
def test_an_empty_field_is_neither_in_a_comparison_nor_in_its_negation(store, condition):
    assert UNKNOWN_WIDTH
    assert selected(store, condition).isdisjoint(UNKNOWN_WIDTH)
    assert selected(store, Not(condition)).isdisjoint(UNKNOWN_WIDTH)
    assert selected(store, Or((condition, Not(condition)))) == set(RECORDS) - UNKNOWN_WIDTH


def test_unknown_or_true_is_true_and_unknown_and_false_is_false(store):
    unknown, true = Compare("width", ">", 10), IsNull("width")
    assert selected(store, Or((unknown, true))) >= UNKNOWN_WIDTH
    assert selected(store, Not(And((unknown, Not(true))))) >= UNKNOWN_WIDTH


def test_pictures_without_keywords_have_no_word(store):
    without = {key for key, record in RECORDS.items() if not record.metadata.keywords}
    assert without
    assert selected(store, Not(HasWord("keywords", "dog"))) >= without
    assert selected(store, IsNull("keywords")) == without


def test_a_date_bound_includes_its_whole_span(store):
    def dates(operator, value):
        found = selected(store, Compare("taken_at", operator, value))
        return {RECORDS[key].metadata.taken_at[:10] for key in found}

    assert "2024-05-31" in dates("<=", "2024-05")
    assert "2024-05-31" not in dates("<", "2024-05")
    assert "2024-06-01" not in dates("<=", "2024-05")
    assert dates("=", "2024-05") == {"2024-05-01", "2024-05-31"}
    assert dates(">", "2024-05") == {"2024-06-01", "9999-12-31"}
    assert dates("<=", "9999") == {r.metadata.taken_at[:10] for r in RECORDS.values() if r.metadata.taken_at}


def test_an_offset_counts_for_file_times_and_not_for_the_cameras_clock(store):
    noon_utc = {key for key, record in RECORDS.items() if record.mtime == "2024-05-01T12:00:00Z"}
    assert noon_utc
    assert selected(store, Compare("mtime", "=", "2024-05-01T14:00:00+02:00")) == noon_utc
    noon = {key for key, record in RECORDS.items() if record.metadata.taken_at == "2024-05-01T12:00:00"}
    assert selected(store, Compare("taken_at", "=", "2024-05-01T12:00:00+09:00")) == noon


# Places.


def at(lat, lon):
    return Near(lat, lon, 0), {
        k for k, r in RECORDS.items() if (r.metadata.lat, r.metadata.lon) == (lat, lon)
    }


def test_a_place_is_near_itself(store):
    condition, there = at(51.5, -0.1)
    assert there
    assert selected(store, condition) >= there


@pytest.mark.parametrize(("lat", "lon", "km"), [(0, 179.95, 20), (0, -179.95, 20), (90, 0, 12), (-90, 77, 1)])
def test_poles_and_the_antimeridian_are_no_edges(store, lat, lon, km):
    found = selected(store, Near(lat, lon, km))
    assert found == expected(Near(lat, lon, km))
    longitudes = {RECORDS[key].metadata.lon for key in found}
    assert len(longitudes) > 1


def test_half_the_circumference_reaches_everything(store):
    placed = {k for k, r in RECORDS.items() if r.metadata.lat is not None and r.metadata.lon is not None}
    assert selected(store, Near(10, 20, 20_100)) == placed
    assert selected(store, Near(10, 20, 1e9)) == placed
    assert selected(store, Not(Near(10, 20, 1e9))) == set()


# Shape and refusal.


def nested(levels):
    condition = Compare("width", ">", 0)
    for level in range(levels):
        condition = (And if level % 2 else Or)((Not(Under("/a")), Not(condition)))
    return condition


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_the_engine_takes_the_deepest_expression_and_a_filter_around_it(store, levels):
    condition = And((nested(levels), Not(Compare("taken_at", "=", "2024"))))
    assert selected(store, condition) == expected(condition)


def test_deeper_conditions_are_refused_before_the_engine_sees_them():
    with pytest.raises(UsageError, match="deep"):
        to_sql(nested(40))
    with pytest.raises(UsageError, match="deep"):
        to_sql(nested(800))


def test_many_nots_and_wide_joins_are_flat(store):
    condition = Compare("width", "=", 100)
    for _ in range(10_001):
        condition = Not(condition)
    assert to_sql(condition) == "width != 100"
    wide = Or(tuple(Compare("width", "=", n) for n in range(2_000)))
    assert selected(store, wide) == selected(
        store, And((Compare("width", ">=", 0), Compare("width", "<", 2_000)))
    )


@pytest.mark.parametrize(
    "condition",
    [
        Compare("width; DROP TABLE x", "=", 1),
        Compare("width", "= 1 OR 1", 1),
        Compare("width", "=", "1"),
        Compare("width", ">", math.nan),
        Compare("lat", ">", math.inf),
        Compare("name", "=", 1),
        Compare("taken_at", "=", "soon"),
        Compare("keywords", "=", "dog"),
        OneOf("nothing", ("x",)),
        OneOf("name", ("x", 1)),
        OneOf("iso", (1, math.inf)),
        Like("width", "1%"),
        HasWord("name", "dog"),
        IsNull("nothing"),
        Near(math.nan, 0, 1),
        Near(0, 0, math.inf),
        Near(0, 0, -1),
    ],
)
def test_what_does_not_fit_the_fields_is_refused(condition):
    with pytest.raises(UsageError):
        to_sql(condition)
    with pytest.raises(UsageError):
        to_sql(Not(condition))


def test_an_endless_pattern_is_answered_or_refused_as_an_error_of_ours(store):
    assert selected(store, Like("caption", "_" * 3_900)) == set()
    assert selected(store, Like("caption", "%a" * 1_900)) == set()
