from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imagedbd.datatypes import (
    RECORD_FIELDS,
    And,
    Compare,
    HasWord,
    IsNull,
    Like,
    Not,
    OneOf,
    Or,
    Under,
)
from imagedbd.errors import ExpressionError, UsageError
from imagedbd.expressions import MAX_DEPTH, MAX_LENGTH, all_of, date_span, parse

WIDE = Compare("width", ">", 1)
TALL = Compare("height", ">", 2)
DOG = HasWord("keywords", "dog")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("width = 5", Compare("width", "=", 5)),
        ("width == 5", Compare("width", "=", 5)),
        ("width != 5", Compare("width", "!=", 5)),
        ("width <> 5", Compare("width", "!=", 5)),
        ("width < 5", Compare("width", "<", 5)),
        ("width<=5", Compare("width", "<=", 5)),
        ("width>-5", Compare("width", ">", -5)),
        ("width >= +5", Compare("width", ">=", 5)),
        ("WIDTH >= 1024.5", Compare("width", ">=", 1024.5)),
        ("lat < -33.9", Compare("lat", "<", -33.9)),
        ("exposure_s = 4e-3", Compare("exposure_s", "=", 0.004)),
        ("f_number = .5", Compare("f_number", "=", 0.5)),
        ("f_number = 5.", Compare("f_number", "=", 5.0)),
        ("size > 1E6", Compare("size", ">", 1_000_000.0)),
        ("name = 'it''s'", Compare("name", "=", "it's")),
        ('name = "a ""b"" \'c\'"', Compare("name", "=", "a \"b\" 'c'")),
        ("name = ''", Compare("name", "=", "")),
        ("name = 'a\nb AND '", Compare("name", "=", "a\nb AND ")),
        ("taken_at = '2024-05'", Compare("taken_at", "=", "2024-05")),
        ("taken_at < 2024-05-01", Compare("taken_at", "<", "2024-05-01")),
        ("taken_at < 2024-05", Compare("taken_at", "<", "2024-05")),
        ("taken_at < 2024", Compare("taken_at", "<", "2024")),
        ("taken_at < 2024-05-01T12:30", Compare("taken_at", "<", "2024-05-01T12:30")),
        ("mtime > '2024-05-01T12:00:00+02:00'", Compare("mtime", ">", "2024-05-01T12:00:00+02:00")),
        ("mtime > 2024-05-01T12:00:00Z", Compare("mtime", ">", "2024-05-01T12:00:00Z")),
        ("rating IN (1)", OneOf("rating", (1,))),
        ("rating in (1, 2.5,-3)", OneOf("rating", (1, 2.5, -3))),
        ("format NOT IN ('PNG', \"GIF\")", Not(OneOf("format", ("PNG", "GIF")))),
        ("taken_at IN (2023, '2024-05')", OneOf("taken_at", ("2023", "2024-05"))),
        ("iso BETWEEN 100 AND 400", And((Compare("iso", ">=", 100), Compare("iso", "<=", 400)))),
        ("iso not between 1 and 2", Not(And((Compare("iso", ">=", 1), Compare("iso", "<=", 2))))),
        ("name LIKE 'IMG\\_%'", Like("name", "IMG\\_%")),
        ("name NOT LIKE '%.png'", Not(Like("name", "%.png"))),
        ("lens ilike '%50mm%'", Like("lens", "%50mm%", ignore_case=True)),
        ("lens NOT ILIKE 'a'", Not(Like("lens", "a", ignore_case=True))),
        ("lens IS NULL", IsNull("lens")),
        ("keywords IS NULL", IsNull("keywords")),
        ("lens IS NOT NULL", Not(IsNull("lens"))),
        ("'dog' IN keywords", DOG),
        ("'dog' NOT IN keywords", Not(DOG)),
        ("path UNDER '/photos/2024'", Under("/photos/2024")),
        ("path under '//photos/./x/../2024//'", Under("/photos/2024")),
        ("path UNDER '/'", Under("/")),
        ("path NOT UNDER '/a'", Not(Under("/a"))),
        ("NOT 'dog' IN keywords", Not(DOG)),
        ("NOT NOT 'dog' IN keywords", DOG),
        ("width > 1 AND height > 2", And((WIDE, TALL))),
        ("width > 1 and height > 2 And 'dog' in keywords", And((WIDE, TALL, DOG))),
        ("width > 1 OR height > 2 AND 'dog' IN keywords", Or((WIDE, And((TALL, DOG))))),
        ("(width > 1 OR height > 2) AND 'dog' IN keywords", And((Or((WIDE, TALL)), DOG))),
        ("NOT width > 1 AND height > 2", And((Not(WIDE), TALL))),
        ("NOT (width > 1 AND height > 2)", Not(And((WIDE, TALL)))),
        ("width > 1 AND (height > 2 AND 'dog' IN keywords)", And((WIDE, TALL, DOG))),
        ("((((width > 1))))", WIDE),
        ("not(width>1)or(height>2)", Or((Not(WIDE), TALL))),
    ],
)
def test_every_form_is_understood(text, condition):
    assert parse(text) == condition


@pytest.mark.parametrize("field", RECORD_FIELDS)
def test_every_field_is_known(field):
    assert parse(f"{field} IS NULL") == IsNull(field)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "empty"),
        (" \n", 0, "empty"),
        ("widht > 3", 0, "Did you mean width"),
        ("width > 1 AND colour = 'x'", 14, "The fields are id, path"),
        ("'a' IN tags", 7, "no field 'tags'"),
        ("width > 'big'", 8, "width is a whole number, and 'big' is text"),
        ("width IN (1, 'x')", 13, "whole number"),
        ("width BETWEEN 1 AND 2024-05", 20, "is a date"),
        ("f_number > 'x'", 11, "f_number is a number"),
        ("name = 5", 7, "put it in quotes"),
        ("name = 2024-05", 7, "put it in quotes"),
        ("taken_at = 'yesterday'", 11, "taken_at is a date"),
        ("taken_at > 2024-13", 11, "write 2024"),
        ("taken_at > '2023-02-29'", 11, "write 2024"),
        ("taken_at > 99999", 11, "write 2024"),
        ("taken_at > 0000", 11, "write 2024"),
        ("width LIKE '1%'", 0, "LIKE compares text"),
        ("taken_at ILIKE '2024%'", 0, "ILIKE compares text"),
        ("keywords = 'dog'", 0, "'word' IN keywords"),
        ("keywords LIKE 'dog'", 0, "'word' IN keywords"),
        ("keywords IN ('dog')", 0, "'word' IN keywords"),
        ("'dog' IN name", 9, "name is text"),
        ("name UNDER '/a'", 0, "path UNDER"),
        ("path UNDER 'photos'", 11, "begins with /"),
        ("width > 1e999", 8, "too large"),
        ("width", 5, "Expected a comparison"),
        ("width 5", 6, "Expected a comparison"),
        ("width >", 7, "Expected a value"),
        ("width > AND", 8, "Expected a value"),
        ("camera_make = Canon", 14, "quotes: 'Canon'"),
        ("width > height", 8, "another"),
        ("width < 1/0", 8, "divided by 0"),
        (f"width < {'9' * 400}/1", 8, "too large"),
        ("width < 1/", 9, "means nothing here"),
        ("width < 1/2/3", 11, "means nothing here"),
        ("taken_at < 2024/05", 11, "write 2024, 2024-05"),
        ("width > 1 height > 2", 10, "Expected AND, OR or the end"),
        ("width > 1 AND", 13, "Expected a condition"),
        ("AND width > 1", 0, "Expected a condition"),
        ("5 < width", 0, "Expected a condition"),
        ("(width > 1", 10, "Expected ')'"),
        ("width > 1)", 9, "Expected the end"),
        ("()", 1, "Expected a condition"),
        ("width IN ()", 10, "Expected a value"),
        ("width IN (1", 11, "Expected ')' or ','"),
        ("width IN 1", 9, "Expected '('"),
        ("width BETWEEN 1", 15, "Expected AND"),
        ("width IS 5", 9, "Expected NOT or NULL"),
        ("width NOT > 5", 10, "Expected BETWEEN, ILIKE, IN, LIKE or UNDER"),
        ("name LIKE 5", 10, "Expected text in quotes"),
        ("'dog'", 5, "Expected IN or NOT"),
        ("'dog' IN ('dog')", 9, "Expected keywords"),
        ("name = 'open", 7, "never closed"),
        ("name = \"open'", 7, "never closed"),
        ("width > 5px", 8, "malformed"),
        ("width > 1.2.3", 8, "malformed"),
        ("width > 1; DROP TABLE x", 9, "means nothing here"),
        ("width > 1 -- x", 10, "malformed"),
        ("width > 1 /* x */", 10, "means nothing here"),
        ("width > $1", 8, "means nothing here"),
        ("\ud800", 0, "means nothing here"),
    ],
)
def test_every_fault_is_told_with_its_place_and_what_would_help(text, position, words):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert words in caught.value.message
    assert (caught.value.position, caught.value.expression) == (position, text)


# Hostile input.


def nested(levels):
    text = "width > 1"
    for level in range(levels):
        text = f"(height > 2 {'AND' if level % 2 else 'OR'} {text})"
    return text


def test_nesting_is_bounded():
    parse(nested(MAX_DEPTH))
    with pytest.raises(ExpressionError, match="nest more than"):
        parse(nested(MAX_DEPTH + 1))


def test_parentheses_and_nots_alone_do_not_nest():
    assert parse("(" * 1_000 + "width > 1" + ")" * 1_000) == WIDE
    assert parse("NOT " * 900 + "width > 1") == WIDE


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "(" * MAX_LENGTH,
        "(" * 10_000 + "width > 1" + ")" * 10_000,
        "NOT " * 999,
        "NOT(" * 999,
        "width > 1 AND " * 250,
        "'" * 3_999,
        '"' * 3_999,
        "width > " + "9" * 3_990 + "x",
        "width IN (" + "1," * 1_900,
        "a" * MAX_LENGTH,
        "a" * 10**6,
        "-" * 3_000,
        "width > 1e" + "9" * 3_000,
        "\0" * 100,
    ],
    ids=range(15),
)
def test_hostile_text_is_refused_quickly(text):
    start = time.thread_time()
    with pytest.raises(ExpressionError):
        parse(text)
    assert time.thread_time() - start < 2


def test_wide_expressions_are_taken_up_to_the_length():
    assert len(parse(" OR ".join(["iso=1"] * 440)).operands) == 440
    assert len(parse(f"width IN ({','.join('1' * 1_900)})").values) == 1_900
    assert parse("width < " + "9" * 3_900) == Compare("width", "<", int("9" * 3_900))


_KEYWORDS = ["AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "ILIKE", "IS", "NULL", "UNDER"]
_VALUES = ["1", "-2.5", "1e9", "'x'", '"y"', "'/a'", "2024-05", "'2024-05-01'"]
_MARKS = [*"()=<>,'\"%-.;\\é\0", "<=", "<>", "--"]
_PIECES = st.sampled_from([*RECORD_FIELDS, *_KEYWORDS, *_VALUES, *_MARKS])


@settings(max_examples=400, deadline=1_000)
@given(st.text() | st.lists(_PIECES).map(" ".join) | st.lists(_PIECES).map("".join))
@example("'' IN keywords")
def test_any_text_is_a_condition_or_an_expression_error(text):
    fault = None
    try:
        parse(text)
    except ExpressionError as error:
        fault = error
    assert fault is None or (fault.message and 0 <= fault.position <= len(text))


# Joining.


def test_all_of_joins_what_there_is():
    assert all_of([]) is None
    assert all_of([None, None]) is None
    assert all_of([None, WIDE]) == WIDE
    assert all_of([And((WIDE, TALL)), None, DOG]) == And((WIDE, TALL, DOG))


# Dates.


@pytest.mark.parametrize(
    ("value", "start", "after"),
    [
        ("2024", "2024-01-01T00:00:00", "2025-01-01T00:00:00"),
        ("0001", "0001-01-01T00:00:00", "0002-01-01T00:00:00"),
        ("2024-05", "2024-05-01T00:00:00", "2024-06-01T00:00:00"),
        ("2024-12", "2024-12-01T00:00:00", "2025-01-01T00:00:00"),
        ("2024-02-28", "2024-02-28T00:00:00", "2024-02-29T00:00:00"),
        ("2024-05-31", "2024-05-31T00:00:00", "2024-06-01T00:00:00"),
        ("2024-05-01T23", "2024-05-01T23:00:00", "2024-05-02T00:00:00"),
        ("2024-05-01T12:59", "2024-05-01T12:59:00", "2024-05-01T13:00:00"),
        ("2024-05-01 12:30:59", "2024-05-01T12:30:59", "2024-05-01T12:31:00"),
        ("2024-05-01T12:30:59.75", "2024-05-01T12:30:59", "2024-05-01T12:31:00"),
        ("2024-05-01T12:30:59-05:00", "2024-05-01T12:30:59", "2024-05-01T12:31:00"),
        ("9999", "9999-01-01T00:00:00", "9999-12-31T23:59:60"),
        ("9999-12", "9999-12-01T00:00:00", "9999-12-31T23:59:60"),
        ("9999-12-31T23:59:59", "9999-12-31T23:59:59", "9999-12-31T23:59:60"),
    ],
)
def test_a_date_is_the_span_that_it_names(value, start, after):
    assert date_span(value) == (start, after)


@pytest.mark.parametrize(
    ("value", "start"),
    [
        ("2024-05-01T12:00:00+02:00", "2024-05-01T10:00:00"),
        ("2024-05-01T12:00:00-0530", "2024-05-01T17:30:00"),
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00"),
        ("2024-05-01T12:00:00", "2024-05-01T12:00:00"),
        ("2024-01-01T00:30+01:00", "2023-12-31T23:30:00"),
    ],
)
def test_an_offset_is_converted_for_dates_that_are_stored_in_utc(value, start):
    assert date_span(value, utc=True)[0] == start


@pytest.mark.parametrize(
    "value",
    [
        "",
        "24",
        "2024-",
        "2024-00",
        "2024-13",
        "2024-02-30",
        "0000",
        "2024-05-01T24",
        "2024-05-01T12:60",
        "2024-5-1",
        "2024-05-01T",
        "2024-05-01Z",
        "2024-05-01T12:00:00+2",
        "20240501",
        "２０２４",
        " 2024",
        "2024-05-01T12:00:00.x",
    ],
)
def test_what_is_no_date_is_refused(value):
    with pytest.raises(UsageError, match="is no date"):
        date_span(value)


def test_a_date_that_leaves_the_calendar_by_its_offset_is_refused():
    with pytest.raises(UsageError, match="is no date"):
        date_span("0001-01-01T00:00:00+01:00", utc=True)


@pytest.mark.parametrize(("text", "value"), [("1/60", 1 / 60), ("+3/2", 1.5), ("-1/4", -0.25)])
def test_exposures_may_be_written_as_fractions(text, value):
    assert parse(f"exposure_s < {text}") == Compare("exposure_s", "<", value)
