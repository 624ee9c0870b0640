"""Numbers and names as people read them."""

from __future__ import annotations

import pytest

from imagedbd.cli import output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("père 写真 👩‍💻", "père 写真 👩‍💻"),
        ("no\u202fbreak", "no\u202fbreak"),
        ("a\nb\tc\x1b[2J\x7f", r"a\nb\tc\x1b[2J\x7f"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("right\u202eleft\u2028line", r"right\u202eleft\u2028line"),
    ],
)
def test_printable(text, shown):
    assert output.printable(text) == shown


def test_paths_are_shortened_where_that_is_shorter(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert output.short_path(f"{tmp_path}/here/a.jpg") == "a.jpg"
    assert output.home_path(f"{tmp_path}/here/a.jpg") == "~/here/a.jpg"
    assert output.short_path(f"{tmp_path}/b.jpg") == "~/b.jpg"
    assert output.short_path(f"{tmp_path}-other/b.jpg") == f"{tmp_path}-other/b.jpg"
    monkeypatch.chdir("/")
    assert output.short_path("/x/a.jpg") == "/x/a.jpg"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (91, "2 min"),
        (3599, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (190_000, "2 d 4 h"),
    ],
)
def test_duration(seconds, text):
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (12_300_000, "12.3 MB"),
        (5e12, "5.0 TB"),
    ],
)
def test_byte_size(size, text):
    assert output.byte_size(size) == text


def test_count():
    assert [output.count(n, "picture") for n in (0, 1, 1204)] == ["0 pictures", "1 picture", "1,204 pictures"]
