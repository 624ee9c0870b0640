"""Hostile text for ``--where``: every string has an answer by the grammar or is refused as bad usage.

Strings that are understood are put to every engine, and all must select the same rows. Each run tries others;
a failure names the seed and the string's number, and ``IMAGEDBD_FUZZ_SEED`` brings them back. The long run,
which tells what was slowest: ``IMAGEDBD_FUZZ_STRINGS=10000 pytest -n0 -s tests/test_where_fuzz.py``.
"""

from __future__ import annotations

import functools
import os
import random
import time
from collections import Counter

import pytest
from filtering import DATES, PATHS, RECORDS, TEXTS, WORDS, open_engines

from imagedbd.datatypes import RECORD_FIELDS, FieldType
from imagedbd.errors import ExpressionError, UsageError
from imagedbd.expressions import MAX_DEPTH, MAX_LENGTH, parse

STRINGS = int(os.environ.get("IMAGEDBD_FUZZ_STRINGS", "1000"))
SEED = os.environ.get("IMAGEDBD_FUZZ_SEED") or str(time.time_ns())

# Valid expressions, with hostile text where text may stand.

FIELDS = {kind: [name for name, of in RECORD_FIELDS.items() if of is kind] for kind in FieldType}
ODD_TEXTS = [
    *TEXTS,
    *PATHS,
    *WORDS,
    "'); DROP TABLE pictures; --",
    "' OR '1'='1",
    '" OR ""="',
    "\\' OR 1=1 --",
    "x' UNION SELECT * FROM pictures --",
    "*/ OR 1=1 /*",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "%s%n%x",
    "\0",
    "a\0' OR 1=1",
    "\ud800",
    "\udfff\ud800",
    "\u202egpj.exe",
    "\u2066\u200f\u200b",
    "\ufeff",
    "\ufffe\uffff",
    "e\u0301" * 50,
    "\u0300" * 200,
    "ﷺ" * 30,
    "\U0010ffff",
    "''''",
    "‘’“”´`",
    "\r\n\t\v\f\x1c\x85",
]
ODD_NUMBERS = [
    "0", "-0", "+0", "-0.0", "1e-400", "1e308", "-1.8e308", "9" * 19, "9" * 20, "-" + "9" * 20, "9" * 310,
    "9" * 3_000, "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "18446744073709551616", "0.1", ".5", "5.", "1e5", "1E+5", "0" * 500 + "1", "1." + "0" * 500 + "1",
    "4.9e-324", "1024", "100", "3",
]  # fmt: skip
ODD_DATES = [
    "2024", "0001", "9999", "0000", "2024-05", "2024-02-29", "2023-02-29", "9999-12-31",
    "2024-05-01T12:00:00Z", "2024-05-01T12:00:00+99:99", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "2024-05-01T12:00:00.123456789012345678901234567890", "2024-05-01T24:00", "2024-13", "２０２４",
]  # fmt: skip


def quoted(chosen, text):
    quote = chosen.choice("'\"")
    return quote + text.replace(quote, quote * 2) + quote


def odd_text(chosen):
    parts = chosen.choices(ODD_TEXTS, k=chosen.choice([1, 1, 1, 2, 3]))
    return quoted(chosen, "".join(parts))


def odd_pattern(chosen):
    pieces = ["%", "_", "\\", "\\%", "\\\\", *ODD_TEXTS]
    return quoted(chosen, "".join(chosen.choices(pieces, k=chosen.choice([1, 2, 3, 5, 40]))))


def literal(chosen, kind):
    match kind:
        case FieldType.TEXT:
            return odd_text(chosen)
        case FieldType.DATE:
            date = chosen.choice([*ODD_DATES, *DATES])
            return chosen.choice([date, quoted(chosen, date)])
        case _:
            return chosen.choice(ODD_NUMBERS)


def comparison(chosen):
    kind = chosen.choice([FieldType.TEXT, FieldType.INTEGER, FieldType.NUMBER, FieldType.DATE])
    field = chosen.choice(FIELDS[kind])
    text_field = chosen.choice(FIELDS[FieldType.TEXT])
    negation = chosen.choice(["", "", "NOT "])
    forms = [
        lambda: f"{field} {chosen.choice(OPERATORS)} {literal(chosen, kind)}",
        lambda: (
            f"{field} {negation}IN ({', '.join(literal(chosen, kind) for _ in range(chosen.randint(1, 6)))})"
        ),
        lambda: f"{field} {negation}BETWEEN {literal(chosen, kind)} AND {literal(chosen, kind)}",
        lambda: f"{chosen.choice([*RECORD_FIELDS])} IS {negation}NULL",
        lambda: f"path {negation}UNDER {quoted(chosen, '/' + chosen.choice(ODD_TEXTS))}",
        lambda: f"{odd_text(chosen)} {negation}IN keywords",
        lambda: f"{text_field} {negation}{chosen.choice(['LIKE', 'ILIKE'])} {odd_pattern(chosen)}",
    ]
    return chosen.choice(forms)()


OPERATORS = ["=", "==", "!=", "<>", "<", "<=", ">", ">="]


def valid(chosen, depth=0):
    if depth > 4 or chosen.random() < 0.4:
        return comparison(chosen)
    parts = [valid(chosen, depth + 1) for _ in range(chosen.randint(1, 3))]
    joined = chosen.choice([" AND ", " OR "]).join(parts)
    return f"{chosen.choice(['', '', 'NOT ', 'not'])}({joined})"


# What is done to them, and what never was one.


def mutated(chosen):
    text = valid(chosen)
    for _ in range(chosen.choice([1, 1, 2, 5])):
        place = chosen.randrange(len(text) + 1)
        end = min(len(text), place + chosen.randint(1, 6))
        text = chosen.choice(
            [
                text[:place] + text[end:],
                text[:place] + text[place:end] * 2 + text[end:],
                text[:place] + chosen.choice(MARKS) + text[place:],
                text[:place] + text[place:end].swapcase() + text[end:],
                text[:place] + text[place:end][::-1] + text[end:],
                text[:place],
                text[place:] + text[:place],
                text + chosen.choice([" AND ", " OR ", ";", ""]) + valid(chosen),
            ]
        )
    return text


def homoglyphs(chosen):
    return "".join(chosen.choice(LOOKALIKES.get(c, c)) if chosen.random() < 0.1 else c for c in valid(chosen))


LOOKALIKES = {
    "a": "аɑａ", "e": "еｅ", "i": "іıİｉ", "k": "KK", "s": "ſѕ", "o": "оοｏ", "n": "ｎո", "'": "’ʼ＇",
    '"': "“”＂", "(": "（", ")": "）", "=": "＝", "<": "＜‹", ">": "＞›", "-": "‐–−", "1": "１١", "0": "０٠O",
    " ": "\xa0\u2003\u3000\u200b",
    "I": "ІΙİ", "N": "Ν", "A": "АΑ", "%": "％", "_": "＿",
}  # fmt: skip

TOKENS = [
    *RECORD_FIELDS, "AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "ILIKE", "IS", "NULL", "UNDER", "(", ")",
    ",", "(", ")", "and", "not", "'dog'", '"x"', "1", "2024-05", "'/a'", *OPERATORS,
]  # fmt: skip
MARKS = [
    *"'\"()[]{};,.-+*/\\%_#$@!?&|^~`:=<>",
    "--",
    "/*",
    "*/",
    "''",
    "\0",
    "\n",
    "\ud800",
    "\u202e",
    "é",
    "X''",
]
INJECTIONS = [
    "1=1", "width > 1; DROP TABLE pictures", "width > 1 -- ", "width > 1 /* x */", "1 OR 1=1",
    "' OR 1=1 --", "width > (SELECT 1)", "width > 1 UNION SELECT * FROM pictures", "path_bytes = X'00'",
    "lower(name) = 'a'", "width > 1 LIMIT 1", "name = 'a' || 'b'", "true", "NULL", "*",
    "width::text = '1'", "CASE WHEN true THEN 1 END", "owner = ''", "_rowid = 1", "vector IS NULL",
    "width > $1", "width > ?", "@version", "exec xp_cmdshell('x')", "name = 'a' COLLATE x",
    "__class__ = 1", "width > 1e309", "width > 0x10", "width > 1_000", "width > NaN", "width > inf",
    "name = E'\\n'", "name = U&'x'", "name = $$x$$", "sleep(10)", "keywords[0] = 'x'",
]  # fmt: skip


def soup(chosen):
    return chosen.choice([" ", " ", ""]).join(chosen.choices(TOKENS, k=chosen.randint(1, 40)))


def injected(chosen):
    sql = chosen.choice(INJECTIONS)
    return chosen.choice([sql, f"{comparison(chosen)} {sql}", f"{sql} AND {comparison(chosen)}", f"({sql})"])


def noise(chosen):
    ranges = [(0, 0x7F), (0, 0xFF), (0, 0x10FFFF), (0xD800, 0xDFFF), (0x2000, 0x206F), (0x300, 0x36F)]
    first, last = chosen.choice(ranges)
    return "".join(chr(chosen.randint(first, last)) for _ in range(chosen.randint(0, 60)))


def nested(chosen):
    levels = chosen.choice([1, 5, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 60, 300])
    text = comparison(chosen)
    for level in range(levels):
        word = "AND" if level % 2 else "OR"
        text = f"{chosen.choice(['', '', 'NOT '])}({chosen.choice(['iso>1', 'lens IS NULL'])} {word} {text})"
    return text


def wrapped(chosen):
    times = chosen.choice([1, 50, 900, 1_900, 20_000])
    before, after = chosen.choice([("(", ")"), ("NOT ", ""), ("NOT(", ")"), ("(", ""), ("", ")")])
    return before * times + comparison(chosen) + after * times


def long(chosen):
    """Up to the bound and far beyond it."""
    length = chosen.choice([MAX_LENGTH - 60, MAX_LENGTH, MAX_LENGTH + 1, 30_000])
    unit = chosen.choice(["a", "%", "_", "%_", "a%", "''", "\\", "é", "ﷺ", "\0", "\ud800", "ß"])
    field = chosen.choice(FIELDS[FieldType.TEXT])
    body = (unit * length)[: length - len(unit)]
    date, number = f"'{chosen.choice(DATES)[:7]}'", str(chosen.randint(0, 10**6))
    forms = [
        f"{field} {chosen.choice(['=', 'LIKE', 'ILIKE', 'IN ('])} '{body}'",
        f"'{body}' IN keywords",
        f"path UNDER '/{body}'",
        " OR ".join([comparison(chosen)] * (length // 40)),
        f"width IN ({','.join([number] * (length // (len(number) + 1)))})"[:length],
        f"taken_at IN ({', '.join([date] * ((length - 15) // 11))})",
        "width>" + "9" * (length - 6),
        " OR ".join([f"iso={n}" for n in range((length - 10) // 12)]),
        " AND ".join([f"iso!={n}" for n in range((length - 10) // 13)]),
        body,
        " " * length,
    ]
    return chosen.choice(forms)


MAKERS = [valid, valid, mutated, mutated, homoglyphs, soup, injected, noise, nested, wrapped, long]


def hostile(number):
    chosen = random.Random(f"{SEED}:{number}")
    return chosen.choice(MAKERS)(chosen)


# The strings meet the grammar and the engines.


class Slowest:
    """How long the slowest of some actions took, and with which string."""

    def __init__(self):
        self.seconds, self.text = 0.0, ""

    def timed(self, text, action):
        start = time.perf_counter()
        try:
            return action()
        finally:
            self.seconds, self.text = max((self.seconds, self.text), (time.perf_counter() - start, text))


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    engines = open_engines(os.fspath(tmp_path_factory.mktemp("fuzz") / "store"))
    yield engines
    engines["lance"].store.close()


def understood(text):
    """The condition, or the error of a text that is none."""
    try:
        return parse(text)
    except ExpressionError as error:
        return error


def answer(engine, condition):
    """The ids of the rows that it selects, or why it has no answer."""
    try:
        return engine.selected(condition)
    except UsageError as error:
        return error.message


def tried(text, engines, slowest):
    """The one answer of all engines; ``None`` if the text is no expression."""
    condition = slowest["parse"].timed(text, lambda: understood(text))
    if isinstance(condition, ExpressionError):
        assert condition.exit_code == 2
        assert condition.message
        assert 0 <= condition.position <= len(text)
        return None
    answers = [
        slowest[name].timed(text, functools.partial(answer, engines[name], condition)) for name in engines
    ]
    assert all(other == answers[0] for other in answers)
    return answers[0]


@pytest.mark.timeout(600 + STRINGS // 10)
def test_hostile_text_is_answered_by_the_grammar_or_refused(engines):
    assail(engines, STRINGS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_hostile_texts_are_answered_by_the_grammar_or_refused(engines):
    assail(engines, 10_000)


def assail(engines, strings):
    rows = engines["lance"].store.count()
    slowest = {name: Slowest() for name in ("parse", *engines)}
    kinds = Counter()
    for number in range(strings):
        text = hostile(number)
        try:
            kinds[type(tried(text, engines, slowest))] += 1
        except BaseException as error:
            error.add_note(f"String {number} of IMAGEDBD_FUZZ_SEED={SEED}: {text!a}")
            raise
    assert engines["lance"].store.count() == rows == len(RECORDS)
    assert kinds[set] > strings // 10
    print(f"\nOf {strings} strings {kinds[set]} were answered, {kinds[str]} were beyond an engine.")
    for name, slow in slowest.items():
        print(f"slowest of {name}: {slow.seconds:.3f} s, {len(slow.text)} characters, {slow.text[:80]!a}")
