"""Whatever ends a write early costs the record that was not acknowledged, and nothing else."""

from __future__ import annotations

import os
import random

import pytest

from imagedbd.errors import StoreUnreadableError
from imagedbd.stores.journal import (
    create_journal,
    open_journal,
    read_journal,
    salvage_journal,
    verify_journal,
)

pytestmark = pytest.mark.in_memory


@pytest.fixture
def path(tmp_path):
    return os.fspath(tmp_path / "journal-1.log")


def payloads(count, seed=0):
    rng = random.Random(seed)
    return [rng.randbytes(rng.choice([0, 1, 10, 500])) for _ in range(count)]


def written(path, records):
    journal = create_journal(path)
    ends = [journal.length]
    for record in records:
        journal.append(record)
        ends.append(journal.length)
    journal.close()
    return ends


def read(path):
    found, end = read_journal(path)
    return [bytes(payload) for payload in found], end


def content(path):
    with open(path, "rb") as file:
        return file.read()


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)


def test_records_are_read_as_they_were_written(path):
    records = payloads(50)
    ends = written(path, records)
    assert read(path) == (records, ends[-1])
    verify_journal(path, ends[-1])


def test_an_empty_journal_has_no_records(path):
    (end,) = written(path, [])
    assert read(path) == ([], end)


def test_it_goes_on_where_it_ended(path):
    first, second = payloads(5), payloads(5, seed=1)
    ends = written(path, first)
    journal = open_journal(path, length=ends[-1], records=len(first))
    for record in second:
        journal.append(record)
    journal.close()
    assert read(path)[0] == first + second


def test_wherever_it_is_cut_the_whole_records_before_it_stay(path):
    records = payloads(6)
    ends = written(path, records)
    data = content(path)
    for cut in range(ends[0], len(data) + 1):
        put(path, data[:cut])
        whole = sum(end <= cut for end in ends[1:])
        assert read(path) == (records[:whole], ends[whole])


def test_a_torn_end_is_cut_off_when_writing_goes_on(path):
    records = payloads(4)
    ends = written(path, records)
    put(path, content(path)[:-1] + b"")
    _, end = read_journal(path)
    journal = open_journal(path, length=end, records=3)
    journal.append(b"new")
    journal.close()
    assert read(path)[0] == [*records[:3], b"new"]
    assert end == ends[3]


def test_zeros_behind_the_last_record_are_a_torn_end(path):
    records = payloads(3)
    ends = written(path, records)
    put(path, content(path) + bytes(5_000))
    assert read(path) == (records, ends[-1])


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_never_read_as_a_record(path, seed):
    records = [b"%d" % n * 20 for n in range(10)]
    ends = written(path, records)
    data = bytearray(content(path))
    position = random.Random(seed).randrange(8, len(data))
    data[position] ^= 1 << seed % 8
    put(path, data)
    hit = sum(end <= position for end in ends) - 1
    if hit == len(records) - 1:
        assert read(path)[0] == records[:-1]
    else:
        with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
            read_journal(path)
    with pytest.raises(StoreUnreadableError):
        verify_journal(path, ends[-1])
    assert [bytes(p) for p in salvage_journal(path)] == [r for n, r in enumerate(records) if n != hit]


def test_a_record_that_is_missing_in_the_middle_is_damage(path):
    ends = written(path, [b"a" * 30, b"b" * 30, b"c" * 30])
    data = content(path)
    put(path, data[: ends[1]] + data[ends[2] :])
    with pytest.raises(StoreUnreadableError):
        read_journal(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"something else entirely"])
def test_what_is_no_journal_is_reported(path, data):
    put(path, data)
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        read_journal(path)
    assert list(salvage_journal(path)) == []


def test_a_missing_journal_is_reported(path):
    with pytest.raises(StoreUnreadableError, match="No such file"):
        read_journal(path)


def test_a_record_that_the_disk_refuses_leaves_no_trace(path, monkeypatch):
    journal = create_journal(path)
    journal.append(b"first")
    before = content(path)

    def refuse(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", refuse)
        with pytest.raises(OSError, match="No space"):
            journal.append(b"second")
    assert content(path) == before
    journal.append(b"third")
    journal.close()
    assert read(path)[0] == [b"first", b"third"]


def test_the_last_record_can_be_taken_back(path):
    journal = create_journal(path)
    journal.append(b"first")
    before = journal.length
    journal.append(b"second")
    journal.take_back(before)
    journal.append(b"third")
    journal.close()
    assert read(path)[0] == [b"first", b"third"]
