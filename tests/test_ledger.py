from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagedbd.datatypes import LedgerEntry, PictureState, Signature
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.ledger import SCHEMA_VERSION, KeptVector, Ledger, PlaceIdentity

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.in_memory

SIGNATURE = Signature(device=1, inode=2, size=3, mtime_ns=4, ctime_ns=5)
OTHER_SIGNATURE = Signature(device=1, inode=2, size=3, mtime_ns=4, ctime_ns=6)

# Few and nasty characters, so that names collide, nest and sort around the slash.
NAMES = st.text("a%_'\n\udcff./0", min_size=1, max_size=4).map(lambda s: s.replace("/", "-"))
PATHS = st.lists(NAMES.filter(lambda n: n not in (".", "..")), min_size=1, max_size=4).map(
    lambda names: "/" + "/".join(names)
)
UNSIGNED = st.integers(0, 2**64 - 1)
TIMES = st.integers(-(2**62), 2**64)
ENTRIES = st.builds(
    LedgerEntry,
    path=PATHS,
    signature=st.builds(Signature, UNSIGNED, UNSIGNED, st.integers(0, 2**62), TIMES, TIMES),
    state=st.sampled_from(PictureState),
    id=st.none() | st.text("abc", min_size=1),
    content_hash=st.none() | st.text("abc", min_size=1),
    attempts=st.integers(0, 5),
    reason=st.none() | st.text(),
    sidecar=st.none() | st.text(),
)
MANY_EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def ledger(tmp_path: Path):
    ledger = Ledger(str(tmp_path / "ledger.sqlite3"))
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def shared_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("ledger") / "ledger.sqlite3")


def entry(path: str, state: PictureState = PictureState.INDEXED, **fields) -> LedgerEntry:
    return LedgerEntry(path, fields.pop("signature", SIGNATURE), state, **fields)


def emptied(ledger: Ledger) -> Ledger:
    ledger.forget([known.path for known in ledger.under("/")])
    return ledger


def is_below(path: str, folder: str) -> bool:
    return os.fsencode(path).startswith(os.fsencode(folder).rstrip(b"/") + b"/")


class TestEntries:
    @MANY_EXAMPLES
    @given(entries=st.lists(ENTRIES, max_size=8, unique_by=lambda e: e.path))
    def test_come_back_as_they_were_put_whatever_their_names_and_numbers(self, shared_file, entries):
        ledger = Ledger(shared_file)
        try:
            emptied(ledger).put(entries)
            assert [ledger.get(e.path) for e in entries] == entries
            assert list(ledger.under("/")) == sorted(entries, key=lambda e: os.fsencode(e.path))
        finally:
            ledger.close()

    @MANY_EXAMPLES
    @given(entries=st.lists(ENTRIES, max_size=12, unique_by=lambda e: e.path), folder=PATHS)
    def test_are_found_by_folder_as_the_paths_say(self, shared_file, entries, folder):
        ledger = Ledger(shared_file)
        try:
            emptied(ledger).put(entries)
            below = {e.path for e in entries if is_below(e.path, folder)}
            directly = {e.path for e in entries if os.path.dirname(e.path) == folder}
            folders = sorted({os.path.dirname(path) for path in below}, key=os.fsencode)
            states = Counter(e.state for e in entries if e.path in below)
            assert {e.path for e in ledger.under(folder)} == below
            assert {e.path for e in ledger.under(folder, recursive=False)} == directly
            assert set(ledger.in_folder(folder)) == directly
            assert list(ledger.folders_under(folder)) == folders
            assert ledger.counts(folder) == {state: states[state] for state in PictureState}
            assert ledger.holds_any(folder) == bool(below)
            again = [e for e in ledger.under(folder) if e.state is PictureState.PENDING and e.id is not None]
            assert ledger.looked_at_again(folder) == len(again)
            assert {e.path for e in ledger.sample(folder, 100)} == below
        finally:
            ledger.close()

    @MANY_EXAMPLES
    @given(
        steps=st.lists(st.tuples(st.sampled_from(["put", "begin", "forget", "retry"]), ENTRIES), max_size=25)
    )
    def test_are_counted_right_whatever_happened_to_them(self, shared_file, steps):
        ledger = Ledger(shared_file)
        try:
            emptied(ledger)
            for step, item in steps:
                if step == "put":
                    ledger.put([item])
                elif step == "begin":
                    ledger.begin([(item.path, item.signature)])
                elif step == "forget":
                    ledger.forget([item.path])
                else:
                    ledger.retry()
            states = Counter(known.state for known in ledger.under("/"))
            assert ledger.counts() == {state: states[state] for state in PictureState}
            assert ledger.counts("/") == ledger.counts()
            again = [e for e in ledger.by_state(PictureState.PENDING) if e.id is not None]
            assert ledger.looked_at_again() == ledger.looked_at_again("/") == len(again)
        finally:
            ledger.close()

    def test_of_the_root_folder_are_found_below_it(self, ledger):
        ledger.put([entry("/a.jpg"), entry("/b/c.jpg")])
        assert set(ledger.in_folder("/")) == {"/a.jpg"}
        assert list(ledger.folders_under("/")) == ["/", "/b"]
        assert ledger.counts("/")[PictureState.INDEXED] == 2

    def test_of_a_folder_are_the_same_with_a_slash_at_its_end(self, ledger):
        ledger.put([entry("/a/b.jpg"), entry("/a/b/c.jpg")])
        assert list(ledger.under("/a/")) == list(ledger.under("/a"))
        assert ledger.in_folder("/a/") == ledger.in_folder("/a")
        assert ledger.counts("/a/") == ledger.counts("/a")

    def test_are_replaced_whole(self, ledger):
        ledger.put([entry("/a.jpg", PictureState.FAILED, attempts=2, reason="truncated")])
        ledger.put([entry("/a.jpg", id="1", content_hash="h")])
        assert ledger.get("/a.jpg") == entry("/a.jpg", id="1", content_hash="h")

    def test_are_written_all_or_none(self, ledger):
        broken = entry("/b.jpg", id=object())
        with pytest.raises(StoreError):
            ledger.put([entry("/a.jpg"), broken])
        assert list(ledger.under("/")) == []

    def test_that_are_unknown_may_be_forgotten(self, ledger):
        ledger.forget(["/a.jpg"])

    def test_have_another_version_after_each_change_and_no_other(self, ledger):
        first = ledger.version()
        assert ledger.version() == first
        ledger.put([entry("/a.jpg")])
        second = ledger.version()
        ledger.forget(["/a.jpg"])
        assert len({first, second, ledger.version()}) == 3

    def test_can_be_written_while_they_are_iterated(self, ledger):
        ledger.put(entry(f"/{n:05}.jpg") for n in range(2500))
        seen = []
        for known in ledger.under("/"):
            seen.append(known.path)
            if len(seen) % 500 == 0:
                ledger.forget(seen)
        assert len(seen) == 2500
        assert ledger.counts()[PictureState.INDEXED] == 0

    def test_are_read_by_other_threads_while_one_writes_and_batches_are_seen_whole(self, ledger):
        finished = threading.Event()

        def totals_seen() -> set[int]:
            totals = set()
            while not finished.is_set():
                totals.add(sum(ledger.counts().values()))
                totals.add(len(list(ledger.under("/"))))
            return totals

        with ThreadPoolExecutor(3) as readers:
            seen = [readers.submit(totals_seen) for _ in range(3)]
            for batch in range(30):
                ledger.put(entry(f"/{batch}/{n}.jpg") for n in range(10))
            finished.set()
            assert set().union(*(future.result() for future in seen)) <= set(range(0, 301, 10))


class TestStates:
    def test_are_listed_in_pages_and_up_to_a_limit(self, ledger):
        ledger.put(entry(f"/{n:05}.jpg", PictureState.WAITING) for n in range(2100))
        ledger.put(entry(f"/i{n}.jpg") for n in range(3))
        assert len(list(ledger.by_state(PictureState.WAITING))) == 2100
        assert [e.path for e in ledger.by_state(PictureState.WAITING, limit=2)] == [
            "/00000.jpg",
            "/00001.jpg",
        ]
        assert len(list(ledger.by_state(PictureState.WAITING, limit=1500))) == 1500
        assert list(ledger.by_state(PictureState.WAITING, limit=0)) == []
        assert len(list(ledger.by_state(PictureState.INDEXED))) == 3

    def test_failures_are_the_failed_ones_with_their_reason(self, ledger):
        failed = entry("/b.jpg", PictureState.FAILED, attempts=1, reason="truncated")
        ledger.put([entry("/a.jpg"), failed])
        assert list(ledger.failures()) == [failed]

    def test_a_retry_of_all_takes_the_failed_ones_only(self, ledger):
        ledger.put([entry("/a.jpg"), entry("/b.jpg", PictureState.FAILED, attempts=2, reason="truncated")])
        assert ledger.retry() == ["/b.jpg"]
        assert ledger.get("/b.jpg") == entry("/b.jpg", PictureState.PENDING)
        assert ledger.get("/a.jpg") == entry("/a.jpg")

    def test_a_retry_of_some_returns_those_that_had_failed(self, ledger):
        ledger.put([entry("/a.jpg"), *(entry(f"/{n}.jpg", PictureState.FAILED) for n in range(3))])
        assert ledger.retry(["/a.jpg", "/1.jpg", "/unknown.jpg"]) == ["/1.jpg"]
        assert len(list(ledger.failures())) == 2


class TestAttempts:
    def test_are_counted_before_the_file_is_opened(self, ledger):
        assert ledger.begin([("/a.jpg", SIGNATURE)]) == {"/a.jpg": 1}
        assert ledger.get("/a.jpg") == entry("/a.jpg", PictureState.PENDING, attempts=1)

    def test_add_up_while_the_file_stays_the_same(self, ledger):
        ledger.begin([("/a.jpg", SIGNATURE)])
        assert ledger.begin([("/a.jpg", SIGNATURE)]) == {"/a.jpg": 2}

    def test_start_again_when_the_file_has_changed(self, ledger):
        ledger.begin([("/a.jpg", SIGNATURE)])
        assert ledger.begin([("/a.jpg", OTHER_SIGNATURE)]) == {"/a.jpg": 1}

    @pytest.mark.parametrize("state", [PictureState.INDEXED, PictureState.WAITING])
    def test_start_again_after_one_that_succeeded(self, ledger, state):
        ledger.put([entry("/a.jpg", state, attempts=2)])
        assert ledger.begin([("/a.jpg", SIGNATURE)]) == {"/a.jpg": 1}

    def test_survive_a_process_that_is_killed(self, tmp_path):
        file = str(tmp_path / "ledger.sqlite3")
        program = (
            "import os, signal, sys\n"
            "from imagedbd.ledger import Ledger\n"
            "from imagedbd.datatypes import Signature\n"
            "Ledger(sys.argv[1]).begin([('/a.jpg', Signature(1, 2, 3, 4, 5))])\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, "-c", program, file], check=False)
        assert done.returncode == -signal.SIGKILL
        ledger = Ledger(file)
        assert ledger.begin([("/a.jpg", SIGNATURE)]) == {"/a.jpg": 2}
        ledger.close()

    def test_keep_the_id_by_which_the_store_knows_the_picture(self, ledger):
        ledger.put([entry("/a.jpg", id="1", content_hash="h")])
        ledger.begin([("/a.jpg", OTHER_SIGNATURE)])
        known = ledger.get("/a.jpg")
        assert known is not None
        assert (known.id, known.content_hash) == ("1", "h")


class TestKnownContents:
    def test_are_those_of_indexed_files_of_that_size(self, ledger):
        ledger.put(
            [entry("/a.jpg", content_hash="h"), entry("/b.jpg", PictureState.WAITING, content_hash="w")]
        )
        assert ledger.hashes_of_size(SIGNATURE.size) == {"h"}
        assert ledger.hashes_of_size(SIGNATURE.size + 1) == frozenset()

    def test_include_an_indexed_file_that_is_being_looked_at_again(self, ledger):
        ledger.put(
            [entry("/a.jpg", content_hash="h"), entry("/b.jpg", PictureState.WAITING, content_hash="w")]
        )
        ledger.begin([("/a.jpg", SIGNATURE), ("/b.jpg", SIGNATURE)])
        assert ledger.hashes_of_size(SIGNATURE.size) == {"h"}

    def test_include_vectors_that_are_kept_until_they_expire(self, ledger):
        ledger.keep_vectors([KeptVector("h", "model", "1", b"\0\1", 3, 100.0)])
        assert ledger.hashes_of_size(3) == {"h"}
        assert ledger.kept_vector("h", "model") == ("1", b"\0\1")
        assert ledger.kept_vector("h", "another model") is None
        assert ledger.expire_kept(99.0) == 0
        assert ledger.expire_kept(100.0) == 1
        assert ledger.hashes_of_size(3) == frozenset()
        assert ledger.kept_vector("h", "model") is None

    def test_lead_to_every_file_that_has_them(self, ledger):
        ledger.put([entry("/b.jpg", content_hash="h"), entry("/a.jpg", content_hash="h"), entry("/c.jpg")])
        assert [e.path for e in ledger.by_hash("h")] == ["/a.jpg", "/b.jpg"]


class TestPlaces:
    def test_are_remembered_until_their_root_is_forgotten(self, ledger):
        own, inner = PlaceIdentity(2**64 - 1, 7, 2), PlaceIdentity(1, 2**63, 2**64 - 1, mounted=True)
        ledger.remember_place("/r", own)
        ledger.remember_place("/r/disk", inner)
        assert ledger.root_seen("/r") == own
        assert ledger.places_under("/r") == {"/r/disk": inner}
        ledger.forget_place("/r")
        assert ledger.root_seen("/r") is None
        assert ledger.places_under("/") == {"/r/disk": inner}

    def test_move_all_at_once(self, ledger):
        inner, other = PlaceIdentity(2, 2, 2, mounted=True), PlaceIdentity(3, 3, 3)
        for place in ("/r", "/r/disk", "/n", "/n/x", "/rest"):
            ledger.remember_place(place, inner if place == "/r/disk" else other)
        ledger.move_places("/r", "/n", {"/n/disk": inner})
        assert ledger.places_under("/") == {"/n/disk": inner, "/rest": other}

    def test_relocations_are_noted_until_they_are_complete(self, ledger):
        ledger.note_relocation("/old\udcff", "/n")
        ledger.note_relocation("/r", "/s")
        ledger.note_relocation("/r", "/new")
        assert ledger.relocations() == {"/old\udcff": "/n", "/r": "/new"}
        ledger.forget_relocation("/old\udcff")
        assert ledger.relocations() == {"/r": "/new"}

    def test_a_relocation_of_what_is_on_its_way_takes_it_along(self, ledger):
        ledger.note_relocation("/a", "/b")
        ledger.note_relocation("/b", "/c")
        assert ledger.relocations() == {"/a": "/c", "/b": "/c"}
        ledger.note_relocation("/c", "/a")
        assert ledger.relocations() == {"/b": "/a", "/c": "/a"}

    def test_a_sample_leaves_out_what_it_is_told_to(self, ledger):
        ledger.put([entry(path) for path in ("/r/1.jpg", "/r/in/2.jpg", "/r/inner.jpg", "/r/on/x/3.jpg")])
        found = ledger.sample("/r", 9, without=["/r/in", "/r/on"])
        assert {e.path for e in found} == {"/r/1.jpg", "/r/inner.jpg"}


class TestTheFile:
    def test_is_read_again_after_closing(self, tmp_path):
        file = str(tmp_path / "ledger.sqlite3")
        ledger = Ledger(file)
        ledger.put([entry("/a.jpg")])
        ledger.close()
        ledger = Ledger(file)
        assert ledger.get("/a.jpg") == entry("/a.jpg")
        ledger.close()

    def test_is_refused_when_it_is_no_database(self, tmp_path):
        file = tmp_path / "ledger.sqlite3"
        file.write_bytes(b"certainly not SQLite" * 100)
        with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
            Ledger(str(file))

    def test_is_refused_when_a_newer_imagedbd_wrote_it(self, tmp_path):
        file = str(tmp_path / "ledger.sqlite3")
        Ledger(file).close()
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        with pytest.raises(StoreUnreadableError, match="format 99"):
            Ledger(file)

    def test_is_refused_when_it_is_the_database_of_something_else(self, tmp_path):
        file = str(tmp_path / "ledger.sqlite3")
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE songs (title TEXT)")
        connection.close()
        with pytest.raises(StoreUnreadableError):
            Ledger(file)

    def test_keeps_what_it_has_when_it_cannot_grow(self, ledger):
        ledger.put([entry("/a.jpg")])
        (pages,) = ledger._writer.execute("PRAGMA page_count").fetchone()
        ledger._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreError, match="full"):
            ledger.put(entry(f"/{n}.jpg") for n in range(5000))
        assert [e.path for e in ledger.under("/")] == ["/a.jpg"]
        ledger.forget(["/a.jpg"])

    def test_cannot_be_used_once_closed(self, tmp_path):
        ledger = Ledger(str(tmp_path / "ledger.sqlite3"))
        ledger.close()
        with pytest.raises(StoreError):
            ledger.get("/a.jpg")


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_ledger_of_an_older_format_is_taken_over(tmp_path: Path, version: int) -> None:
    file = str(tmp_path / "ledger.sqlite3")
    place = PlaceIdentity(1, 2, 3)
    ledger = Ledger(file)
    ledger.put([entry("/a.jpg", id="1", content_hash="x")])
    ledger.remember_place("/r", place)
    ledger.close()
    lacks = {
        1: "ALTER TABLE files DROP COLUMN sidecar;",
        2: "ALTER TABLE places DROP COLUMN mounted; DROP TABLE relocations;",
    }
    with sqlite3.connect(file) as connection:
        connection.executescript(" ".join(lacks[step] for step in range(version, SCHEMA_VERSION)))
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    for _ in range(2):
        ledger = Ledger(file)
        assert ledger.get("/a.jpg") == entry("/a.jpg", id="1", content_hash="x")
        ledger.put([entry("/b.jpg", sidecar="mark")])
        assert ledger.get("/b.jpg") == entry("/b.jpg", sidecar="mark")
        assert ledger.root_seen("/r") == replace(place, mounted=True)
        ledger.note_relocation("/r", "/s")
        assert ledger.relocations() == {"/r": "/s"}
        ledger.close()


def test_a_sidecar_belongs_to_the_pictures_of_its_name(ledger: Ledger) -> None:
    ours = ["/p/a.jpg", "/p/a.CR2", "/p/a.CR2.jpg", "/p/odd\udcff.png"]
    others = ["/p/ab.jpg", "/p/a b.jpg", "/p/A.jpg", "/p/a/a.jpg", "/a.jpg", "/p/a0.jpg", "/p/.a.jpg"]
    ledger.put([entry(path) for path in (*ours, *others)])

    def of(sidecar: str) -> list[str]:
        return [found.path for found in ledger.of_sidecar(sidecar)]

    assert of("/p/a.xmp") == ["/p/a.CR2", "/p/a.jpg"]
    assert of("/p/a.CR2.xmp") == ["/p/a.CR2", "/p/a.CR2.jpg"]
    assert of("/p/odd\udcff.XMP") == ["/p/odd\udcff.png"]
    assert of("/p/none.xmp") == []
