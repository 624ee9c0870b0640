"""Words are folded alike wherever they come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedbd.text import fault, fold, query_words, searchable, words


@pytest.mark.parametrize(
    ("one", "other"),
    [("Zürich", "ZURICH"), ("Straße", "strasse"), ("ﬁne", "FINE"), ("Ｃａｔ", "cat"), ("I\u0307", "i")],
)
def test_spellings_of_a_word_are_one(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_bytes_that_are_not_utf8_do_no_harm() -> None:
    assert words("a\udcffb") == ["a", "b"]


def test_words_are_split_at_everything_that_is_no_letter_or_digit() -> None:
    assert words("IMG_0042-edited (1).jpg") == ["img", "0042", "edited", "1", "jpg"]


def test_filler_is_left_out_of_a_query_unless_it_is_all_there_is() -> None:
    assert query_words("a dog on the beach, the dog") == ["dog", "beach"]
    assert query_words("to the") == ["to", "the"]
    assert query_words("?!") == []


def test_searchable_text_has_each_word_once() -> None:
    assert searchable(["Red car", None, "", "CAR park"]) == "red car park"


def test_a_fault_is_told_without_its_number() -> None:
    assert fault(OSError(28, "No space left on device", "/mnt/a")) == "No space left on device (/mnt/a)"
    assert fault(OSError(5, "Input/output error")) == "Input/output error"
    assert fault(OSError("all is lost")) == "all is lost"
    assert fault(ValueError()) == "ValueError"
