"""``2:dog + ./pool.jpg - snow``: what is added and subtracted, and what stays plain words."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imagedbd.cli.notation import MAX_TERMS, Term, parse
from imagedbd.errors import UsageError

PICTURES = {"./pool.jpg", "a b.jpg", "IMG 1 - copy.jpg", "- odd +.png", "2:1.jpg", "7.jpg", 'a "b + c" d.jpg'}


def terms(query: str) -> list[Term]:
    return list(parse(query, PICTURES.__contains__))


def picture(name: str, weight: float = 1.0) -> Term:
    return Term(name, weight, is_picture=True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("2:dog + ./pool.jpg - snow", [Term("dog", 2), picture("./pool.jpg"), Term("snow", -1)]),
        ("horse + stripes", [Term("horse"), Term("stripes")]),
        ("./pool.jpg - 2:car + .5:snow", [picture("./pool.jpg"), Term("car", -2), Term("snow", 0.5)]),
        ("2:./pool.jpg", [picture("./pool.jpg", 2)]),
        ("2:dog", [Term("dog", 2)]),
        ("2: dog  +\tcat ", [Term("dog", 2), Term("cat")]),
        ("- snow", [Term("snow", -1)]),
        ("+ dog", [Term("dog")]),
        ("a + a + a", [Term("a")] * 3),
        ("1000:dog - 0.001:cat", [Term("dog", 1000), Term("cat", -0.001)]),
        ("well-lit room + c++", [Term("well-lit room"), Term("c++")]),
        ("cold - -5 degrees", [Term("cold"), Term("-5 degrees", -1)]),
        ("16:9 wallpaper + 2:forest", [Term("16:9 wallpaper"), Term("forest", 2)]),
    ],
)  # fmt: skip
def test_terms_are_joined_by_signs(query: str, expected: list[Term]) -> None:
    assert terms(query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "a red car", "black-and-white", "c++", "+1", "-5 degrees", "-snow", "a -b", "dog+cat", "dog +cat",
        "year 2:1 crop", "2:1 crop", "16:9 wallpaper", "10:30 train", "2019:05:01", "2:35mm", "1e3:dog",
        "re:zero", "nan:bread", "inf:x", "2x:dog", "٢:x", ":", "dog – snow", '5" pipe', '"red" car', '"', "❤",
    ],
)  # fmt: skip
def test_plain_words_stay_as_they_are(query: str) -> None:
    assert terms(query) == [Term(query)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("IMG 1 - copy.jpg", [picture("IMG 1 - copy.jpg")]),
        ("- odd +.png", [picture("- odd +.png")]),
        ("2:1.jpg", [picture("2:1.jpg")]),
        ('a "b + c" d.jpg', [picture('a "b + c" d.jpg')]),
        ("dog + 2:IMG 1 - copy.jpg - snow", [Term("dog"), picture("IMG 1 - copy.jpg", 2), Term("snow", -1)]),
        ("- odd +.png - - odd +.png", [picture("- odd +.png"), picture("- odd +.png", -1)]),
        ("3:2:1.jpg", [picture("2:1.jpg", 3)]),
        ("2:7.jpg + a b.jpg", [picture("7.jpg", 2), picture("a b.jpg")]),
        ("IMG 2 - copy.jpg", [Term("IMG 2"), Term("copy.jpg", -1)]),
    ],
)
def test_a_picture_that_is_there_goes_first_whatever_its_name(query: str, expected: list[Term]) -> None:
    assert terms(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('"Paris - Eiffel Tower"', [Term("Paris - Eiffel Tower")]),
        ('"2:dog" + cat', [Term("2:dog"), Term("cat")]),
        ('cat - 2:"35mm + film"', [Term("cat"), Term("35mm + film", -2)]),
        ('2:"IMG 1 - copy.jpg" + "./pool.jpg"', [picture("IMG 1 - copy.jpg", 2), picture("./pool.jpg")]),
        ('"black + white" photo - snow', [Term('"black + white" photo'), Term("snow", -1)]),
        ('"dog + cat', [Term('"dog'), Term("cat")]),
    ],
)
def test_double_quotes_take_a_term_as_it_stands(query: str, expected: list[Term]) -> None:
    assert terms(query) == expected


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "QUERY is empty"),
        (" \t", "QUERY is empty"),
        ("+", "The term '+' is empty"),
        ("+ + dog", "The term '+' is empty"),
        ("dog + ", "The term '+' is empty"),
        ("dog + - cat", "The term '+' is empty"),
        ("2:", "The term '2:' is empty"),
        ("dog - 2:", "The term '- 2:' is empty"),
        ("2: + dog", "The term '2:' is empty"),
        ('""', "is empty"),
        ("0:dog", "'0:': a weight is above 0 and at most 1000"),
        ("cat + 1000.5:dog", "'1000.5:': a weight is above 0 and at most 1000"),
        (f"{'9' * 400}:dog", "at most 1000"),
        ("cat + -2:dog", "'-2:': a weight has no sign"),
        ("0:./pool.jpg", "above 0"),
        (" + ".join("a" * (MAX_TERMS + 1)), "101 terms; 100 are the most"),
    ],
)
def test_what_is_malformed_is_refused_with_the_reason(query: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        terms(query)
    assert words in caught.value.message


PIECES = st.sampled_from(
    [
        *PICTURES,
        "+",
        "-",
        '"',
        ":",
        "2",
        "2:",
        "0:",
        "-2:",
        ".5:",
        "dog",
        "c++",
        "9",
        " ",
        "\t",
        "\udcff",
        "é",
    ]
)
QUERIES = st.text() | st.lists(PIECES).map(" ".join) | st.lists(PIECES).map("".join)
TEXTS = st.text(st.characters(exclude_characters='"'), min_size=1).filter(str.strip)
TERMS = st.builds(
    Term,
    TEXTS | st.sampled_from(sorted(name for name in PICTURES if '"' not in name)),
    st.floats(1e-3, 1000).map(lambda weight: round(weight, 3)) | st.sampled_from([1.0, 2.0]),
).flatmap(lambda term: st.sampled_from([term, Term(term.text, -term.weight)]))


def outcome(query: str) -> list[Term] | type[UsageError]:
    try:
        return terms(query)
    except UsageError:
        return UsageError


@settings(max_examples=1_000, deadline=1_000)
@given(QUERIES)
@example('2:"')
@example("- ")
def test_any_text_is_terms_or_a_usage_error(query: str) -> None:
    found = outcome(query)
    if isinstance(found, list):
        assert 1 <= len(found) <= MAX_TERMS
        assert all(term.text.strip() and 0 < abs(term.weight) <= 1000 for term in found)
        assert all(term.is_picture == (term.text in PICTURES) for term in found)


@given(QUERIES)
def test_whitespace_around_a_query_says_nothing(query: str) -> None:
    assert outcome(f" {query}\n") == outcome(query)


def written(term: Term) -> str:
    return f'{"-" if term.weight < 0 else "+"} {abs(term.weight):.3f}:"{term.text}"'


@settings(deadline=1_000)
@given(st.lists(TERMS, min_size=1, max_size=8))
def test_terms_that_are_written_down_are_read_again(expected: list[Term]) -> None:
    found = terms(" ".join(map(written, expected)))
    assert [(term.text, term.weight) for term in found] == [(term.text, term.weight) for term in expected]
