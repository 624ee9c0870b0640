"""Sidecars: whose they are, what they say, and what tells one from what it was."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from packets import packet
from pictures import save

from imagedbd import decoder_worker, sidecars
from imagedbd.change_queue import ChangeQueue
from imagedbd.datatypes import Decoded, LedgerEntry, Limits, PictureState, Signature
from imagedbd.decoder_worker import decode_file
from imagedbd.errors import PictureChangedError
from imagedbd.ledger import Ledger
from imagedbd.rules import Rules
from imagedbd.scanner import Scanner
from imagedbd.sidecars import UNSURE, mark_of

LONG_AGO_S = 1000.0


def read(path: Path) -> Decoded:
    return decode_file(str(path), frozenset(), None, Limits())


def at_rest() -> None:
    """Past the tick in which a write could go unnoticed."""
    time.sleep(0.05)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save(tmp_path / "IMG_1.jpg", 1)


@pytest.mark.parametrize("name", ["IMG_1.xmp", "IMG_1.jpg.xmp", "IMG_1.XMP"])
def test_its_words_count(photo: Path, name: str) -> None:
    (photo.parent / name).write_bytes(packet(rating=4, caption="The pier", keywords=("sea", "dusk")))
    metadata = read(photo).metadata
    assert (metadata.rating, metadata.caption, metadata.keywords) == (4, "The pier", ("sea", "dusk"))


def test_it_goes_before_what_the_picture_itself_says(tmp_path: Path) -> None:
    embedded = packet(rating=1, caption="old", keywords=("boat",))
    photo = save(tmp_path / "a.jpg", 1, xmp=embedded)
    assert read(photo).metadata.rating == 1
    photo.with_suffix(".xmp").write_bytes(packet(rating=5, keywords=("sea",)))
    metadata = read(photo).metadata
    assert (metadata.rating, metadata.caption, metadata.keywords) == (5, "old", ("sea", "boat"))


def test_the_one_with_the_whole_name_goes_before_that_of_the_stem(photo: Path) -> None:
    (photo.parent / "IMG_1.xmp").write_bytes(packet(rating=1, caption="shared", keywords=("one",)))
    (photo.parent / "IMG_1.jpg.xmp").write_bytes(packet(rating=2, keywords=("two",)))
    metadata = read(photo).metadata
    assert (metadata.rating, metadata.caption, metadata.keywords) == (2, "shared", ("two", "one"))


def test_that_of_another_picture_does_not_count(photo: Path) -> None:
    for name in ("IMG_10.xmp", "IMG_1.CR2.xmp", "img_1.xmp", "IMG_1 .xmp"):
        (photo.parent / name).write_bytes(packet(rating=3))
    decoded = read(photo)
    assert (decoded.metadata.rating, decoded.sidecar) == (None, None)


@pytest.mark.parametrize("content", [b"", b"not XML", b"<a>", b"\0" * 100, b"<!DOCTYPE x><x/>"])
def test_a_broken_one_says_nothing(photo: Path, content: bytes) -> None:
    plain = read(photo).metadata
    photo.with_suffix(".xmp").write_bytes(content)
    assert read(photo).metadata == plain


def test_what_is_no_regular_file_is_none(photo: Path) -> None:
    os.mkfifo(photo.with_suffix(".xmp"))
    photo.with_suffix(".XMP").symlink_to(photo)
    assert read(photo).sidecar is None


@pytest.mark.parametrize("length", [251, 252, 255])
def test_a_name_without_room_for_another_suffix_has_none(tmp_path: Path, length: int) -> None:
    photo = save(tmp_path / f"{'x' * (length - 4)}.jpg", 1)
    assert read(photo).sidecar is None
    photo.with_suffix(".xmp").write_bytes(packet(rating=4))
    assert read(photo).metadata.rating == 4


def test_too_large_a_one_is_left_out(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo.with_suffix(".xmp").write_bytes(packet(rating=4))
    monkeypatch.setattr(sidecars, "MAX_BYTES", 100)
    assert read(photo).metadata.rating is None


def test_every_change_is_told_by_the_mark(photo: Path) -> None:
    sidecar = photo.with_suffix(".xmp")
    marks = [mark_of(str(photo))]
    sidecar.write_bytes(packet(rating=1))
    marks.append(mark_of(str(photo)))
    at_rest()
    stat = sidecar.stat()
    sidecar.write_bytes(packet(rating=2))
    os.utime(sidecar, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    marks.append(mark_of(str(photo)))
    sidecar.rename(photo.parent / "IMG_1.jpg.xmp")
    marks.append(mark_of(str(photo)))
    assert len(set(marks)) == 4
    (photo.parent / "IMG_1.jpg.xmp").unlink()
    assert mark_of(str(photo)) is None is marks[0]


def test_one_that_was_written_a_moment_ago_is_looked_at_again(photo: Path) -> None:
    sidecar = photo.with_suffix(".xmp")
    sidecar.write_bytes(packet(rating=1))
    # As its own clock has it, it was read in the tick in which it was written.
    written_at = sidecar.stat().st_ctime_ns / 1e9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sidecars.time, "time", lambda: written_at)
        assert read(photo).sidecar == UNSURE
    at_rest()
    assert read(photo).sidecar == mark_of(str(photo))


def test_one_that_changes_meanwhile_has_both_read_again(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = photo.with_suffix(".xmp")
    sidecar.write_bytes(packet(rating=1))
    at_rest()
    decode = decoder_worker._decode

    def decode_and_write(*arguments: object) -> object:
        sidecar.write_bytes(packet(rating=2, caption="longer"))
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder_worker, "_decode", decode_and_write)
    with pytest.raises(PictureChangedError, match="sidecar"):
        read(photo)


# What a scan makes of them.


class Folder:
    def __init__(self, home: Path) -> None:
        self.photos = home / "photos"
        self.photos.mkdir()
        self.ledger = Ledger(str(home / "ledger"))
        self.queue = ChangeQueue(settle_s=0, settle_max_s=0)
        self.rules = Rules([str(self.photos)])
        self.scanner = Scanner(self.rules, self.ledger, self.queue, settle_s=0, confirm_s=0)

    def enter(self, name: str, state: PictureState = PictureState.INDEXED) -> Path:
        path = self.photos / name
        path.write_bytes(b"x")
        mark = mark_of(str(path))
        self.ledger.put([LedgerEntry(str(path), Signature.of(path.lstat()), state, sidecar=mark)])
        return path

    def found(self) -> set[str]:
        report = self.scanner.scan()
        assert report.skipped == 0
        changes = self.queue.take(1000, timeout=0)
        for change in changes:
            self.queue.done(change)
        return {os.path.basename(change.path) for change in changes}


@pytest.fixture
def folder(tmp_path: Path):
    folder = Folder(tmp_path)
    yield folder
    folder.ledger.close()


def test_a_scan_finds_pictures_whose_sidecars_came_changed_or_went(folder: Folder) -> None:
    for name in ("a.jpg", "a.CR2", "b.jpg"):
        folder.enter(name)
    assert folder.found() == set()
    sidecar = folder.photos / "a.xmp"
    sidecar.write_bytes(b"1")
    assert folder.found() == {"a.jpg", "a.CR2"}
    for name in ("a.jpg", "a.CR2"):
        folder.enter(name)
    assert folder.found() == set()
    at_rest()
    sidecar.write_bytes(b"2")
    assert folder.found() == {"a.jpg", "a.CR2"}
    folder.enter("a.jpg")
    sidecar.unlink()
    assert "a.jpg" in folder.found()


def test_what_failed_is_not_read_again_for_a_sidecars_sake(folder: Folder) -> None:
    folder.enter("a.jpg", PictureState.FAILED)
    (folder.photos / "a.xmp").write_bytes(b"1")
    assert folder.found() == set()


def test_a_sidecar_is_never_indexed_and_why_says_whose_it_is(folder: Folder) -> None:
    (folder.photos / "alone.xmp").write_bytes(packet(rating=1))
    assert folder.found() == set()
    verdict = folder.rules.explain(str(folder.photos / "alone.xmp"))
    assert not verdict.ok
    assert "sidecar" in (verdict.reason or "")
    assert folder.rules.concerns("alone.xmp")
