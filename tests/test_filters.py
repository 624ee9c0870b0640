"""Conditions select what a plain reading of them in Python selects, whichever engine evaluates them.

The engines are a store on LanceDB and masks over Arrow columns, in one chunk and in many. For more random
trees than by default: ``IMAGEDBD_FILTER_EXAMPLES=20000 pytest -n0 tests/test_filters.py``.
"""

from __future__ import annotations

import math
import os

import pytest
from filtering import (
    DATES,
    ENGINES,
    INTEGERS,
    LATITUDES,
    LONGITUDES,
    NUMBERS,
    OPERATORS,
    PATHS,
    RECORDS,
    TEXTS,
    WORDS,
    expected,
    open_engines,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagedbd.datatypes import (
    RECORD_FIELDS,
    And,
    Compare,
    FieldType,
    HasWord,
    IsNull,
    Like,
    Near,
    Not,
    OneOf,
    Or,
    Under,
)
from imagedbd.errors import UsageError
from imagedbd.expressions import MAX_DEPTH
from imagedbd.stores import masks
from imagedbd.stores.filters import MAX_WILDCARDS, lowered
from imagedbd.stores.lance_sql import to_sql
from imagedbd.stores.rows import to_arrow

# Conditions.

PLAIN_FIELDS = {
    kind: st.sampled_from([name for name, of in RECORD_FIELDS.items() if of is kind]) for kind in FieldType
}
some_text = st.sampled_from([*TEXTS, *PATHS, "JPEG", "id3", "3"]) | st.text(max_size=4)
some_number = (
    st.sampled_from(
        [*INTEGERS, *NUMBERS, 0.5, 1024.5, -0.5, 1e19, -1e19, 2**63, -(2**63), 10**400, -(10**400)]
    )
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
    FieldType.NUMBER: some_number,
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
def engines(tmp_path_factory):
    engines = open_engines(os.fspath(tmp_path_factory.mktemp("filters") / "store"))
    yield engines
    engines["lance"].store.close()


@pytest.fixture(params=ENGINES)
def engine(request, engines):
    return engines[request.param]


def check(engines, condition):
    wanted = expected(condition)
    for name, engine in engines.items():
        assert engine.selected(condition) == wanted, name
    return wanted


EXAMPLES = int(os.environ.get("IMAGEDBD_FILTER_EXAMPLES", "320"))
random_examples = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
enough_time = pytest.mark.timeout(600 + EXAMPLES // 10)


@enough_time
@random_examples
@given(conditions)
def test_random_conditions_select_what_the_reference_selects(engines, condition):
    check(engines, condition)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(random_examples, max_examples=5_000)
@given(conditions)
def test_thousands_of_random_conditions_select_what_the_reference_selects(engines, condition):
    check(engines, condition)


@enough_time
@settings(random_examples, max_examples=EXAMPLES // 8)
@given(leaves)
def test_a_comparison_its_negation_and_the_unknown_share_out_the_rows(engines, condition):
    true, false = check(engines, condition), check(engines, Not(condition))
    assert not true & false
    assert engines["lance"].store.count(condition) == len(true)


@enough_time
@settings(random_examples, max_examples=EXAMPLES // 4)
@given(pattern=some_pattern, field=PLAIN_FIELDS[FieldType.TEXT], ignore_case=st.booleans())
def test_patterns_too_long_for_a_regular_expression_match_alike(engines, pattern, field, ignore_case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_MAX_REGEX", 0)
        condition = Like(field, pattern, ignore_case)
        assert engines["masks of many chunks"].selected(condition) == expected(condition)


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
def test_an_empty_field_is_neither_in_a_comparison_nor_in_its_negation(engine, condition):
    assert UNKNOWN_WIDTH
    assert engine.selected(condition).isdisjoint(UNKNOWN_WIDTH)
    assert engine.selected(Not(condition)).isdisjoint(UNKNOWN_WIDTH)
    assert engine.selected(Or((condition, Not(condition)))) == set(RECORDS) - UNKNOWN_WIDTH


def test_unknown_or_true_is_true_and_unknown_and_false_is_false(engine):
    unknown, true = Compare("width", ">", 10), IsNull("width")
    assert engine.selected(Or((unknown, true))) >= UNKNOWN_WIDTH
    assert engine.selected(Not(And((unknown, Not(true))))) >= UNKNOWN_WIDTH


def test_pictures_without_keywords_have_no_word(engine):
    without = {key for key, record in RECORDS.items() if not record.metadata.keywords}
    assert without
    assert engine.selected(Not(HasWord("keywords", "dog"))) >= without
    assert engine.selected(IsNull("keywords")) == without


def test_a_date_bound_includes_its_whole_span(engine):
    def dates(operator, value):
        found = engine.selected(Compare("taken_at", operator, value))
        return {RECORDS[key].metadata.taken_at[:10] for key in found}

    assert "2024-05-31" in dates("<=", "2024-05")
    assert "2024-05-31" not in dates("<", "2024-05")
    assert "2024-06-01" not in dates("<=", "2024-05")
    assert dates("=", "2024-05") == {"2024-05-01", "2024-05-31"}
    assert dates(">", "2024-05") == {"2024-06-01", "9999-12-31"}
    assert dates("<=", "9999") == {r.metadata.taken_at[:10] for r in RECORDS.values() if r.metadata.taken_at}


def test_an_offset_counts_for_file_times_and_not_for_the_cameras_clock(engine):
    noon_utc = {key for key, record in RECORDS.items() if record.mtime == "2024-05-01T12:00:00Z"}
    assert noon_utc
    assert engine.selected(Compare("mtime", "=", "2024-05-01T14:00:00+02:00")) == noon_utc
    noon = {key for key, record in RECORDS.items() if record.metadata.taken_at == "2024-05-01T12:00:00"}
    assert engine.selected(Compare("taken_at", "=", "2024-05-01T12:00:00+09:00")) == noon


# Places.


def at(lat, lon):
    return Near(lat, lon, 0), {
        k for k, r in RECORDS.items() if (r.metadata.lat, r.metadata.lon) == (lat, lon)
    }


def test_a_place_is_near_itself(engine):
    condition, there = at(51.5, -0.1)
    assert there
    assert engine.selected(condition) >= there


@pytest.mark.parametrize(("lat", "lon", "km"), [(0, 179.95, 20), (0, -179.95, 20), (90, 0, 12), (-90, 77, 1)])
def test_poles_and_the_antimeridian_are_no_edges(engine, lat, lon, km):
    found = engine.selected(Near(lat, lon, km))
    assert found == expected(Near(lat, lon, km))
    longitudes = {RECORDS[key].metadata.lon for key in found}
    assert len(longitudes) > 1


def test_half_the_circumference_reaches_everything(engine):
    placed = {k for k, r in RECORDS.items() if r.metadata.lat is not None and r.metadata.lon is not None}
    assert engine.selected(Near(10, 20, 20_100)) == placed
    assert engine.selected(Near(10, 20, 1e9)) == placed
    assert engine.selected(Not(Near(10, 20, 1e9))) == set()


# Shape and refusal.


def nested(levels):
    condition = Compare("width", ">", 0)
    for level in range(levels):
        condition = (And if level % 2 else Or)((Not(Under("/a")), Not(condition)))
    return condition


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_the_engine_takes_the_deepest_expression_and_a_filter_around_it(engine, levels):
    condition = And((nested(levels), Not(Compare("taken_at", "=", "2024"))))
    assert engine.selected(condition) == expected(condition)


def test_deeper_conditions_are_refused_before_an_engine_sees_them():
    with pytest.raises(UsageError, match="deep"):
        lowered(nested(40))
    with pytest.raises(UsageError, match="deep"):
        lowered(nested(800))


def test_many_nots_and_wide_joins_are_flat(engine):
    condition = Compare("width", "=", 100)
    for _ in range(10_001):
        condition = Not(condition)
    assert to_sql(condition) == "width != 100"
    wide = Or(tuple(Compare("width", "=", n) for n in range(2_000)))
    assert engine.selected(wide) == engine.selected(
        And((Compare("width", ">=", 0), Compare("width", "<", 2_000)))
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
        lowered(condition)
    with pytest.raises(UsageError):
        lowered(Not(condition))


@pytest.mark.parametrize(
    "pattern",
    ["_" * (MAX_WILDCARDS - 1) + "%", "%_" * (MAX_WILDCARDS - 1), "%a" * MAX_WILDCARDS, "%" * 3_000],
)
def test_a_pattern_may_have_many_wildcards(engine, pattern):
    assert engine.selected(Like("caption", pattern)) == expected(Like("caption", pattern))


@pytest.mark.parametrize("pattern", ["_" * (MAX_WILDCARDS + 1), "%_" * 1_900, "%a" * (MAX_WILDCARDS + 1)])
def test_more_wildcards_than_an_engine_bears_are_refused(pattern):
    with pytest.raises(UsageError, match="wildcards"):
        lowered(Not(Like("caption", pattern)))


@pytest.mark.parametrize(
    "pattern",
    [
        "a" * 300 + "%",
        "a" * 300 + "_",
        "a" * 301 + "_",
        "%" + "a" * 299 + "_%",
        "%_" + "a" * 298 + "%é",
        ("a" * 30 + "%") * 10 + "_",
        ("a" * 30 + "%") * 10 + "a_",
        "%a" * 90 + "a" * 210 + "%é",
        "%a" * 90 + "a" * 211 + "%é",
        "\\" * 4_000,
        "%x_" + "ﷺ" * 400,
    ],
)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_long_patterns_match_whatever_way_they_go(engine, pattern, ignore_case):
    condition = Like("caption", pattern, ignore_case)
    assert engine.selected(condition) == expected(condition)


# Values that engines are known to disagree on.


def test_zero_has_no_sign(engine):
    zero = {key for key, record in RECORDS.items() if record.metadata.focal_mm == 0}
    assert {math.copysign(1, RECORDS[key].metadata.focal_mm) for key in zero} == {1, -1}
    for value in (0.0, -0.0, 0):
        assert engine.selected(Compare("focal_mm", "=", value)) == zero
        assert engine.selected(OneOf("focal_mm", (value, 7.5))) == zero
        assert engine.selected(Compare("focal_mm", "<", value)).isdisjoint(zero)
        assert engine.selected(Compare("focal_mm", ">=", value)) >= zero
        assert engine.selected(Compare("focal_mm", "<=", value)) >= zero


@pytest.mark.parametrize("value", [2**53 - 1, 2**53, 2**53 + 1, 2**53 + 3, 10**400, -(10**400), 2**1024])
@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_a_number_between_two_floats_equals_neither(engine, operator, value):
    condition = Compare("focal_mm", operator, value)
    assert engine.selected(condition) == expected(condition)


@pytest.mark.parametrize(
    "text", ["", "\0", "a\0", "é", "\ud7ff", "\ue000", "\uffff", "😀", "\udcff", "İ", "ß"]
)
@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_text_is_ordered_by_code_points(engine, operator, text):
    for field in ("caption", "folder", "path"):
        condition = Compare(field, operator, text)
        assert engine.selected(condition) == expected(condition)


def test_an_empty_field_is_in_none_of_two_lists_and_not_outside_them_either(engine):
    condition = Or((Not(OneOf("format", ("JPEG",))), Not(OneOf("format", ("PNG", "TIFF")))))
    assert engine.selected(condition) == expected(condition)
    assert engine.selected(Not(condition)) == expected(Not(condition))


@pytest.mark.parametrize(
    "dates",
    [
        ("2024-05", "2024-05", "2024-05-31"),
        ("2024-06", "2024-05", "2023"),
        ("2024-05-01T12", "2023-12", "0001", "2024-05-01"),
        ("9999", "2024-02", "2024-06-01T00:00"),
    ],
)
def test_dates_may_overlap_and_follow_on_each_other(engine, dates):
    condition = OneOf("taken_at", dates)
    assert engine.selected(condition) == expected(condition)
    assert engine.selected(Not(condition)) == expected(Not(condition))


def test_a_long_list_of_years_is_one_span():
    years = tuple(str(year) for year in range(1990, 2024))
    assert lowered(OneOf("taken_at", years[::-1])) == lowered(
        And((Compare("taken_at", ">=", "1990"), Compare("taken_at", "<=", "2023")))
    )


# A table of its own.


@pytest.mark.parametrize("table", [to_arrow([], None, ""), to_arrow([], None, "").schema.empty_table()])
def test_no_rows_give_an_empty_mask(table):
    for condition in (
        Compare("width", ">", 1),
        OneOf("name", ("a",)),
        Like("name", "a%b"),
        Like("name", "a%_" * 40 + "b" * 300),
        IsNull("keywords"),
        HasWord("keywords", "dog"),
        Not(HasWord("keywords", "dog")),
        Not(Under("/a")),
        Near(0, 0, 1),
        Not(And(())),
    ):
        assert masks.mask(condition, table).tolist() == []
